"""EDSR: Lim et al., Enhanced Deep Residual Networks for Single Image Super-Resolution, CVPR workshops 2017."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.models._image_net import ImageRow, Upscaler, pixels
from fastcnn.models._net import Feature
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register
from fastcnn.nn.blocks import ConvSequence

# Mean RGB of DIV2K's training images, in [0, 1], which section 4.2 subtracts.
DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
_PATCH = pixels(48)


@dataclass(frozen=True, kw_only=True)
class EDSRRow(ImageRow):
    """Table 1. Counts are for the low-resolution patches of 48x48 that the paper trains with.

    Attributes:
        scale: 2, 3 or 4.
        blocks: residual blocks.
        channels: of all maps.
        residual_scale: what each block's branch is multiplied by before the addition (section 3.3).
        mean: of each input channel, in [0, 1].
        pixel_range: of the pixels that the convolutions see, as in the authors' code: 255, of inputs in [0, 1].
    """

    task: str = "super_resolution"
    scale: int
    blocks: int = 16
    channels: int = 64
    residual_scale: float = 1.0
    mean: tuple[float, ...] = DIV2K_MEAN
    pixel_range: float = 255.0
    preprocess: Preprocess = _PATCH

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale not in (2, 3, 4):
            raise ValueError(f"scale must be 2, 3 or 4, got {self.scale!r}")
        for field in ("blocks", "channels"):
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{field} must be a positive int, got {value!r}")
        if not (self.residual_scale > 0 and self.pixel_range > 0):
            raise ValueError(
                f"residual_scale and pixel_range must be positive, got {self.residual_scale}, {self.pixel_range}"
            )
        if len(self.mean) != self.in_channels:
            raise ValueError(f"mean must have {self.in_channels} channels, got {self.mean}")


class EDSRBlock(nn.Module):
    """``input + residual_scale * conv(relu(conv(input)))``: no norm, and no ReLU after the sum (figure 2c).

    (N, channels, H, W) to the same.
    """

    def __init__(self, channels: int, residual_scale: float = 1.0, **factory: Any) -> None:
        super().__init__()
        self.residual_scale = residual_scale
        self.body = ConvSequence(
            nn.Conv2d(channels, channels, 3, padding=1, **factory),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, **factory),
        )

    def forward(self, input: Tensor) -> Tensor:
        if self.residual_scale == 1:
            return self.body(input, input)
        return input + self.residual_scale * self.body(input)

    def extra_repr(self) -> str:
        return f"residual_scale={self.residual_scale}"


class _Trunk(nn.Sequential):
    """The blocks, a convolution, and the shortcut over all of them."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + input


class SubPixelUpsampler(nn.Sequential):
    """Convolutions to ``r * r`` times the channels, each before a pixel shuffle by r: 2, 3, or 2 twice for 4.

    (N, channels, H, W) to (N, channels, scale * H, scale * W). Source: Shi et al., Real-Time Single Image and Video
    Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network, CVPR 2016.
    """

    def __init__(self, channels: int, scale: int, **factory: Any) -> None:
        super().__init__()
        for step in (2, 2) if scale == 4 else (scale,):
            self.append(nn.Conv2d(channels, channels * step**2, 3, padding=1, **factory))
            self.append(nn.PixelShuffle(step))


class EDSR(Upscaler):
    """(N, in_channels, h, w) with pixels in [0, 1] to (N, in_channels, scale * h, scale * w), which is not clamped.

    Any size works. Keys are those of the authors' PyTorch code, without its ``sub_mean`` and ``add_mean``, which hold
    constants. Features: ``head`` and ``body``, of the low resolution.
    """

    head_names = ("tail",)

    def __init__(self, row: EDSRRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        self.row: EDSRRow
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        options: dict[str, Any] = {"kernel_size": 3, "padding": 1, **factory}
        self.head = nn.Sequential(nn.Conv2d(row.in_channels, row.channels, **options))
        blocks = (EDSRBlock(row.channels, row.residual_scale, **factory) for _ in range(row.blocks))
        self.body = _Trunk(*blocks, nn.Conv2d(row.channels, row.channels, **options))
        self.feature_chain = tuple(Feature(name, row.channels, 1, (name,)) for name in ("head", "body"))
        self.tail = nn.Sequential(
            SubPixelUpsampler(row.channels, row.scale, **factory),
            nn.Conv2d(row.channels, row.in_channels, **options),
        )
        mean = torch.tensor(row.mean, **factory)[:, None, None]
        self.register_buffer("mean", mean, persistent=False)
        self.mean: Tensor

    def forward_stages(self, input: Tensor, names: Any) -> dict[str, Tensor]:
        return super().forward_stages((input - self.mean) * self.row.pixel_range, names)

    def forward_head(self, features: Tensor) -> Tensor:
        return self.tail(features) / self.row.pixel_range + self.mean

    def init_weights(self, module: nn.Module) -> None:
        """PyTorch's own, as the authors' code."""
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                layer.reset_parameters()


_PAPER = "Lim et al., CVPRW 2017, table 1"
_LARGE: dict[str, Any] = {"blocks": 32, "channels": 256, "residual_scale": 0.1}

ROWS = {
    **{f"edsr_baseline_x{n}": EDSRRow(scale=n, source=f"{_PAPER}, the baseline, for {n} times") for n in (2, 3, 4)},
    **{f"edsr_x{n}": EDSRRow(scale=n, **_LARGE, source=f"{_PAPER}, for {n} times") for n in (2, 3, 4)},
}

register(ROWS, EDSR)
