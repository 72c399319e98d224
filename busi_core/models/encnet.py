"""EncNet on a dilated ResNet-18 (Zhang et al., arXiv:1803.08904): channels are weighed by a code of the whole image."""

import torch
from torch import Tensor, nn

from busi_core.models.pspnet import make_dilated_resnet18

CODEWORDS = 32  # section 4.1


class Encoding(nn.Module):
    """Residuals of each place to K codewords, softly assigned and summed over the places (section 2.1, equation 1)."""

    def __init__(self, channels: int, codewords: int) -> None:
        super().__init__()
        spread = 1 / (channels * codewords) ** 0.5
        self.codewords = nn.Parameter(torch.empty(codewords, channels).uniform_(-spread, spread))
        self.smoothing = nn.Parameter(torch.empty(codewords).uniform_(-1, 0))

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels, rows, columns) -> (batch, codewords, channels)."""
        places = features.flatten(start_dim=2).transpose(1, 2)
        # |x - d|^2 and the weighted sum of x - d, multiplied out: the residuals would take K times the memory
        distance = (
            places.square().sum(dim=2, keepdim=True)
            - 2 * places @ self.codewords.T
            + self.codewords.square().sum(dim=1)[None, None]
        )
        assignment = (self.smoothing * distance).softmax(dim=2)
        return assignment.transpose(1, 2) @ places - assignment.sum(dim=1)[:, :, None] * self.codewords


class EncBody(nn.Module):
    """Dilated ResNet-18 and the context encoding module; the semantic encoding loss is left out."""

    channels = 128

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.encoder = make_dilated_resnet18(in_channels)
        self.reduce = nn.Sequential(
            nn.Conv2d(512, self.channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(self.channels),
            nn.ReLU(inplace=True),
        )
        self.encoding = Encoding(self.channels, CODEWORDS)
        self.normalise = nn.Sequential(nn.BatchNorm1d(CODEWORDS), nn.ReLU(inplace=True))
        self.weigh = nn.Sequential(nn.Linear(self.channels, self.channels), nn.Sigmoid())

    def forward(self, images: Tensor) -> Tensor:
        """(batch, in, side, side) -> (batch, 128, side / 8, side / 8)."""
        features: Tensor = self.reduce(self.encoder(images)[-1])
        context = self.normalise(self.encoding(features)).mean(dim=1)
        weights: Tensor = self.weigh(context)
        return features * (1 + weights[:, :, None, None])
