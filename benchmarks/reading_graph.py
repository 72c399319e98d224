"""A reading and its heat maps as one forward computation, without autograd: what an inference engine can take whole.

    images --ReadingGraph--> mask logits, class logits, deepest features, a raw map a class, the mask's raw map

The class head is linear in the deepest features, so its gradient is known: averaged over the cells it is the sum of
the two halves of the head's weights over the number of cells, whatever the mask. The mask's gradient is taken back
through the decoder by hand: transposed convolutions, and the ReLUs' signs from the way forward. Equal to
`gradcam.explain_scan` (a test holds them so); what the request path uses is the latter (docs/adr/0014).
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from busi_core.errors import ModelUnavailableError
from busi_core.models.network import LesionNet


class _Passed(NamedTuple):
    block: Any  # of the decoder
    from_below: int  # channels
    first: Tensor  # after the first ReLU
    second: Tensor  # after the second


class ReadingGraph(nn.Module):
    """One network with its cut-off, as a module of plain operations."""

    def __init__(self, network: LesionNet, threshold: float) -> None:
        """Args:
            network: In eval mode, parameters frozen; shared, not copied.
            threshold: On the lesion probability; the mask's pixels from it on are explained.

        Raises:
            ModelUnavailableError: The decoder is of a kind whose gradient is not written down here.
        """
        super().__init__()
        if network.decoder.center.__class__ is not nn.Identity or network.mask_head[0].out_channels != 1:
            raise ModelUnavailableError(
                "This decoder has a centre block or several pixel classes.", remedy="Read it with torch."
            )
        self.network = network
        self.threshold = float(torch.logit(torch.tensor(threshold, dtype=torch.float64)))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Read one image, (1, channels, side, side).

        Returns:
            Mask logits, class logits, (1, channels, rows, columns) features, (classes, rows, columns) class maps and
            the mask's (rows, columns); maps after ReLU, neither resized nor scaled.
        """
        network = self.network
        features = network.encode(images)
        deepest = features[-1]
        drawn, signs = self._decode(features)
        mask_logits = network.mask_head(drawn)
        class_logits = network.classify(deepest, mask_logits)
        if class_logits is None:
            class_logits = images.new_zeros((1, 0))
        lesion_map = self._mask_map(deepest, mask_logits, signs)
        return mask_logits, class_logits, deepest, self._class_maps(deepest), lesion_map

    def _decode(self, features: list[Tensor]) -> tuple[Tensor, list[_Passed]]:
        """The decoder's last map; of each block, how many channels came from below and what its ReLUs let through."""
        skips = [*reversed(features[1:-1]), None]
        current, passed = features[-1], []
        for block, skip in zip(self.network.decoder.blocks, skips, strict=True):
            enlarged = functional.interpolate(current, scale_factor=2.0, mode="nearest")
            first = block.conv1(enlarged if skip is None else torch.cat([enlarged, skip], dim=1))
            second = block.conv2(first)
            passed.append(_Passed(block, current.shape[1], first, second))
            current = second
        return current, passed

    def _class_maps(self, deepest: Tensor) -> Tensor:
        if self.network.class_head is None:
            return deepest.new_zeros((0, *deepest.shape[-2:]))
        halves = cast(nn.Linear, self.network.class_head[1]).weight.chunk(2, dim=1)
        cells = deepest.shape[-2] * deepest.shape[-1]
        weights = (halves[0] + halves[1]) / cells
        return functional.conv2d(deepest, weights[:, :, None, None])[0].clamp(min=0)

    def _mask_map(self, deepest: Tensor, mask_logits: Tensor, passed: list[_Passed]) -> Tensor:
        cutoff = mask_logits.amax().clamp(max=self.threshold)
        head = cast(nn.Conv2d, self.network.mask_head[0])
        gradient = functional.conv_transpose2d((mask_logits >= cutoff).to(mask_logits.dtype), head.weight, padding=1)
        for block, from_below, first, second in reversed(passed):
            gradient = _back(gradient, second, block.conv2, first.shape[1])
            gradient = _back(gradient, first, block.conv1, from_below)
            gradient = 4 * functional.avg_pool2d(gradient, 2)  # back through doubling the side
        weights = gradient.mean(dim=(2, 3), keepdim=True)
        return (weights * deepest).sum(dim=1).clamp(min=0)[0]


def _back(gradient: Tensor, output: Tensor, step: Any, channels: int) -> Tensor:
    """The gradient by the first `channels` inputs of a convolution, its normalisation and its ReLU."""
    convolution, norm = step[0], step[1]
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    through = gradient * (output > 0).to(gradient.dtype) * scale[:, None, None]
    return functional.conv_transpose2d(through, convolution.weight[:, :channels], padding=1)


def convert(graph: nn.Module, images: Tensor, precision: str) -> Any:
    """Torch -> an OpenVINO model compiled for this processor, in memory.

    Not by openvino's `convert_model`, which reports its use over the network (W3); its front end does not.

    Args:
        graph: Of plain operations, taking `images` alone.
        images: Of the size that it will be given.
        precision: 'f32', or 'bf16', which is its default where the processor has it.
    """
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    decoder = TorchScriptPythonDecoder(graph.eval(), example_input=images)
    front_end = FrontEndManager().load_by_framework("pytorch")
    model = front_end.convert(front_end.load(decoder))
    model.reshape({model.inputs[0]: list(images.shape)})
    return openvino.Core().compile_model(
        model, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    )
