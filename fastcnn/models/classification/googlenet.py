"""GoogLeNet (Inception v1): Szegedy et al., Going Deeper with Convolutions, CVPR 2015, table 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcnn.models._net import Feature, Row
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register
from fastcnn.models.classification._transform_input import TransformInputNet
from fastcnn.nn.inception import Branches, InceptionConv
from fastcnn.nn.layers import LocalResponseNorm


class Module(NamedTuple):
    """A row of table 1: its columns #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5 and pool proj."""

    ch1x1: int
    reduce3x3: int
    ch3x3: int
    reduce5x5: int
    ch5x5: int
    projection: int


# None is the 3x3 max pool of stride 2 between the stages.
_TABLE = {
    "3a": Module(64, 96, 128, 16, 32, 32),
    "3b": Module(128, 128, 192, 32, 96, 64),
    "maxpool3": None,
    "4a": Module(192, 96, 208, 16, 48, 64),
    "4b": Module(160, 112, 224, 24, 64, 64),
    "4c": Module(128, 128, 256, 24, 64, 64),
    "4d": Module(112, 144, 288, 32, 64, 64),
    "4e": Module(256, 160, 320, 32, 128, 128),
    "maxpool4": None,
    "5a": Module(256, 160, 320, 32, 128, 128),
    "5b": Module(384, 192, 384, 48, 128, 128),
}


@dataclass(frozen=True, kw_only=True)
class GoogLeNetRow(Row):
    """A version of table 1.

    Attributes:
        batch_norm: after every convolution, instead of biases and of the two local response norms.
        naive: modules of figure 2a, which have no 1x1 reductions and no projection: every module passes its whole
            input through its pooling branch, so that the channels grow by #1x1 + #3x3 + #5x5 of the table each time.
        side5x5: of the "5x5" convolutions; torchvision's have 3.
        last_pool: side of the last max pool; torchvision's has 2.
        adaptive_aux_pool: auxiliary classifiers pool any map to 4x4, as torchvision's, instead of by 5x5 windows of
            stride 3. Maps under 14 pixels are pooled so in any case.
        aux_logits: have the two auxiliary classifiers, which only training runs.
        dropout, dropout_aux: before the classifier and before the auxiliary ones.
        transform_input: take images that ``Preprocess()`` normalised, where the published weights of torchvision want
            the mean and deviation 0.5 that ``preprocess`` of their row has.
    """

    batch_norm: bool = False
    naive: bool = False
    side5x5: int = 5
    last_pool: int = 3
    adaptive_aux_pool: bool = False
    aux_logits: bool = True
    dropout: float = 0.4
    dropout_aux: float = 0.7
    transform_input: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.side5x5 < 1 or self.side5x5 % 2 == 0:
            raise ValueError(f"side5x5 must be odd and positive, got {self.side5x5}")
        if self.transform_input and self.in_channels != 3:
            raise ValueError(f"transform_input needs 3 channels, got {self.in_channels}")


class AuxiliaryClassifier(nn.Module):
    """(N, in_channels, H, W) to logits (N, num_classes): pool to 4x4, 1x1 convolution to 128, two linear layers."""

    def __init__(self, in_channels: int, row: GoogLeNetRow, conv: Callable[..., nn.Module], **factory: Any) -> None:
        super().__init__()
        self.adaptive = row.adaptive_aux_pool
        self.conv = conv(in_channels, 128, 1)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024, **factory)
        self.fc2 = nn.Linear(1024, row.num_classes, **factory)
        self.dropout = nn.Dropout(row.dropout_aux)

    def forward(self, input: Tensor) -> Tensor:
        if not self.adaptive and min(input.shape[2:]) >= 14:
            input = F.avg_pool2d(input, 5, 3)
        pooled = self.conv(F.adaptive_avg_pool2d(input, 4))
        return self.fc2(self.dropout(F.relu(self.fc1(pooled.flatten(1)))))


class GoogLeNet(TransformInputNet):
    """Keys are torchvision's. Features: ``conv1``, ``conv3``, ``inception3a`` ... ``inception5b``."""

    head_names = ("aux1", "aux2", "avgpool", "dropout", "fc")
    auxiliary_classifier = "fc2"

    def __init__(self, row: GoogLeNetRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        conv = partial(InceptionConv, **factory) if row.batch_norm else partial(InceptionConv, norm=None, **factory)
        pool = partial(nn.MaxPool2d, stride=2, ceil_mode=True)
        norms = ("norm1", "norm2") if not row.batch_norm else ()
        for name in norms:
            self.add_module(name, LocalResponseNorm(5, k=1.0))
        self.conv1 = conv(row.in_channels, 64, 7, 2)
        self.maxpool1 = pool(3)
        self.conv2 = conv(64, 64, 1)
        self.conv3 = conv(64, 192, 3)
        self.maxpool2 = pool(3)
        chain = [
            Feature("conv1", 64, 2, ("conv1",)),
            Feature("conv3", 192, 4, ("maxpool1", *norms[:1], "conv2", "conv3")),
        ]
        channels, stride, before = 192, 8, (*norms[1:], "maxpool2")
        for key, module in _TABLE.items():
            if module is None:
                self.add_module(key, pool(row.last_pool if key == "maxpool4" else 3))
                stride, before = stride * 2, (key,)
                continue
            name = f"inception{key}"
            self.add_module(name, _inception(channels, module, row, conv))
            channels = module.ch1x1 + module.ch3x3 + module.ch5x5 + (channels if row.naive else module.projection)
            chain.append(Feature(name, channels, stride, (*before, name)))
            before = ()
        self.feature_chain = tuple(chain)
        if row.aux_logits:
            self.auxiliary = (("inception4a", "aux1"), ("inception4d", "aux2"))
            width = {feature.name: feature.channels for feature in chain}
            for feature, head in self.auxiliary:
                self.add_module(head, AuxiliaryClassifier(width[feature], row, conv, **factory))
        self.add_head(channels, row.dropout, **factory)
        self.transform_input = row.transform_input
        self.batch_norm = row.batch_norm
        self.init_weights(self)

    def init_weights(self, module: nn.Module) -> None:
        """With batch norm: torchvision's. Without: that of Caffe's model of the paper, which does not say its own."""
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear) and self.batch_norm:
                nn.init.normal_(layer.weight, std=0.01)  # torchvision cuts it off at 200 deviations.
            elif isinstance(layer, nn.Conv2d | nn.Linear):
                bound = (3 / layer.weight[0].numel()) ** 0.5
                nn.init.uniform_(layer.weight, -bound, bound)
                assert layer.bias is not None
                nn.init.constant_(layer.bias, 0.2 if isinstance(layer, nn.Conv2d) else 0.0)


def _inception(channels: int, width: Module, row: GoogLeNetRow, conv: Callable[..., nn.Module]) -> Branches:
    pool = nn.MaxPool2d(3, 1, padding=1, ceil_mode=True)
    if row.naive:
        return Branches(
            branch1=conv(channels, width.ch1x1, 1),
            branch2=conv(channels, width.ch3x3, 3),
            branch3=conv(channels, width.ch5x5, row.side5x5),
            branch4=pool,
        )
    return Branches(
        branch1=conv(channels, width.ch1x1, 1),
        branch2=nn.Sequential(conv(channels, width.reduce3x3, 1), conv(width.reduce3x3, width.ch3x3, 3)),
        branch3=nn.Sequential(conv(channels, width.reduce5x5, 1), conv(width.reduce5x5, width.ch5x5, row.side5x5)),
        branch4=nn.Sequential(pool, conv(channels, width.projection, 1)),
    )


_PAPER = "Szegedy et al., CVPR 2015, table 1"

ROWS = {
    "googlenet": GoogLeNetRow(source=_PAPER),
    "googlenet_naive": GoogLeNetRow(
        naive=True, source=f"{_PAPER}, with the naive modules of figure 2a, without its reductions and projections"
    ),
    "googlenet_bn": GoogLeNetRow(
        batch_norm=True,
        side5x5=3,
        last_pool=2,
        adaptive_aux_pool=True,
        dropout=0.2,
        preprocess=Preprocess(mean=(0.5,) * 3, std=(0.5,) * 3),
        source=f"{_PAPER}; batch norm and 3x3 for 5x5, as torchvision",
    ),
    "bn_googlenet": GoogLeNetRow(batch_norm=True, source=f"{_PAPER}, with batch norm"),
}

register(ROWS, GoogLeNet)
