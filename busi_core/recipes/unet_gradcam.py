"""Paper 000: 'U-Net: Breast Cancer Semantic Segmentation on Ultrasound Images using Grad-CAM', and its Table I.

* Architecture (III-C, figure 3): Ronneberger's U-Net, 64 to 1024 channels, 2 x 2 maximum, transposed convolution, from
  scratch. 'Valid' convolutions with tiling in the text: `padding='valid'` builds them; 'symmetric' is the default.
* Classes (III-D): three for each pixel: background (normal), benign, malignant.
* Preprocessing (III-A): images are resized.
* Training (IV-C): Adam, 100 epochs; curves of loss and accuracy.
* Heat maps (III-D): Grad-CAM at the last convolution, one for each class.
* Printed (table I): the rows below, in per cent of pixels.

The paper is silent, we chose:
- 256 x 256, squashed; cross-entropy over pixels; learning rate 1e-4, batch 8, no augmentation; 'same' padding
- the class of the image is read from its pixels: a lesion is there as surely as the surest hundredth of its pixels,
  and they vote on its class (`models.pixels.class_from_pixels`)
- the split: by scan
- Table I names the other systems and nothing else. FCN: FCN-8s on VGG16; SegNet: on VGG16, from scratch; PSPNet-18 and
  ENCNet-18: on a dilated ResNet-18, without their auxiliary losses; MSGRAP: a U-Net with the attention after each
  level, grids of 1, 2 and 4 cells a side. Batch normalisation in all of these, else they do not train from scratch.
"""

from dataclasses import replace

from busi_core.imaging.preprocess import PreprocessSpec
from busi_core.models.interface import Architecture
from busi_core.recipes.contradictions import TABLE_1
from busi_core.recipes.recipe import IMAGE_CLASSES, LESION_CLASSES, Recipe
from busi_core.training.config import TrainingConfig

TITLE = "U-Net: Breast Cancer Semantic Segmentation on Ultrasound Images using Grad-CAM"
UNET = TrainingConfig(
    architecture=Architecture(
        name="plain-unet",
        encoder="none",
        padding="symmetric",
        in_channels=1,
        pixel_classes=LESION_CLASSES,
        image_classes=IMAGE_CLASSES,
        filters=(64, 128, 256, 512, 1024),
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
    patience=100,
    precision="fp32",
    seed=0,
    mask_loss="cross-entropy",
    optimizer="adam",
    schedule="constant",
    augmentation="none",
)


def _make(name: str, row: str, summary: str, architecture: Architecture) -> Recipe:
    accuracy, recall, precision, iou, f1 = (value / 100 for value in TABLE_1[row])
    return Recipe(
        name=name,
        paper="000",
        title=TITLE,
        summary=summary,
        stages=(replace(UNET, architecture=architecture),),
        data_sets=("busi",),
        printed={
            "pixel accuracy": accuracy,
            "pooled recall": recall,
            "pooled precision": precision,
            "pooled IoU": iou,
            "pooled Dice": f1,
        },
        printed_start="random",
    )


_DRAWN = UNET.architecture
RECIPES = (
    _make("unet-gradcam", "Our Model", "U-Net 64 to 1024 from scratch, 3 classes a pixel, heat map at its end", _DRAWN),
    _make("fcn", "FCN", "FCN-8s on VGG16, 3 classes a pixel", replace(_DRAWN, name="fcn", filters=())),
    _make("segnet", "SegNet", "SegNet: unpooling by stored indices", replace(_DRAWN, name="segnet", filters=())),
    _make("pspnet-18", "PSPNet-18", "Pyramid pooling on ResNet-18", replace(_DRAWN, name="pspnet", filters=())),
    _make("encnet-18", "ENCNet-18", "Context encoding on ResNet-18", replace(_DRAWN, name="encnet", filters=())),
    _make(
        "msgrap", "MSGRAP", "U-Net with channel attention over grids", replace(_DRAWN, name="msgrap", batch_norm=True)
    ),
)
