"""DenseNet-BC: Huang et al., Densely Connected Convolutional Networks, CVPR 2017, table 1."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fastcnn.models._net import ConvNet, Feature, Row
from fastcnn.models._registry import register
from fastcnn.nn.blocks import conv2d


@dataclass(frozen=True, kw_only=True)
class DenseNetRow(Row):
    """A column of table 1.

    Attributes:
        layers: dense layers per block.
        growth_rate: channels that a layer adds, k.
        stem_channels: of the first convolution, 2k.
        bottleneck: width of a layer's 1x1 convolution, in growth rates.
        compression: channels that a transition keeps of those before it, theta.
        dropout: of what a layer adds.
        memory_efficient: training computes the concatenations again in the backward pass instead of keeping them:
            Pleiss et al., Memory-Efficient Implementation of DenseNets, 2017. Results are the same.
    """

    layers: tuple[int, ...]
    growth_rate: int = 32
    stem_channels: int = 64
    bottleneck: int = 4
    compression: float = 0.5
    dropout: float = 0.0
    memory_efficient: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.layers or not all(isinstance(n, int) and n > 0 for n in self.layers):
            raise ValueError(f"layers must be positive ints, got {self.layers!r}")
        for field in ("growth_rate", "stem_channels", "bottleneck"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        if not 0 < self.compression <= 1:
            raise ValueError(f"compression must be above 0 and at most 1, got {self.compression}")


@contextmanager
def _frozen_statistics(norm: nn.BatchNorm2d) -> Iterator[None]:
    buffers = dict(norm.named_buffers())
    try:
        for name, value in buffers.items():
            setattr(norm, name, value.clone())
        yield
    finally:
        for name, value in buffers.items():
            setattr(norm, name, value)


def _concatenated(maps: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(maps), 1) if len(maps) > 1 else maps[0]


class DenseLayer(nn.Module):
    """Norm, ReLU, 1x1 and norm, ReLU, 3x3 of all maps before it: channels of the maps to ``growth_rate`` channels."""

    conv_chains = (("conv1", "norm2"),)  # The first norm has a concatenation before it, so it stays.

    def __init__(self, in_channels: int, row: DenseNetRow, **factory: Any) -> None:
        super().__init__()
        width = row.bottleneck * row.growth_rate
        self.norm1 = nn.BatchNorm2d(in_channels, **factory)
        self.relu = nn.ReLU(inplace=True)
        self.conv1 = conv2d(in_channels, width, 1, bias=False, **factory)
        self.norm2 = nn.BatchNorm2d(width, **factory)
        self.conv2 = nn.Conv2d(width, row.growth_rate, 3, padding=1, bias=False, **factory)
        self.dropout = row.dropout
        self.memory_efficient = row.memory_efficient

    def forward(self, maps: list[Tensor]) -> Tensor:
        if self.memory_efficient and torch.is_grad_enabled():
            # The second run must not count the batch in the running statistics again.
            def contexts() -> tuple[Any, Any]:
                return nullcontext(), _frozen_statistics(self.norm1)

            out = checkpoint(self._squeeze, *maps, use_reentrant=False, context_fn=contexts)
        else:
            out = self._squeeze(*maps)
        return F.dropout(self.conv2(self.relu(self.norm2(out))), self.dropout, self.training)

    def _squeeze(self, *maps: Tensor) -> Tensor:
        return self.conv1(self.relu(self.norm1(_concatenated(maps))))


class DenseBlock(nn.ModuleDict):
    """Layers that each see the block's input and every layer before: ``layers * growth_rate`` channels more."""

    def __init__(self, layers: int, in_channels: int, row: DenseNetRow, **factory: Any) -> None:
        super().__init__()
        self.memory_efficient = row.memory_efficient
        for index in range(layers):
            self[f"denselayer{index + 1}"] = DenseLayer(in_channels + index * row.growth_rate, row, **factory)

    def forward(self, input: Tensor) -> Tensor:
        maps = [input]
        for layer in self.values():
            maps = [*maps, layer(maps)]
            if not self.memory_efficient:
                # One tensor that every layer reads once; kept in parts, a checkpoint holds each part once.
                maps = [_concatenated(maps)]
        return _concatenated(maps)


class _Features(nn.Sequential):
    conv_chains = (("conv0", "norm0"),)


class DenseNet(ConvNet):
    """Keys are torchvision's. Features: ``stem`` (before the max pool), ``denseblock1``, ... and ``norm5`` (the last
    block's, after norm and ReLU)."""

    head_names = ("avgpool", "classifier")
    classifier_path = "classifier"
    # Published files are older than the ban on dots in the names of modules.
    old_keys = ((r"(denselayer\d+\.(?:norm|conv))\.(\d\.)", r"\1\2"),)

    def __init__(self, row: DenseNetRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        channels, stride = row.stem_channels, 4
        stem = OrderedDict[str, nn.Module](
            conv0=nn.Conv2d(row.in_channels, channels, 7, 2, padding=3, bias=False, **factory),
            norm0=nn.BatchNorm2d(channels, **factory),
            relu0=nn.ReLU(inplace=True),
            pool0=nn.MaxPool2d(3, 2, padding=1),
        )
        self.features = _Features(stem)
        chain = [Feature("stem", channels, 2, ("features.conv0", "features.norm0", "features.relu0"))]
        before = "features.pool0"
        for index, layers in enumerate(row.layers, 1):
            if index > 1:
                before = f"features.transition{index - 1}"
                kept = int(channels * row.compression)
                transition = OrderedDict[str, nn.Module](
                    norm=nn.BatchNorm2d(channels, **factory),
                    relu=nn.ReLU(inplace=True),
                    conv=conv2d(channels, kept, 1, bias=False, **factory),
                    pool=nn.AvgPool2d(2),
                )
                self.features.add_module(f"transition{index - 1}", nn.Sequential(transition))
                channels, stride = kept, 2 * stride
            self.features.add_module(f"denseblock{index}", DenseBlock(layers, channels, row, **factory))
            channels += layers * row.growth_rate
            chain.append(Feature(f"denseblock{index}", channels, stride, (before, f"features.denseblock{index}")))
        self.features.add_module("norm5", nn.BatchNorm2d(channels, **factory))
        self.relu = nn.ReLU(inplace=True)
        chain.append(Feature("norm5", channels, stride, ("features.norm5", "relu")))
        self.feature_chain = tuple(chain)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, row.num_classes, **factory)
        self.init_weights(self)

    def forward_head(self, features: Tensor) -> Tensor:
        return self.classifier(self.avgpool(features).flatten(1))

    def init_weights(self, module: nn.Module) -> None:
        """Convolutions: normal with variance ``2 / fan-in``; linear layers: PyTorch's, bias 0; as the authors' code."""
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
            elif isinstance(layer, nn.BatchNorm2d):
                nn.init.ones_(layer.weight)
                nn.init.zeros_(layer.bias)
            elif isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.bias)


_TABLE_1 = "Huang et al., CVPR 2017, table 1"

ROWS = {
    "densenet121": DenseNetRow(layers=(6, 12, 24, 16), source=_TABLE_1),
    "densenet161": DenseNetRow(
        layers=(6, 12, 36, 24), growth_rate=48, stem_channels=96, source="Huang et al., authors' code, as torchvision"
    ),
    "densenet169": DenseNetRow(layers=(6, 12, 32, 32), source=_TABLE_1),
    "densenet201": DenseNetRow(layers=(6, 12, 48, 32), source=_TABLE_1),
    "densenet264": DenseNetRow(layers=(6, 12, 64, 48), source=f"{_TABLE_1}; 265 layers by its own formula"),
}

register(ROWS, DenseNet)
