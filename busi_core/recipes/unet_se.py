"""Paper 003: 'Classification and Segmentation of Breast Cancer Ultrasound Images', recipes `unet-se-*`.

* Architecture (approach 1): segmentation_models_pytorch U-Net on VGG16, VGG19, ResNet50, DPN68, ImageNet weights; with
  and without squeeze-and-excitation (hyperparameter tuning); average pooling in place of maximum pooling.
* Preprocessing (dataset): grey, 224 x 224, bilinear for images, nearest for masks; CLAHE, median, Gaussian filter.
* Regularisation (results): dropout, L2, a learning rate that falls over time, a smaller batch.
* Split (dataset): 70 / 15 / 15, classes balanced. Here: by scan.
* Printed (table 1): the rows below; F1 is weighted over the classes.

The paper is silent, we chose:
- scSE in the decoder, channels and places: it is what the named library offers under that word; the text describes the
  channel half alone
- ImageNet weights of these encoders are not at hand: they start at random, and the row says 'printed: ImageNet'
- class head: mean over the image, dropout 0.5, one linear layer; class loss beside the mask loss with weight 1
- 'combinations of augmentations': all three filters, on every image, in training and in reading alike
- binary cross-entropy plus Dice; Adam 1e-4, L2 1e-4, batch 8, rate x 0.96 an epoch, 60 epochs
"""

from busi_core.imaging.preprocess import PreprocessSpec
from busi_core.models.interface import Architecture
from busi_core.recipes.recipe import IMAGE_CLASSES, Recipe
from busi_core.training.config import TrainingConfig


def _make(name: str, encoder: str, *, attention: str, printed: tuple[float, float, float, float]) -> Recipe:
    iou, dice, pixels, f1 = printed
    return Recipe(
        name=name,
        paper="003",
        title="Classification and Segmentation of Breast Cancer Ultrasound Images",
        summary=f"smp U-Net on {encoder}, {'scSE' if attention == 'scse' else 'no attention'}, class head",
        stages=(
            TrainingConfig(
                architecture=Architecture(
                    name="unet",
                    encoder=encoder,
                    padding="symmetric",
                    in_channels=1,
                    pixel_classes=("lesion",),
                    image_classes=IMAGE_CLASSES,
                    head="global",
                    attention=attention,
                    pooling="average",
                    dropout=(0.5,),
                ),
                preprocess=PreprocessSpec(
                    side=224,
                    fit="squash",
                    channels=1,
                    mean=0.5,
                    std=0.5,
                    filters=("clahe", "median", "gaussian"),
                    interpolation="bilinear",
                ),
                start="random",
                epochs=60,
                batch_size=8,
                learning_rate=1e-4,
                encoder_rate=1.0,
                weight_decay=1e-4,
                normal_repeats=1,
                class_weight=1.0,
                average_decay=0.0,
                patience=60,
                precision="fp32",
                seed=0,
                class_loss="plain",
                optimizer="adam",
                schedule="exponential",
                augmentation="none",
            ),
        ),
        data_sets=("busi",),
        printed={"pooled IoU": iou, "pooled Dice": dice, "pixel accuracy": pixels, "weighted F1": f1},
        printed_start="ImageNet",
    )


RECIPES = (
    _make("unet-se-vgg16", "vgg16", attention="scse", printed=(0.41, 0.58, 0.95, 0.877)),
    _make("unet-se-vgg19", "vgg19", attention="scse", printed=(0.51, 0.67, 0.95, 0.82)),
    _make("unet-se-resnet50", "resnet50", attention="scse", printed=(0.50, 0.66, 0.95, 0.82)),
    _make("unet-se-dpn68", "dpn68", attention="scse", printed=(0.59, 0.74, 0.96, 0.81)),
    _make("unet-resnet50-plain", "resnet50", attention="none", printed=(0.43, 0.60, 0.95, 0.80)),
)
