"""ShuffleNet: Zhang et al., ShuffleNet: An Extremely Efficient Convolutional Neural Network, CVPR 2018, table 1.

With squeeze-and-excitation: Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, table 3.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.models._net import Feature, Row
from fastcnn.models._pooled import PooledNet
from fastcnn.models._registry import register
from fastcnn.nn.blocks import ConvSequence, ModuleFactory, SqueezeExcite, conv2d
from fastcnn.nn.init import init_weights
from fastcnn.nn.layers import ChannelShuffle, GroupedConv2dShuffle


@dataclass(frozen=True, kw_only=True)
class ShuffleNetV1Row(Row):
    """A column of table 1, at a scale.

    Attributes:
        groups: of the 1x1 convolutions, but for the very first, which has one, and of the shuffle between them.
        channels: of stage 2; every stage after it has twice as many.
        stem_channels: of the first convolution.
        units: per stage, the one of stride 2 that begins it included.
        se_reduction: channels over the hidden channels of a squeeze-excite in every unit of stride 1; None for none.
        dropout: before the classifier.
    """

    groups: int
    channels: int
    stem_channels: int = 24
    units: tuple[int, ...] = (4, 8, 4)
    se_reduction: int | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.groups < 1:
            raise ValueError(f"groups must be at least 1, got {self.groups}")
        if self.stem_channels >= self.channels or self.channels % self.groups or self.stem_channels % self.groups:
            raise ValueError(
                f"channels {self.channels} must be more than stem_channels {self.stem_channels}, and groups "
                f"{self.groups} must divide both"
            )
        if not self.units or not all(isinstance(n, int) and n > 0 for n in self.units):
            raise ValueError(f"units must be positive ints, got {self.units!r}")
        if self.se_reduction is not None and self.se_reduction < 1:
            raise ValueError(f"se_reduction must be at least 1 or None, got {self.se_reduction}")


class ShuffleUnit(nn.Module):
    """Grouped 1x1 convolution, channel shuffle, depthwise 3x3, grouped 1x1, and a shortcut: figure 2 b and c.

    (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)). With stride 1 channels stay and the
    input is added; with stride 2 its average over 3x3 pixels is put before what the convolutions give.

    The shuffle stands behind norm and ReLU; ``fuse()`` makes one op of all four. A quarter of ``out_channels`` lies
    between the 1x1 convolutions, rounded up to a multiple of ``groups``.

    Args:
        groups: of the 1x1 convolutions and the shuffle.
        first_groups: of the first 1x1 convolution, where other.
        squeeze_excite: called as ``squeeze_excite(out_channels, device=, dtype=)``, scales what is added; None leaves
            it out.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int,
        stride: int = 1,
        *,
        first_groups: int | None = None,
        squeeze_excite: ModuleFactory | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        width = -(-out_channels // (4 * groups)) * groups
        branch_channels = out_channels - in_channels if stride == 2 else out_channels
        first_groups = groups if first_groups is None else first_groups
        layers: dict[str, nn.Module] = {}
        if groups == 1:
            layers["conv1"] = conv2d(in_channels, width, 1, bias=False, **factory)
        else:
            options: dict[str, Any] = {"groups": first_groups, "shuffle_groups": 1, "bias": False}
            layers["conv1"] = GroupedConv2dShuffle(in_channels, width, 1, **options, **factory)
        layers["bn1"] = nn.BatchNorm2d(width, **factory)
        layers["relu"] = nn.ReLU(inplace=True)
        if groups > 1:
            layers["shuffle"] = ChannelShuffle(groups)
        layers["conv2"] = conv2d(width, width, 3, stride, padding=1, groups=width, bias=False, **factory)
        layers["bn2"] = nn.BatchNorm2d(width, **factory)
        layers["conv3"] = conv2d(width, branch_channels, 1, groups=groups, bias=False, **factory)
        layers["bn3"] = nn.BatchNorm2d(branch_channels, **factory)
        if squeeze_excite is not None:
            layers["se"] = squeeze_excite(branch_channels, **factory)
        self.branch = ConvSequence(OrderedDict(layers))
        self.shortcut = nn.AvgPool2d(3, 2, padding=1) if stride == 2 else None
        self.relu = nn.ReLU(inplace=True)

    def forward(self, input: Tensor) -> Tensor:
        if self.shortcut is None:
            return self.relu(self.branch(input, input))
        return self.relu(torch.cat([self.shortcut(input), self.branch(input)], 1))


class ShuffleNetV1(PooledNet):
    """Features: ``stem`` (before the max pool), ``stage2`` (stride 8), ``stage3``, ``stage4``."""

    conv_chains = (("conv1", "bn1", "relu"),)

    def __init__(self, row: ShuffleNetV1Row, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}

        def squeeze_excite(channels: int, **factory: Any) -> SqueezeExcite:
            assert row.se_reduction is not None
            return SqueezeExcite(channels, max(1, channels // row.se_reduction), **factory)

        channels = row.stem_channels
        self.conv1 = nn.Conv2d(row.in_channels, channels, 3, 2, padding=1, bias=False, **factory)
        self.bn1 = nn.BatchNorm2d(channels, **factory)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        chain = [Feature("stem", channels, 2, ("conv1", "bn1", "relu"))]
        for index, units in enumerate(row.units):
            out = row.channels * 2**index
            first_groups = 1 if index == 0 else row.groups
            stage = nn.Sequential(ShuffleUnit(channels, out, row.groups, 2, first_groups=first_groups, **factory))
            for _ in range(units - 1):
                gate = None if row.se_reduction is None else squeeze_excite
                stage.append(ShuffleUnit(out, out, row.groups, squeeze_excite=gate, **factory))
            name = f"stage{index + 2}"
            self.add_module(name, stage)
            chain.append(Feature(name, out, 8 * 2**index, ("maxpool", name) if index == 0 else (name,)))
            channels = out
        self.feature_chain = tuple(chain)
        self.add_head(channels, row.dropout, **factory)
        self.init_weights(self)

    def init_weights(self, module: nn.Module) -> None:
        # The paper does not say.
        init_weights(module, linear_std=0.01, per_group=True)


_PAPER = "Zhang et al., CVPR 2018, table 1"
_SE = "Hu et al., CVPR 2018, table 3: squeeze-excite in the units of stride 1"

ROWS = {
    "shufflenet_v1_x0_5_g4": ShuffleNetV1Row(groups=4, channels=136, stem_channels=12, source=f"{_PAPER}, g = 4; 0.5x"),
    "shufflenet_v1_x0_5_shallow_g3": ShuffleNetV1Row(
        groups=3,
        channels=168,
        stem_channels=18,
        units=(2, 4, 2),
        source="Zhang et al., CVPR 2018, table 5: half the units; its width is not published, this one costs 40 MFLOPs",
    ),
    "shufflenet_v1_g1": ShuffleNetV1Row(groups=1, channels=144, source=f"{_PAPER}, g = 1"),
    "shufflenet_v1_g2": ShuffleNetV1Row(groups=2, channels=200, source=f"{_PAPER}, g = 2"),
    "shufflenet_v1_g3": ShuffleNetV1Row(groups=3, channels=240, source=f"{_PAPER}, g = 3"),
    "shufflenet_v1_g4": ShuffleNetV1Row(groups=4, channels=272, source=f"{_PAPER}, g = 4"),
    "shufflenet_v1_g8": ShuffleNetV1Row(groups=8, channels=384, source=f"{_PAPER}, g = 8"),
    "shufflenet_v1_x1_5_g3": ShuffleNetV1Row(groups=3, channels=360, source=f"{_PAPER}, g = 3; 1.5x"),
    "shufflenet_v1_x2_0_g3": ShuffleNetV1Row(
        groups=3, channels=480, stem_channels=48, source=f"{_PAPER}, g = 3; 2x, the first convolution too"
    ),
    "se_shufflenet_v1_g3": ShuffleNetV1Row(groups=3, channels=240, se_reduction=16, source=f"{_SE}, g = 3"),
    "se_shufflenet_v1_x2_0_g3": ShuffleNetV1Row(
        groups=3, channels=480, stem_channels=48, se_reduction=16, source=f"{_SE}, g = 3; 2x"
    ),
}

register(ROWS, ShuffleNetV1)
