"""VDSR: Kim et al., Accurate Image Super-Resolution Using Very Deep Convolutional Networks, CVPR 2016."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.models._image_net import ImageRow, Upscaler, pixels
from fastcnn.models._net import Feature
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register
from fastcnn.models.restoration.images import bicubic, rgb_to_ycbcr, ycbcr_to_rgb
from fastcnn.nn.blocks import ConvNormAct
from fastcnn.nn.init import init_weights

_PATCH = pixels(41, channels=1)


@dataclass(frozen=True, kw_only=True)
class VDSRRow(ImageRow):
    """Section 3.1. Counts are for the patches of 41x41 that the paper trains with.

    Attributes:
        layers: convolutions, two or more.
        channels: between them.
        scale: that ``upscale`` interpolates by; the weights know none, and the paper trains one network for 2, 3, 4.
    """

    task: str = "super_resolution"
    layers: int = 20
    channels: int = 64
    scale: int = 2
    in_channels: int = 1
    preprocess: Preprocess = _PATCH

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, least in (("layers", 2), ("channels", 1), ("scale", 1)):
            value = getattr(self, field)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{field} must be an int of at least {least}, got {value!r}")


class VDSR(Upscaler):
    """An interpolated image (N, in_channels, H, W), with pixels in [0, 1], plus the residual of it that is predicted.

    The input is the low-resolution image's luminance (Y of YCbCr, ITU-R BT.601) enlarged bicubically; the output has
    its size. Weights and biases that are zero return the input exactly. Any size works. Features: ``conv1`` ...
    ``conv19`` after their ReLUs.
    """

    head_names = ("last",)

    def __init__(self, row: VDSRRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        self.row: VDSRRow
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.layers = nn.Sequential()
        channels = row.in_channels
        for _ in range(row.layers - 1):
            self.layers.append(ConvNormAct(channels, row.channels, norm=None, **factory))
            channels = row.channels
        self.feature_chain = tuple(
            Feature(f"conv{index + 1}", channels, 1, (f"layers.{index}",)) for index in range(len(self.layers))
        )
        self.last = nn.Conv2d(channels, row.in_channels, 3, padding=1, **factory)
        self.init_weights(self)

    def _run(self, input: Tensor) -> Any:
        result = super()._run(input)
        return result if self.features_only else input + result

    def forward_head(self, features: Tensor) -> Tensor:
        return self.last(features)

    def _upscale(self, images: Tensor) -> Tensor:
        """Luminance through the network, chrominance bicubically; a network of three channels takes RGB."""
        enlarged = bicubic(images, self.row.scale)
        if self.in_channels == 3:
            return super()._upscale(enlarged)
        if self.in_channels != 1:
            raise ValueError(f"upscale needs a network of 1 or 3 channels, this has {self.in_channels}")
        ycbcr = rgb_to_ycbcr(enlarged)
        return ycbcr_to_rgb(torch.cat((super()._upscale(ycbcr[:, :1]), ycbcr[:, 1:]), 1))

    def init_weights(self, module: nn.Module) -> None:
        """He et al.'s, ICCV 2015, as section 4.2 says."""
        init_weights(module)


_PAPER = "Kim et al., CVPR 2016, section 3.1, with biases"

ROWS = {
    "vdsr": VDSRRow(source=_PAPER),
    "vdsr_8": VDSRRow(layers=8, channels=32, source=f"{_PAPER}; of 8 layers of 32 channels, for small machines"),
}

register(ROWS, VDSR)
