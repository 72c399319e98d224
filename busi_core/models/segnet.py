"""SegNet (Badrinarayanan et al., arXiv:1511.00561): the decoder puts each maximum back where the encoder found it.

    (batch, in, side, side) -> VGG16's 13 convolutions -> their mirror image, unpooled by the stored indices
    -> (batch, 64, side, side)

`SegnetEncoder` is its encoder alone in the size that the paper of `recipes.unet_roi_segnet` prints.
"""

from collections.abc import Sequence

from torch import Tensor, nn

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))  # VGG16's convolutions


def _convolutions(before: int, widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        before = width
    return nn.Sequential(*layers)


class SegnetBody(nn.Module):
    """All of SegNet but its last convolution to the classes, which is `pixels.PixelNet`'s head.

    That last one is 3 x 3 in the paper and 1 x 1 here.
    """

    channels = STAGES[0][0]

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        befores = (in_channels, *(widths[-1] for widths in STAGES))
        self.down = nn.ModuleList(
            _convolutions(before, widths) for before, widths in zip(befores, STAGES, strict=False)
        )
        mirrored = [(*widths[1:], before) for before, widths in zip(befores, STAGES, strict=False)]
        mirrored[0] = STAGES[0]  # ends in 64, which the head turns into classes
        self.up = nn.ModuleList(_convolutions(widths[-1], mirrored[n]) for n, widths in enumerate(STAGES))
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.unpool = nn.MaxUnpool2d(2)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, in, side, side) -> (batch, 64, side, side); side a multiple of 32."""
        current, places = images, []
        for level in self.down:
            current, place = self.pool(level(current))
            places.append(place)
        for level, place in zip(reversed(self.up), reversed(places), strict=True):
            current = level(self.unpool(current, place))
        return current


class SegnetEncoder(nn.Module):
    """Blocks of two 3 x 3 convolutions with ReLU, a maximum over 2 x 2 and dropout, as 'adapted' for classification.

    Args:
        in_channels: Of the image.
        filters: Channels of each block.
        dropout: After each block.
    """

    def __init__(self, in_channels: int, filters: Sequence[int], dropout: float) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for width in filters:
            for before in (in_channels, width):
                blocks += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(inplace=True)]
            blocks += [nn.MaxPool2d(2), nn.Dropout(dropout)]
            in_channels = width
        self.blocks = nn.Sequential(*blocks)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, in, side, side) -> (batch, filters[-1], side / 2 ** blocks, side / 2 ** blocks)."""
        features: Tensor = self.blocks(images)
        return features
