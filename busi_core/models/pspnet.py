"""PSPNet on a dilated ResNet-18 (Zhao et al., arXiv:1612.01105): averages over 1, 4, 9 and 36 parts of the image."""

from typing import cast

import segmentation_models_pytorch as smp
from segmentation_models_pytorch.decoders.pspnet.decoder import PSPDecoder
from torch import Tensor, nn

DROPOUT = 0.1  # before the head (section 3.2 names none; the authors' code has it)


def make_dilated_resnet18(in_channels: int) -> nn.Module:
    """smp's ResNet-18 whose last two stages dilate instead of stepping: (batch, 512, side / 8, side / 8) at the end."""
    return cast(
        nn.Module,
        smp.encoders.get_encoder("resnet18", in_channels=in_channels, depth=5, weights=None, output_stride=8),
    )


class PspBody(nn.Module):
    """Dilated ResNet-18 and smp's pyramid pooling; the auxiliary loss of section 3.3 is left out."""

    channels = 512

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.encoder = make_dilated_resnet18(in_channels)
        self.pyramid = PSPDecoder(encoder_channels=[512], out_channels=self.channels, dropout=DROPOUT)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, in, side, side) -> (batch, 512, side / 8, side / 8)."""
        features: Tensor = self.pyramid([self.encoder(images)[-1]])
        return features
