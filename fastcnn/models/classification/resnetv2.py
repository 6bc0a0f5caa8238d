"""Pre-activation ResNet: He et al., Identity Mappings in Deep Residual Networks, ECCV 2016, figure 4e and appendix."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.models._net import ConvNet, Feature, Row
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register
from fastcnn.nn.init import init_weights


@dataclass(frozen=True, kw_only=True)
class ResNetV2Row(Row):
    """A depth.

    Attributes:
        layers: blocks per stage.
        bottleneck: blocks of 1x1, 3x3 and 1x1 convolutions, four times as wide outside; else of two 3x3.
        stride_in_1x1: downsample in a bottleneck's first 1x1 convolution, not in its 3x3.
        stem_norm: activate right after the first convolution, before the max pool, as the appendix says; else after
            the pool, in the first block, as timm does.
        dropout: before the classifier.
    """

    layers: tuple[int, ...]
    bottleneck: bool = True
    stride_in_1x1: bool = False
    stem_norm: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.layers) != 4 or not all(isinstance(n, int) and n > 0 for n in self.layers):
            raise ValueError(f"layers must be four positive ints, got {self.layers!r}")
        if self.stride_in_1x1 and not self.bottleneck:
            raise ValueError("stride_in_1x1=True needs bottleneck=True, got bottleneck=False")


class _PreActBlock(nn.Module):
    """What both blocks have: a norm and a ReLU before each convolution, nothing after the sum; timm's keys.

    (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)). Where the shape changes, the
    shortcut is a projection of the activated input.

    Args:
        activated: the input is activated already, so there is no ``norm1``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, *, activated: bool = False, **factory: Any
    ) -> None:
        super().__init__()
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False, **factory)
            self.downsample = nn.Sequential(OrderedDict(conv=projection))
        self.norm1 = None if activated else nn.BatchNorm2d(in_channels, **factory)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, input: Tensor) -> Tensor:
        out = input if self.norm1 is None else self.relu(self.norm1(input))
        shortcut = input if self.downsample is None else self.downsample(out)
        return self.residual(out) + shortcut

    def residual(self, activated: Tensor) -> Tensor:
        raise NotImplementedError


class PreActBasic(_PreActBlock):
    """Two 3x3 convolutions: see :class:`_PreActBlock`."""

    conv_chains = (("conv1", "norm2"),)  # The first norm follows a sum, so it stays.

    def __init__(
        self, in_channels: int, planes: int, stride: int, *, activated: bool, stride_in_1x1: bool, **factory: Any
    ) -> None:
        super().__init__(in_channels, planes, stride, activated=activated, **factory)
        self.conv1 = nn.Conv2d(in_channels, planes, 3, stride, padding=1, bias=False, **factory)
        self.norm2 = nn.BatchNorm2d(planes, **factory)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False, **factory)

    def residual(self, activated: Tensor) -> Tensor:
        return self.conv2(self.relu(self.norm2(self.conv1(activated))))


class PreActBottleneck(_PreActBlock):
    """1x1, 3x3 and 1x1 convolutions, from and to ``4 * planes`` channels: see :class:`_PreActBlock`."""

    conv_chains = (("conv1", "norm2"), ("conv2", "norm3"))

    def __init__(
        self, in_channels: int, planes: int, stride: int, *, activated: bool, stride_in_1x1: bool, **factory: Any
    ) -> None:
        super().__init__(in_channels, 4 * planes, stride, activated=activated, **factory)
        stride1, stride2 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, planes, 1, stride1, bias=False, **factory)
        self.norm2 = nn.BatchNorm2d(planes, **factory)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride2, padding=1, bias=False, **factory)
        self.norm3 = nn.BatchNorm2d(planes, **factory)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False, **factory)

    def residual(self, activated: Tensor) -> Tensor:
        out = self.relu(self.norm2(self.conv1(activated)))
        return self.conv3(self.relu(self.norm3(self.conv2(out))))


class _Stem(nn.Sequential):
    """7x7 convolution, perhaps norm and ReLU, max pool."""

    def __init__(self, in_channels: int, channels: int, norm: bool, **factory: Any) -> None:
        conv = nn.Conv2d(in_channels, channels, 7, 2, padding=3, bias=False, **factory)
        layers: OrderedDict[str, nn.Module] = OrderedDict(conv=conv)
        if norm:
            layers.update(norm=nn.BatchNorm2d(channels, **factory), act=nn.ReLU(inplace=True))
        self.conv_chains = (("conv", "norm"),) if norm else ()
        super().__init__(OrderedDict(**layers, pool=nn.MaxPool2d(3, 2, padding=1)))


class ResNetV2(ConvNet):
    """Keys are timm's. Features: ``stem`` (before the max pool), ``stages.0`` ... ``stages.3`` (sums, which no norm or
    ReLU has seen) and ``norm`` (the last sum, activated)."""

    head_names = ("head",)
    classifier_path = "head.fc"

    def __init__(self, row: ResNetV2Row, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        channels = 64
        block_type, expansion = (PreActBottleneck, 4) if row.bottleneck else (PreActBasic, 1)
        self.stem = _Stem(row.in_channels, channels, row.stem_norm, **factory)
        stem = tuple(f"stem.{name}" for name, _ in self.stem.named_children() if name != "pool")
        chain = [Feature("stem", channels, 2, stem)]
        self.stages = nn.Sequential()
        for index, blocks in enumerate(row.layers):
            planes = 64 * 2**index
            stage = nn.Sequential()
            for block in range(blocks):
                stage.append(
                    block_type(
                        channels,
                        planes,
                        stride=2 if index > 0 and block == 0 else 1,
                        activated=row.stem_norm and index == block == 0,
                        stride_in_1x1=row.stride_in_1x1,
                        **factory,
                    )
                )
                channels = planes * expansion
            self.stages.append(nn.Sequential(OrderedDict(blocks=stage)))
            name = f"stages.{index}"
            chain.append(Feature(name, channels, 4 * 2**index, ("stem.pool", name) if index == 0 else (name,)))
        self.norm = nn.BatchNorm2d(channels, **factory)
        self.relu = nn.ReLU(inplace=True)
        chain.append(Feature("norm", channels, 32, ("norm", "relu")))
        self.feature_chain = tuple(chain)
        self.head = nn.Sequential(
            OrderedDict(
                pool=nn.AdaptiveAvgPool2d(1),
                drop=nn.Dropout(row.dropout),
                fc=nn.Conv2d(channels, row.num_classes, 1, **factory),
                flatten=nn.Flatten(1),
            )
        )
        self.init_weights(self)

    def forward_head(self, features: Tensor) -> Tensor:
        return self.head(features)

    def init_weights(self, module: nn.Module) -> None:
        init_weights(module)
        for conv in module.modules():
            if isinstance(conv, nn.Conv2d) and conv.bias is not None:  # Only the classifier has one.
                nn.init.normal_(conv.weight, std=0.01)


def _preprocess(crop_pct: float) -> Preprocess:
    return Preprocess(crop_pct=crop_pct, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)


_BASIC = "He et al., ECCV 2016, figure 4e, of two 3x3 convolutions, as timm"
_BOTTLENECK = "He et al., ECCV 2016, figure 4e; stride in the 3x3, as timm"

ROWS = {
    "resnetv2_18": ResNetV2Row(layers=(2, 2, 2, 2), bottleneck=False, preprocess=_preprocess(0.9), source=_BASIC),
    "resnetv2_34": ResNetV2Row(layers=(3, 4, 6, 3), bottleneck=False, preprocess=_preprocess(0.9), source=_BASIC),
    "resnetv2_50": ResNetV2Row(layers=(3, 4, 6, 3), preprocess=_preprocess(0.95), source=_BOTTLENECK),
    "resnetv2_101": ResNetV2Row(layers=(3, 4, 23, 3), preprocess=_preprocess(0.95), source=_BOTTLENECK),
    "resnetv2_152": ResNetV2Row(layers=(3, 8, 36, 3), preprocess=_preprocess(0.875), source=_BOTTLENECK),
    "resnetv2_200": ResNetV2Row(
        layers=(3, 24, 36, 3), stem_norm=True, source="He et al., ECCV 2016, section 4 and appendix; stride in the 3x3"
    ),
}

register(ROWS, ResNetV2)
