"""All recipes by name, in the order of their papers, the product's own last."""

from busi_core.errors import TrainingError
from busi_core.recipes import unet_dropout, unet_gradcam, unet_resnet34_tissue, unet_roi_segnet, unet_se
from busi_core.recipes.product import DATA_SETS, PRODUCT
from busi_core.recipes.recipe import Recipe

PRODUCT_RECIPE = Recipe(
    name="product",
    paper="",
    title="This project",
    summary="U-Net on MobileNet-EdgeTPU with a lesion-aware class head, BUSI and BUS-BRA",
    stages=(PRODUCT,),
    data_sets=DATA_SETS,
    printed={},
    printed_start="random",
    weighs_presence=True,
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        *unet_gradcam.RECIPES,
        *unet_resnet34_tissue.RECIPES,
        *unet_dropout.RECIPES,
        *unet_se.RECIPES,
        *unet_roi_segnet.RECIPES,
        PRODUCT_RECIPE,
    )
}


def get_recipe(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        TrainingError: There is none; says which there are.
    """
    if name not in RECIPES:
        raise TrainingError(f"There is no recipe {name!r}.", remedy=f"Known: {', '.join(RECIPES)}.")
    return RECIPES[name]
