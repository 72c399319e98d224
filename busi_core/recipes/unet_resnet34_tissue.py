"""Paper 001: 'Leveraging Deep Learning For Early Breast Cancer Detection Through Semantic Segmentation'.

* Architecture (figure 6.1, the layer table): segmentation_models_pytorch U-Net on ResNet-34, RGB 224 x 224, 21 output
  classes, 24,439,269 parameters, all trained.
* Data (3.4): BCSS, breast cancer tissue, Amgad et al., Bioinformatics 2019, doi:10.1093/bioinformatics/btz083.
* Printed (IV): accuracy 95.4 over all classes; of the tumour class precision 94.5, recall 91.8, F1 92.05.

BCSS is not at hand. `busi train --recipe unet-resnet34-tissue --tissue FOLDER` trains on it where it is; without FOLDER
the network is trained on tiles that a generator makes (`imaging.tissue`), and its row says so wherever it shows. It
reads no scans: it stands on the page Systems and never in Analyse.

The paper is silent, we chose:
- ImageNet weights of ResNet-34 are not at hand: random start, 'printed: ImageNet' (VII: 'pre-trained')
- cross-entropy over pixels, Adam 1e-3, batch 16, 30 epochs, flips in both directions
- 'dropout layers' and a softmax layer stand in the text and not in the layer table: the table is built
- 224 px as in the table, not 512 px as in the text
- 70 / 15 / 15 over slides where a tile's name tells its slide, else over tiles
"""

from busi_core.data.bcss import CODES
from busi_core.imaging.preprocess import PreprocessSpec
from busi_core.models.interface import Architecture
from busi_core.recipes.recipe import Recipe
from busi_core.training.config import TrainingConfig

RECIPES = (
    Recipe(
        name="unet-resnet34-tissue",
        paper="001",
        title="Leveraging Deep Learning For Early Breast Cancer Detection Through Semantic Segmentation",
        summary="smp U-Net on ResNet-34, RGB tiles of stained tissue, 21 classes a pixel; no scans",
        stages=(
            TrainingConfig(
                architecture=Architecture(
                    name="unet",
                    encoder="resnet34",
                    padding="symmetric",
                    in_channels=3,
                    pixel_classes=CODES[:21],
                    image_classes=(),
                ),
                preprocess=PreprocessSpec(side=224, fit="squash", channels=3, mean=0.5, std=0.5, source="colour"),
                start="random",
                epochs=30,
                batch_size=16,
                learning_rate=1e-3,
                encoder_rate=1.0,
                weight_decay=0.0,
                normal_repeats=1,
                class_weight=0.0,
                average_decay=0.0,
                patience=30,
                precision="fp32",
                seed=0,
                mask_loss="cross-entropy",
                optimizer="adam",
                schedule="constant",
                augmentation="flips",
            ),
        ),
        data_sets=("bcss",),
        printed={
            "pixel accuracy": 0.954,
            "precision of tumor": 0.945,
            "recall of tumor": 0.918,
            "F1 of tumor": 0.9205,
        },
        printed_start="ImageNet",
    ),
)
