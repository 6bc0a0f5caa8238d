"""Feature pyramids: Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcnn.nn.blocks import ConvNormAct

# Of files that are older than the blocks' norms, and what they are called today.
PYRAMID_KEYS = (r"^(backbone\.fpn\.\w+_blocks\.\d)\.(weight|bias)$", r"\1.0.\2")


class Subsample(nn.Module):
    """P6 for anchors of the largest size, every other pixel of P5: section 4.1, footnote 2. Has no parameters."""

    names = ("pool",)

    def forward(self, finest_to_coarsest: list[Tensor], last_input: Tensor) -> list[Tensor]:
        return [F.max_pool2d(finest_to_coarsest[-1], 1, 2)]


class LastLevelP6(nn.Module):
    """P6 by a 3x3 convolution of stride 2 of the last map: Deng et al., RetinaFace, CVPR 2020, section 3.2."""

    names = ("p6",)

    def __init__(self, in_channels: int, out_channels: int, **factory: Any) -> None:
        super().__init__()
        self.p6 = nn.Conv2d(in_channels, out_channels, 3, 2, 1, **factory)
        init_pyramid(self)

    def forward(self, finest_to_coarsest: list[Tensor], last_input: Tensor) -> list[Tensor]:
        return [self.p6(last_input)]


class LastLevelP6P7(nn.Module):
    """P6 by a 3x3 convolution of stride 2, P7 by another on P6's ReLU: Lin et al., RetinaNet, ICCV 2017, section 4,
    footnote 2. Keys ``p6`` and ``p7`` are torchvision's.

    Args:
        in_channels: of C5, which P6 is made from as in the paper; None makes it from P5, as torchvision does.
        out_channels: of the pyramid.
    """

    names = ("p6", "p7")

    def __init__(self, in_channels: int | None, out_channels: int, **factory: Any) -> None:
        super().__init__()
        self.from_input = in_channels is not None
        self.p6 = nn.Conv2d(in_channels or out_channels, out_channels, 3, 2, 1, **factory)
        self.p7 = nn.Conv2d(out_channels, out_channels, 3, 2, 1, **factory)
        init_pyramid(self)

    def forward(self, finest_to_coarsest: list[Tensor], last_input: Tensor) -> list[Tensor]:
        p6 = self.p6(last_input if self.from_input else finest_to_coarsest[-1])
        return [p6, self.p7(F.relu(p6))]


class FeaturePyramid(nn.Module):
    """1x1 convolutions of every map, the doubled one above it added, then 3x3 convolutions: section 3, figure 3.

    ``forward(maps)``: from the finest to the coarsest, (N, Ci, Hi, Wi), to ``{"0": (N, out_channels, H0, W0), ...}``
    and the levels that ``extra`` adds, under its names. Keys are torchvision's FeaturePyramidNetwork's.

    Args:
        in_channels: of each map.
        extra: makes coarser levels from the list of levels and the last map.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 256,
        extra: nn.Module | None = None,
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        plain: dict[str, Any] = {"norm": None, "act": None, "device": device, "dtype": dtype}
        self.inner_blocks = nn.ModuleList(ConvNormAct(channels, out_channels, 1, **plain) for channels in in_channels)
        self.layer_blocks = nn.ModuleList(ConvNormAct(out_channels, out_channels, 3, **plain) for _ in in_channels)
        self.out_channels = out_channels
        init_pyramid(self)
        self.extra_blocks = extra

    @property
    def levels(self) -> int:
        """How many maps it makes."""
        return len(self.inner_blocks) + (len(self.extra_blocks.names) if self.extra_blocks is not None else 0)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        inner: list[Tensor] = []
        for block, map_ in zip(reversed(self.inner_blocks), reversed(maps), strict=True):  # type: ignore[call-overload]
            above = F.interpolate(inner[-1], map_.shape[2:], mode="nearest") if inner else None
            inner.append(block(map_, above))
        levels = [block(each) for block, each in zip(self.layer_blocks, reversed(inner), strict=True)]
        result = {str(index): level for index, level in enumerate(levels)}
        if self.extra_blocks is not None:
            result |= zip(self.extra_blocks.names, self.extra_blocks(levels, maps[-1]), strict=True)  # type: ignore[arg-type]
        return result


def init_pyramid(module: nn.Module) -> None:
    """Uniform weights of variance ``1 / fan_in``, and no biases, as torchvision and the authors' code have it."""
    for each in module.modules():
        if isinstance(each, nn.Conv2d):
            nn.init.kaiming_uniform_(each.weight, a=1)
            if each.bias is not None:
                nn.init.zeros_(each.bias)
