"""Networks that are a stack of convolutions and pools under fully connected layers, written as the papers' tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastcnn.models._net import ConvNet, Feature, Row
from fastcnn.nn.blocks import SqueezeExcite, conv2d, make_divisible
from fastcnn.nn.layers import LocalResponseNorm
from fastcnn.nn.pooling import SpatialPyramidPool2d


class Conv(NamedTuple):
    """A convolution and its activation; the default is VGG's. ``bias`` is the initial one."""

    out: int
    kernel_size: int = 3
    stride: int = 1
    padding: int = 1
    grouped: bool = False
    bias: float = 0.0


class Pool(NamedTuple):
    """A max pooling; the default is VGG's."""

    kernel_size: int = 2
    stride: int = 2
    ceil_mode: bool = False


class LRN(NamedTuple):
    """Local response normalisation; the default is Krizhevsky et al.'s, section 3.3, whose alpha is of the sum."""

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 2.0


Layer = Conv | Pool | LRN


@dataclass(frozen=True, kw_only=True)
class PlainRow(Row):
    """A stack and its head.

    Attributes:
        layers: of the stack, in order.
        pooled: what the head's pooling makes of any map: the side of a grid of averages, or the levels of a spatial
            pyramid of maxima.
        hidden: width of the two hidden fully connected layers.
        dropout: beside the hidden layers.
        dropout_first: before each hidden layer rather than after it.
        groups: of the convolutions that the table says are grouped; 1 leaves them whole.
        batch_norm: after every convolution.
        se_reduction: squeeze-and-excitation after every activation, with so many times fewer hidden channels.
        prelu: parametric ReLUs, a slope for each channel, rather than ReLUs.
        width_mult: factor on the channels of all convolutions, rounded to multiples of 8.
    """

    layers: tuple[Layer, ...]
    pooled: int | tuple[int, ...] = 7
    hidden: int = 4096
    dropout: float = 0.5
    dropout_first: bool = False
    groups: int = 1
    batch_norm: bool = False
    se_reduction: int | None = None
    prelu: bool = False
    width_mult: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.layers or not all(isinstance(layer, Conv | Pool | LRN) for layer in self.layers):
            raise ValueError(f"layers must be Conv, Pool or LRN, one or more, got {self.layers!r}")
        for field in ("hidden", "groups", "se_reduction"):
            value = getattr(self, field)
            if (not isinstance(value, int) or value < 1) and (field, value) != ("se_reduction", None):
                raise ValueError(f"{field} must be a positive int, got {value!r}")
        if self.width_mult <= 0:
            raise ValueError(f"width_mult must be positive, got {self.width_mult}")
        channels = self.in_channels
        for layer in self.scaled_layers:
            if isinstance(layer, Conv):
                if layer.grouped and (channels % self.groups or layer.out % self.groups):
                    raise ValueError(f"groups must divide {channels} and {layer.out} channels, got {self.groups}")
                channels = layer.out

    @property
    def scaled_layers(self) -> tuple[Layer, ...]:
        """``layers`` times ``width_mult``."""
        if self.width_mult == 1:
            return self.layers
        return tuple(
            layer._replace(out=make_divisible(layer.out * self.width_mult)) if isinstance(layer, Conv) else layer
            for layer in self.layers
        )


class Stack(nn.Sequential):
    """Layers in a row, where a batch norm comes directly after its convolution."""

    @property
    def conv_chains(self) -> tuple[tuple[str, ...], ...]:
        names = list(self._modules)
        return tuple(tuple(names[i:]) for i, layer in enumerate(self) if isinstance(layer, nn.Conv2d))


class PlainNet(ConvNet):
    """Keys: ``features.N`` and ``classifier.N``, as torchvision counts them. Features: a ``conv`` and a ``pool`` each.

    Any input size works from the smallest that leaves the stack a pixel. A family implements ``init_weights``.
    """

    head_names = ("pool", "classifier")
    classifier_path = "classifier.6"
    numbered_by_stage = False  # conv1_2 is the second before the first pool; otherwise convolutions count on.

    def __init__(self, row: PlainRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.features = Stack()
        chain: list[Feature] = []
        channels, stride, stage, convs = row.in_channels, 1, 1, 0
        first = 0
        for layer in row.scaled_layers:
            if isinstance(layer, LRN):
                # nn.LocalResponseNorm's alpha is of the mean.
                self.features.append(LocalResponseNorm(layer.size, layer.alpha * layer.size, layer.beta, layer.k))
                continue
            stride *= layer.stride
            if isinstance(layer, Pool):
                self.features.append(nn.MaxPool2d(layer.kernel_size, layer.stride, ceil_mode=layer.ceil_mode))
                name = f"pool{stage if self.numbered_by_stage else convs}"
                stage, convs = stage + 1, 0 if self.numbered_by_stage else convs
            else:
                convs += 1
                self.features.extend(_conv(row, channels, layer, factory))
                channels = layer.out
                name = f"conv{stage}_{convs}" if self.numbered_by_stage else f"conv{convs}"
            paths = tuple(f"features.{index}" for index in range(first, len(self.features)))
            chain.append(Feature(name, channels, stride, paths))
            first = len(self.features)
        self.feature_chain = tuple(chain)
        if isinstance(row.pooled, int):
            self.pool: nn.Module = nn.AdaptiveAvgPool2d(row.pooled)
            bins = row.pooled**2
        else:
            self.pool = pyramid = SpatialPyramidPool2d(row.pooled)
            bins = pyramid.bins
        self.classifier = nn.Sequential()
        for inputs in (channels * bins, row.hidden):
            layers = [nn.Linear(inputs, row.hidden, **factory), _activation(row, row.hidden, factory)]
            layers.insert(0 if row.dropout_first else 2, nn.Dropout(row.dropout))
            self.classifier.extend(layers)
        self.classifier.append(nn.Linear(row.hidden, row.num_classes, **factory))
        self.init_weights(self)

    def forward_head(self, features: Tensor) -> Tensor:
        return self.classifier(self.pool(features).flatten(1))


def _activation(row: PlainRow, channels: int, factory: dict[str, Any]) -> nn.Module:
    return nn.PReLU(channels, **factory) if row.prelu else nn.ReLU(inplace=True)


def _conv(row: PlainRow, channels: int, layer: Conv, factory: dict[str, Any]) -> list[nn.Module]:
    groups = row.groups if layer.grouped else 1
    out, kernel_size, stride, padding, *_ = layer
    layers: list[nn.Module] = [
        conv2d(channels, out, kernel_size, stride, padding=padding, groups=groups, **factory),
        *([nn.BatchNorm2d(out, **factory)] if row.batch_norm else []),
        _activation(row, out, factory),
    ]
    if row.se_reduction is not None:
        layers.append(SqueezeExcite(out, max(out // row.se_reduction, 1), **factory))
    return layers
