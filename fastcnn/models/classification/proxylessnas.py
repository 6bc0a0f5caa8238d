"""ProxylessNAS: Cai et al., ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware, ICLR 2019."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastcnn.models._net import ConvNet, Feature, Row
from fastcnn.models._registry import register
from fastcnn.nn.blocks import ConvNormAct, ConvSequence, ModuleFactory
from fastcnn.nn.init import init_weights
from fastcnn.nn.layers import ReLU6


class Found(NamedTuple):
    """A block of figure 4: expansion, kernel size, output channels, stride. ``SKIPPED``: the search left it out."""

    expansion: int
    kernel_size: int
    out: int
    stride: int = 1


SKIPPED = None

_MOBILE = (
    Found(1, 3, 16),
    Found(3, 5, 32, 2),
    Found(3, 3, 32),
    SKIPPED,
    SKIPPED,
    Found(3, 7, 40, 2),
    Found(3, 3, 40),
    Found(3, 5, 40),
    Found(3, 5, 40),
    Found(6, 7, 80, 2),
    Found(3, 5, 80),
    Found(3, 5, 80),
    Found(3, 5, 80),
    Found(6, 5, 96),
    Found(3, 5, 96),
    Found(3, 5, 96),
    Found(3, 5, 96),
    Found(6, 7, 192, 2),
    Found(6, 7, 192),
    Found(3, 7, 192),
    Found(3, 7, 192),
    Found(6, 7, 320),
)


@dataclass(frozen=True, kw_only=True)
class ProxylessNASRow(Row):
    """What a search found.

    Attributes:
        blocks: between the first convolution and the last; those left out keep their number in the keys.
        stem, head: channels of the first and the last convolution.
        dropout: before the classifier.
    """

    blocks: tuple[Found | None, ...]
    stem: int = 32
    head: int = 1280
    dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.dropout <= 1:
            raise ValueError(f"dropout must be between 0 and 1, got {self.dropout}")


class NamedConvNormAct(ConvNormAct):
    names = ("conv", "bn", "relu")


class SearchedBlock(nn.Module):
    """Inverted residual with ReLU6 and without activation at its end; no 1x1 expansion where ``expansion`` is 1.

    (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)); adds the input where the shape is
    kept. Keys are those of the authors' PyTorch code.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        expansion: int,
        kernel_size: int,
        stride: int,
        *,
        norm: ModuleFactory = nn.BatchNorm2d,
        **factory: Any,
    ) -> None:
        super().__init__()
        options: dict[str, Any] = {"norm": norm, "act": ReLU6, **factory}
        width = in_channels * expansion
        layers: dict[str, nn.Module] = {}
        if expansion != 1:
            layers["inverted_bottleneck"] = NamedConvNormAct(in_channels, width, 1, **options)
        layers["depth_conv"] = NamedConvNormAct(width, width, kernel_size, stride, groups=width, **options)
        layers["point_linear"] = NamedConvNormAct(width, out_channels, 1, **(options | {"act": None}))
        self.mobile_inverted_conv = ConvSequence(OrderedDict(layers))
        self.use_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, input: Tensor) -> Tensor:
        return self.mobile_inverted_conv(input, input if self.use_shortcut else None)


class ProxylessNAS(ConvNet):
    """Keys are those of the authors' PyTorch code.

    Features: ``first_conv``, ``blocks.0`` ..., one per block that was kept, and ``feature_mix_layer``.
    """

    head_names = ("avgpool", "dropout", "classifier")
    classifier_path = "classifier.linear"

    def __init__(self, row: ProxylessNASRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        options: dict[str, Any] = {"norm": partial(nn.BatchNorm2d, eps=1e-3), **factory}
        channels, stride = row.stem, 2
        self.first_conv = NamedConvNormAct(row.in_channels, channels, 3, 2, act=ReLU6, **options)
        chain = [Feature("first_conv", channels, stride, ("first_conv",))]
        self.blocks = nn.Sequential()
        for index, found in enumerate(row.blocks):
            if found is None:
                self.blocks.append(nn.Identity())
                continue
            block = SearchedBlock(channels, found.out, found.expansion, found.kernel_size, found.stride, **options)
            self.blocks.append(block)
            channels, stride = found.out, stride * found.stride
            chain.append(Feature(f"blocks.{index}", channels, stride, (f"blocks.{index}",)))
        self.feature_mix_layer = NamedConvNormAct(channels, row.head, 1, act=ReLU6, **options)
        chain.append(Feature("feature_mix_layer", row.head, stride, ("feature_mix_layer",)))
        self.feature_chain = tuple(chain)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(row.dropout)
        self.classifier = nn.Sequential(OrderedDict(linear=nn.Linear(row.head, row.num_classes, **factory)))
        self.init_weights(self)

    def forward_head(self, features: Tensor) -> Tensor:
        return self.classifier(self.dropout(self.avgpool(features).flatten(1)))

    def init_weights(self, module: nn.Module) -> None:
        init_weights(module)


ROWS = {
    "proxylessnas_mobile": ProxylessNASRow(
        blocks=_MOBILE, source="Cai et al., ICLR 2019, figure 4: the network found for a phone, as in the authors' code"
    ),
}

register(ROWS, ProxylessNAS)
