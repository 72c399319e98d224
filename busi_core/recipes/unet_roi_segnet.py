"""Paper 004: 'Deep Learning Approaches for Segmentation and Classification of Breast Ultrasound Images'.

* Stage one (3.1): U-Net, four blocks of 64 to 512 filters, two 3 x 3 'same' convolutions each, transposed convolution.
* Stage two (3.2): the predicted region is cut out; SegNet's encoder, four blocks of 16 to 64 filters, two convolutions,
  maximum pooling, dropout 0.5; benign or malignant.
* Preprocessing (4.1): grey, 256 x 256, binary masks; normals left out.
* Training (4.2): Adam; stage one 1e-4, batch 8, 100 epochs, patience 16; stage two 1e-5, batch 16, 50 epochs, patience
  10; binary cross-entropy; rotation 20 degrees, shifts 20 %, zoom, horizontal flip; oversampling to equal counts.
* Split (4.2): 15-5-80 for stage one, 60-10-30 of the 80 for stage two. Here: by scan, the test part is our fold; of the
  other scans stage one learns from a quarter and stage two from the rest, in the paper's proportion 20 to 56.
* Ablation (tables 1 and 2): `busi sweep` trains its seven rows.
* Printed: segmentation accuracy 93.23 %; class accuracy 98 %, precision 99 % benign, 97 % malignant.

The paper is silent, we chose:
- filters 64, 128, 256, 512 and 512 again for the bottleneck, so that '64 to 512' holds; 16, 32, 64, 64 likewise
- the region: the box around the mask at 0.5 with a tenth of its size around it, stretched to 256 x 256
- zoom up to a fifth; oversampling after the split only, in both stages; 'context extrapolation' is not built
- an empty mask gives 'normal', a class that the paper leaves out; class head: mean over the region, one linear layer
- stage two sees regions as stage one predicts them, and learns nothing from a lesion that stage one misses
"""

from dataclasses import replace

from busi_core.imaging.preprocess import PreprocessSpec
from busi_core.models.interface import Architecture
from busi_core.recipes.recipe import IMAGE_CLASSES, Recipe
from busi_core.training.config import TrainingConfig

BLOCKS = 4
SEGMENTATION_ROWS = ((1e-4, 64, 512), (4e-4, 32, 128), (1e-5, 32, 128), (1e-5, 64, 512))  # table 1: rate, filters
CLASSIFICATION_ROWS = ((1e-4, 16, 64), (1e-5, 16, 64), (1e-5, 32, 256))  # table 2


def filters_between(low: int, high: int) -> tuple[int, ...]:
    """Channels of four blocks that double from `low` and stay at `high`: (64, 128, 256, 512) of 64 to 512."""
    return tuple(min(low * 2**block, high) for block in range(BLOCKS))


SEGMENT = TrainingConfig(
    architecture=Architecture(
        name="roi",
        encoder="none",
        padding="symmetric",
        in_channels=1,
        pixel_classes=("lesion",),
        image_classes=IMAGE_CLASSES,
        filters=(*filters_between(64, 512), 512),
        dropout=(0.5,),
        class_filters=filters_between(16, 64),
    ),
    preprocess=PreprocessSpec(side=256, fit="squash", channels=1, mean=0.0, std=1.0),
    start="random",
    epochs=100,
    batch_size=8,
    learning_rate=1e-4,
    encoder_rate=1.0,
    weight_decay=0.0,
    normal_repeats=1,
    class_weight=0.0,
    average_decay=0.0,
    patience=16,
    precision="fp32",
    seed=0,
    mask_loss="bce",
    optimizer="adam",
    schedule="constant",
    augmentation="turn-shift-zoom",
    balance=True,
    trains="segmenter",
)
CLASSIFY = replace(
    SEGMENT,
    epochs=50,
    batch_size=16,
    learning_rate=1e-5,
    class_weight=1.0,
    patience=10,
    class_loss="lesions",
    trains="classifier",
)
UNET_ROI_SEGNET = Recipe(
    name="unet-roi-segnet",
    paper="004",
    title="Deep Learning Approaches for Segmentation and Classification of Breast Ultrasound Images",
    summary="two stages: U-Net 64 to 512 segments, the region is cut out, SegNet's encoder 16 to 64 classifies it",
    stages=(SEGMENT, CLASSIFY),
    stage_shares=(0.26, 0.74),
    data_sets=("busi",),
    printed={
        "pixel accuracy": 0.9323,
        "accuracy, benign or malignant": 0.98,
        "precision of benign": 0.99,
        "precision of malignant": 0.97,
    },
    printed_start="random",
)
RECIPES = (UNET_ROI_SEGNET,)


def sweep_rows() -> list[Recipe]:
    """The ablation: one recipe a row of tables 1 and 2, the other stage as in the best row."""
    rows = []
    for number, (rate, low, high) in enumerate(SEGMENTATION_ROWS, start=1):
        network = replace(SEGMENT.architecture, filters=(*filters_between(low, high), high))
        rows.append(_row(f"segmentation-{number}", network, rate, CLASSIFY.learning_rate))
    for number, (rate, low, high) in enumerate(CLASSIFICATION_ROWS, start=1):
        network = replace(SEGMENT.architecture, class_filters=filters_between(low, high))
        rows.append(_row(f"classification-{number}", network, SEGMENT.learning_rate, rate))
    return rows


def _row(name: str, network: Architecture, segment_rate: float, class_rate: float) -> Recipe:
    stages = (
        replace(SEGMENT, architecture=network, learning_rate=segment_rate),
        replace(CLASSIFY, architecture=network, learning_rate=class_rate),
    )
    return replace(UNET_ROI_SEGNET, name=f"unet-roi-segnet-{name}", stages=stages)
