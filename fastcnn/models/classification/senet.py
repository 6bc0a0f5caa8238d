"""The networks released with Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, with timm's "legacy" keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

from torch import Tensor, nn

from fastcnn.models._net import Feature
from fastcnn.models._preprocess import BICUBIC
from fastcnn.models._registry import register
from fastcnn.models.classification.resnet import ResNet, ResNetRow
from fastcnn.nn.norms import add_act
from fastcnn.nn.residual import BasicBlock, ResidualBlock


@dataclass(frozen=True, kw_only=True)
class SENetRow(ResNetRow):
    """A ResNet or ResNeXt with squeeze-excite on every branch, and what SENet-154 changes besides.

    Attributes:
        deep_stem: three 3x3 convolutions for the first 7x7, the last with 128 channels.
        halve_1x1: half the channels in each block's first 1x1 convolution.
        projection_kernel: size of the projections that have a stride.
    """

    squeeze_excite: int | None = 16
    deep_stem: bool = False
    halve_1x1: bool = False
    projection_kernel: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.halve_1x1 and self.block != "bottleneck":
            raise ValueError(f"halve_1x1 needs block='bottleneck', got {self.block!r}")
        if self.projection_kernel not in (1, 3):
            raise ValueError(f"projection_kernel must be 1 or 3, got {self.projection_kernel}")

    def block_options(self) -> dict[str, Any]:
        options = super().block_options() | {"projection_kernel": self.projection_kernel}
        options["squeeze_excite_name"] = "se_module"
        return options | {"halve_1x1": True} if self.halve_1x1 else options


class _Stem(nn.Sequential):
    """Children ``conv1``, ``bn1``, ``relu1``, ``conv2``, ...; the first convolution has stride 2."""

    def __init__(self, channels: tuple[int, ...], kernel_size: int, **factory: Any) -> None:
        super().__init__()
        pairs = []
        for index, (before, after) in enumerate(pairwise(channels), 1):
            stride = 2 if index == 1 else 1
            conv = nn.Conv2d(before, after, kernel_size, stride, padding=kernel_size // 2, bias=False, **factory)
            self.add_module(f"conv{index}", conv)
            self.add_module(f"bn{index}", nn.BatchNorm2d(after, **factory))
            self.add_module(f"relu{index}", nn.ReLU(inplace=True))
            pairs.append((f"conv{index}", f"bn{index}", f"relu{index}"))
        self.conv_chains = tuple(pairs)


class ReluBasicBlock(BasicBlock):
    """A basic block with a ReLU before its squeeze-excite too, as the weights that timm publishes were trained with."""

    def branch(self, input: Tensor, act: nn.Module | None = None, residual: Tensor | None = None) -> Tensor:
        return add_act(super().branch(input, self.relu), act, residual)


class SENet(ResNet):
    """Keys are timm's. Features: ``layer0`` (before the max pool), ``layer1`` ... ``layer4``.

    The max pool rounds up and has no padding, as the released Caffe networks have it.
    """

    blocks: ClassVar[Mapping[str, type[ResidualBlock]]] = {**ResNet.blocks, "basic": ReluBasicBlock}

    head_names = ("avgpool", "dropout", "last_linear")
    classifier_path = "last_linear"
    conv_chains = ()
    pool = "pool0"

    def add_stem(self, row: Any, **factory: Any) -> Feature:
        channels, kernel_size = ((64, 64, 128), 3) if row.deep_stem else ((64,), 7)
        self.layer0 = _Stem((row.in_channels, *channels), kernel_size, **factory)
        self.pool0 = nn.MaxPool2d(3, 2, ceil_mode=True)
        return Feature("layer0", channels[-1], 2, ("layer0",))


_18, _34, _101, _152 = (2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)
_RESNET = "Hu et al., CVPR 2018, on ResNet-{} with its stride in the first 1x1"
_NOT_IN_PAPER = ", which timm has and the paper has not"
_BASIC = "Hu et al., CVPR 2018, on ResNet-{}" + _NOT_IN_PAPER
_RESNEXT = "Hu et al., CVPR 2018, on ResNeXt-{} (32x4d)"
_resnext = partial(SENetRow, groups=32, width_per_group=4)

ROWS = {
    "legacy_seresnext26_32x4d": _resnext(layers=_18, preprocess=BICUBIC, source=_RESNEXT.format(26) + _NOT_IN_PAPER),
    "legacy_seresnext50_32x4d": _resnext(layers=_34, source=_RESNEXT.format(50)),
    "legacy_seresnext101_32x4d": _resnext(layers=_101, source=_RESNEXT.format(101)),
    "legacy_seresnet18": SENetRow(layers=_18, block="basic", preprocess=BICUBIC, source=_BASIC.format(18)),
    "legacy_seresnet34": SENetRow(layers=_34, block="basic", source=_BASIC.format(34)),
    "legacy_seresnet50": SENetRow(layers=_34, stride_in_1x1=True, source=_RESNET.format(50)),
    "legacy_seresnet101": SENetRow(layers=_101, stride_in_1x1=True, source=_RESNET.format(101)),
    "legacy_seresnet152": SENetRow(layers=_152, stride_in_1x1=True, source=_RESNET.format(152)),
    "legacy_senet154": SENetRow(
        layers=_152,
        groups=64,
        width_per_group=4,
        deep_stem=True,
        halve_1x1=True,
        projection_kernel=3,
        dropout=0.2,
        source="Hu et al., Squeeze-and-Excitation Networks, TPAMI 2019, appendix: SENet-154",
    ),
}

register(ROWS, SENet)
