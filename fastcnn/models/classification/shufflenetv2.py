"""ShuffleNetV2: Ma et al., ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design, ECCV 2018."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.models._net import Feature, Row
from fastcnn.models._pooled import PooledNet
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register
from fastcnn.nn.blocks import ConvNormAct, ConvSequence, conv2d
from fastcnn.nn.fused import shuffled_pair
from fastcnn.nn.layers import ChannelShuffle


@dataclass(frozen=True, kw_only=True)
class ShuffleNetV2Row(Row):
    """A column of table 5.

    Attributes:
        channels: of stage 2; every stage after it has twice as many.
        last_channels: of the last convolution.
        stem_channels: of the first.
        units: per stage, the one of stride 2 that begins it included.
        dropout: before the classifier.
    """

    channels: int
    last_channels: int = 1024
    stem_channels: int = 24
    units: tuple[int, ...] = (4, 8, 4)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels < 2 or self.channels % 2:
            raise ValueError(f"channels must be even and positive, got {self.channels}")
        if not self.units or not all(isinstance(n, int) and n > 0 for n in self.units):
            raise ValueError(f"units must be positive ints, got {self.units!r}")


def _separable(channels: int, out: int, stride: int, **factory: Any) -> list[nn.Module]:
    """Depthwise 3x3 and 1x1 convolution, ReLU only behind the latter."""
    return [
        conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False, **factory),
        nn.BatchNorm2d(channels, **factory),
        conv2d(channels, out, 1, bias=False, **factory),
        nn.BatchNorm2d(out, **factory),
        nn.ReLU(inplace=True),
    ]


class ShuffleUnitV2(nn.Module):
    """Two branches of half the channels, shuffled: figure 3 c and d. Keys are torchvision's.

    (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)). With stride 1 channels stay, and
    the first half of them passes unchanged; with stride 2 both branches see every channel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        half = out_channels // 2
        seen = half if stride == 1 else in_channels
        self.branch1 = None if stride == 1 else ConvSequence(*_separable(in_channels, half, stride, **factory))
        self.branch2 = ConvSequence(
            conv2d(seen, half, 1, bias=False, **factory),
            nn.BatchNorm2d(half, **factory),
            nn.ReLU(inplace=True),
            *_separable(half, half, stride, **factory),
        )
        self.shuffle = ChannelShuffle(2)

    def forward(self, input: Tensor) -> Tensor:
        first, second = input.chunk(2, 1) if self.branch1 is None else (self.branch1(input), input)
        return shuffled_pair(first, self.branch2(second), self.shuffle)


class ShuffleNetV2(PooledNet):
    """Keys are torchvision's. Features: ``conv1`` (before the max pool), ``stage2`` ... ``stage4``, ``conv5``."""

    def __init__(self, row: ShuffleNetV2Row, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        channels = row.stem_channels
        self.conv1 = ConvNormAct(row.in_channels, channels, 3, 2, **factory)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        chain = [Feature("conv1", channels, 2, ("conv1",))]
        for index, units in enumerate(row.units):
            out = row.channels * 2**index
            stage = nn.Sequential(ShuffleUnitV2(channels, out, 2, **factory))
            for _ in range(units - 1):
                stage.append(ShuffleUnitV2(out, out, **factory))
            name = f"stage{index + 2}"
            self.add_module(name, stage)
            chain.append(Feature(name, out, 8 * 2**index, ("maxpool", name) if index == 0 else (name,)))
            channels = out
        self.conv5 = ConvNormAct(channels, row.last_channels, 1, **factory)
        chain.append(Feature("conv5", row.last_channels, chain[-1].stride, ("conv5",)))
        self.feature_chain = tuple(chain)
        self.add_head(row.last_channels, row.dropout, **factory)
        self.init_weights(self)

    def init_weights(self, module: nn.Module) -> None:
        """PyTorch's defaults, which every layer has from the start, as torchvision does; the paper does not say."""


_PAPER = "Ma et al., ECCV 2018, table 5"
_NEW = Preprocess(crop_pct=224 / 232)

ROWS = {
    "shufflenet_v2_x0_5": ShuffleNetV2Row(channels=48, source=f"{_PAPER}, 0.5x"),
    "shufflenet_v2_x1_0": ShuffleNetV2Row(channels=116, source=f"{_PAPER}, 1x"),
    "shufflenet_v2_x1_5": ShuffleNetV2Row(channels=176, source=f"{_PAPER}, 1.5x", preprocess=_NEW),
    "shufflenet_v2_x2_0": ShuffleNetV2Row(channels=244, last_channels=2048, source=f"{_PAPER}, 2x", preprocess=_NEW),
}

register(ROWS, ShuffleNetV2)
