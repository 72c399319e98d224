"""Paper 002: 'Image Segmentation of Breast Cancer Ultrasounds using U-Net Architecture' (BUSI, Baral's copy),
recipe `unet-dropout`.

* Architecture (III-B): four encoder blocks of 32, 64, 128, 256 filters, bottleneck 512, 3 x 3 kernels, 'same' padding,
  batch normalisation, ReLU, 2 x 2 maximum; dropout 0.1, 0.1, 0.2, 0.2, the same on the way up; transposed
  convolution, one output channel, sigmoid.
* Preprocessing (III-A): all masks of an image merged, 256 x 256, scaled to [0, 1].
* Loss (IV): binary cross-entropy.
* Split (IV): 10 % test, 20 % of the rest validation, at random over files. Here: by scan.
* Printed (table I): loss .2423, accuracy .9163, IoU .4543.

The paper is silent, we chose:
- optimiser Adam, learning rate 1e-3, batch 16, 50 epochs, no augmentation, the epoch with the best validation score
- dropout between the two convolutions of a block, of whole channels
- a pixel is lesion from a cut-off chosen on validation, 0.5 where that is not done
- merged masks: all of them, also the third one of the one image that has three
"""

from busi_core.imaging.preprocess import PreprocessSpec
from busi_core.models.interface import Architecture
from busi_core.recipes.recipe import Recipe
from busi_core.training.config import TrainingConfig

RECIPES = (
    Recipe(
        name="unet-dropout",
        paper="002",
        title="Image Segmentation of Breast Cancer Ultrasounds using U-Net Architecture",
        summary="U-Net 32 to 256, bottleneck 512, batch norm, dropout, binary cross-entropy, 256 px; masks only",
        stages=(
            TrainingConfig(
                architecture=Architecture(
                    name="plain-unet",
                    encoder="none",
                    padding="symmetric",
                    in_channels=1,
                    pixel_classes=("lesion",),
                    image_classes=(),
                    filters=(32, 64, 128, 256, 512),
                    dropout=(0.1, 0.1, 0.2, 0.2, 0.0),
                    batch_norm=True,
                ),
                preprocess=PreprocessSpec(side=256, fit="squash", channels=1, mean=0.0, std=1.0),
                start="random",
                epochs=50,
                batch_size=16,
                learning_rate=1e-3,
                encoder_rate=1.0,
                weight_decay=0.0,
                normal_repeats=1,
                class_weight=0.0,
                average_decay=0.0,
                patience=50,
                precision="fp32",
                seed=0,
                mask_loss="bce",
                optimizer="adam",
                schedule="constant",
                augmentation="none",
            ),
        ),
        data_sets=("busi",),
        printed={"pooled IoU": 0.4543, "pixel accuracy": 0.9163},
        printed_start="random",
    ),
)
