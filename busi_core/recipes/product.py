"""The product's own recipe: what the weights in service are trained with, and on what."""

from busi_core.data.records import read_bus_bra, read_busi
from busi_core.data.splits import Split, split_bus_bra, split_busi
from busi_core.errors import DatasetError
from busi_core.imaging.preprocess import PreprocessSpec
from busi_core.models.network import Architecture
from busi_core.settings import Settings
from busi_core.training.config import TrainingConfig
from busi_core.types import Diagnosis

DATA_SETS = ("busi", "bus-bra")

PRODUCT = TrainingConfig(
    architecture=Architecture(
        name="unet",
        encoder="tu-mobilenet_edgetpu_100",
        in_channels=1,
        pixel_classes=("lesion",),
        image_classes=tuple(diagnosis.value for diagnosis in Diagnosis),
    ),
    preprocess=PreprocessSpec(side=256, fit="pad", channels=1, mean=0.5, std=0.5),
    start="imagenet",
    epochs=20,
    batch_size=16,
    learning_rate=1e-3,
    encoder_rate=0.3,
    weight_decay=0.01,
    normal_repeats=1,
    class_weight=0.5,
    average_decay=0.995,
    patience=12,
    precision="bf16",
    seed=0,
)


def read_split(settings: Settings, data_sets: tuple[str, ...], *, test_fold: int) -> Split:
    """The split of the named data sets; BUSI's test part is `test_fold`, BUS-BRA's its fold 3.

    Raises:
        DatasetError: An unknown name, or a folder that is not sound.
    """
    split = Split((), (), ())
    for name in data_sets:
        if name == "busi":
            split += split_busi(read_busi(settings.data_root / "busi"), test_fold=test_fold)
        elif name == "bus-bra":
            split += split_bus_bra(read_bus_bra(settings.data_root / "bus-bra"))
        else:
            raise DatasetError(f"The data set {name!r} is unknown.", remedy=f"Known: {', '.join(DATA_SETS)}.")
    return split
