"""The product's own recipe, from which a training starts (a card says what was changed), and its data sets."""

from busi_core.data.records import read_bus_bra, read_busi
from busi_core.data.simulated_set import split_simulated
from busi_core.data.splits import Kept, Split, split_bus_bra, split_busi
from busi_core.errors import DatasetError
from busi_core.imaging.preprocess import PreprocessSpec
from busi_core.managed.sets import ManagedSet
from busi_core.managed.splits import split_sets
from busi_core.managed.store import list_sets, read_set
from busi_core.models.network import Architecture
from busi_core.settings import Settings
from busi_core.training.config import TrainingConfig
from busi_core.types import Diagnosis

DATA_SETS = ("busi", "bus-bra")  # of BUSI_DATA_ROOT
SIMULATED = "simulated"  # drawn here: a rehearsal, no model for patients

PRODUCT = TrainingConfig(
    architecture=Architecture(
        name="unet",
        encoder="tu-mobilenet_edgetpu_100",
        padding="same",
        in_channels=1,
        pixel_classes=("lesion",),
        image_classes=tuple(diagnosis.value for diagnosis in Diagnosis),
    ),
    preprocess=PreprocessSpec(side=256, fit="pad", channels=1, mean=0.5, std=0.5),
    start="imagenet",
    epochs=50,
    batch_size=16,
    learning_rate=1e-3,
    encoder_rate=0.3,
    weight_decay=0.01,
    normal_repeats=2,
    class_weight=0.5,
    average_decay=0.995,
    patience=12,
    precision="bf16",
    seed=0,
)


def list_data_sets(settings: Settings) -> list[str]:
    """What can be trained on here: public sets whose folder is there, managed sets in use, simulated scans."""
    public = [name for name in DATA_SETS if (settings.data_root / name).is_dir()]
    return [*public, *(managed.id for managed in list_sets(settings.state_dir)), SIMULATED]


def read_split(settings: Settings, data_sets: tuple[str, ...], *, test_fold: int | None, kept: Kept = "next") -> Split:
    """The split of the named data sets; BUSI's test part is `test_fold` (None: it has none), BUS-BRA's its fold 3.

    Managed sets have no test part; their scans follow copies in the public sets (`split_sets`). What validates in the
    public sets is `kept`; managed sets and simulated scans keep a part of their own.

    Raises:
        DatasetError: An unknown name, a folder that is not sound, or a set that was taken out of use.
    """
    split, managed = Split((), (), ()), []
    for name in data_sets:
        if name == "busi":
            split += split_busi(read_busi(settings.data_root / "busi"), test_fold=test_fold, kept=kept)
        elif name == "bus-bra":
            split += split_bus_bra(read_bus_bra(settings.data_root / "bus-bra"), test_fold=test_fold, kept=kept)
        elif name == SIMULATED:
            split += split_simulated(settings.state_dir / SIMULATED, test_fold=test_fold)
        else:
            managed.append(_read_managed(settings, name))
    return split_sets(settings.state_dir, managed, split) if managed else split


def _read_managed(settings: Settings, name: str) -> ManagedSet:
    try:
        return read_set(settings.state_dir, name)
    except DatasetError as error:
        known = ", ".join(list_data_sets(settings))
        raise DatasetError(f"The data set {name!r} is unknown or damaged.", remedy=f"Known: {known}.") from error
