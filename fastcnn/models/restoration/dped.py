"""Photo enhancement: Ignatov et al., DSLR-Quality Photos on Mobile Devices with Deep Convolutional Networks, 2017."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.models._image_net import ImageNetwork, ImageRow, as_batch, as_given, pixels
from fastcnn.models._net import Feature
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register
from fastcnn.nn.blocks import ConvNormAct

_PATCH = pixels(100)
# An instance norm's epsilon is the authors' code's.
_NORMS: dict[str, Any] = {"batch": nn.BatchNorm2d, "instance": partial(nn.InstanceNorm2d, eps=1e-3, affine=True)}


@dataclass(frozen=True, kw_only=True)
class DPEDRow(ImageRow):
    """Figure 3 and section 3.2. Counts are for the patches of 100x100 that the paper trains with.

    Attributes:
        blocks: residual blocks of two convolutions each.
        channels: of all maps.
        norm: in the blocks: "batch", the paper's, or "instance", its code's.
    """

    task: str = "enhancement"
    blocks: int = 4
    channels: int = 64
    norm: str = "batch"
    preprocess: Preprocess = _PATCH

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("blocks", "channels"):
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{field} must be a positive int, got {value!r}")
        if self.norm not in _NORMS:
            raise ValueError(f"norm must be batch or instance, got {self.norm!r}")


class _Block(nn.Module):
    """``input + layer(layer(input))``, a layer being convolution, norm and ReLU: nothing comes after the sum."""

    def __init__(self, channels: int, norm: str, **factory: Any) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(ConvNormAct(channels, channels, norm=_NORMS[norm], **factory) for _ in range(2)))

    def forward(self, input: Tensor) -> Tensor:
        return input + self.layers(input)


class DPEDGenerator(ImageNetwork):
    """A phone's photo (N, in_channels, H, W), with pixels in [0, 1], to one as a better camera takes it, of its size.

    The last of the twelve layers (of the paper's four blocks) ends with ``0.58 * tanh + 0.5``, the authors' scale, so
    values are in [-0.08, 1.08]. Any size works. Features: ``conv1``, ``blocks.0`` ... ``blocks.3``, ``conv2``,
    ``conv3``.
    """

    head_names = ("conv4",)

    def __init__(self, row: DPEDRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        self.row: DPEDRow
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        channels = row.channels
        self.conv1 = ConvNormAct(row.in_channels, channels, 9, norm=None, **factory)
        self.blocks = nn.Sequential(*(_Block(channels, row.norm, **factory) for _ in range(row.blocks)))
        self.conv2 = ConvNormAct(channels, channels, norm=None, **factory)
        self.conv3 = ConvNormAct(channels, channels, norm=None, **factory)
        names = ("conv1", *(f"blocks.{index}" for index in range(row.blocks)), "conv2", "conv3")
        self.feature_chain = tuple(Feature(name, channels, 1, (name,)) for name in names)
        self.conv4 = nn.Conv2d(channels, row.in_channels, 9, padding=4, **factory)
        self.init_weights(self)

    def forward_head(self, features: Tensor) -> Tensor:
        return 0.58 * self.conv4(features).tanh() + 0.5

    @torch.no_grad()
    def enhance(self, image: Tensor) -> Tensor:
        """(3, h, w) or (N, 3, h, w) RGB in [0, 1] to the same, clamped; see :meth:`Upscaler.upscale`. In eval mode
        an image's result does not depend on the others."""
        result = self(as_batch(image, self))
        assert isinstance(result, Tensor)
        return as_given(result, image)

    def init_weights(self, module: nn.Module) -> None:
        """The authors' code's: normal of deviation 0.01, cut off at two deviations; biases 0.01."""
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.02, b=0.02)
                if layer.bias is not None:
                    nn.init.constant_(layer.bias, 0.01)


_PAPER = "Ignatov et al., ICCV 2017, section 3.2"

ROWS = {
    "dped_generator": DPEDRow(source=_PAPER),
    "dped_generator_in": DPEDRow(norm="instance", source=f"{_PAPER}, with the instance norms of the authors' code"),
}

register(ROWS, DPEDGenerator)
