"""Classifiers as backbones of detectors, with torchvision's keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fastcnn.models._net import ConvNet, Row
from fastcnn.models._registry import create
from fastcnn.models.detection.pyramid import FeaturePyramid, Subsample
from fastcnn.nn.frozen import set_norms

# The last stage of a ResNet at the side of the one before, by the "hole algorithm".
HOLES = (("replace_stride_with_dilation", (False, False, True)),)


@dataclass(frozen=True, kw_only=True)
class BackboneRow(Row):
    """What the rows of networks on a classifier have.

    Attributes:
        backbone: name of a classifier.
        backbone_options: overrides of its row, (name, value).
        backbone_weights: tag or file of its published weights; see :func:`fastcnn.models.create`.
        norm_eps, norm_momentum: of its batch norms, where they are not the classifier's.
        frozen_norms: make constants of them, as is done where weights are published.
        frozen_stages: features of the backbone, from the stem on, that training leaves as they are.
    """

    backbone: str
    backbone_options: tuple[tuple[str, Any], ...] = ()
    backbone_weights: str | None = None
    norm_eps: float | None = None
    norm_momentum: float | None = None
    frozen_norms: bool = False
    frozen_stages: int = 0


class Stages(nn.Sequential):
    """Layers in a row of which some give their maps: ``forward`` returns a list of them.

    Args:
        layers: their keys are 0, 1, ..., as torchvision's, which leaves out the ``features`` they come from.
        taken: numbers of the layers whose maps to return.
    """

    def __init__(self, layers: Sequence[nn.Module], taken: Sequence[int]) -> None:
        super().__init__(*layers)
        self.taken = tuple(taken)

    def forward(self, input: Tensor) -> list[Tensor]:  # type: ignore[override]
        maps = []
        for index, layer in enumerate(self):
            input = layer(input)
            if index in self.taken:
                maps.append(input)
        return maps


class Backbone(nn.Module):
    """``body``, a classifier without its head, and maybe a pyramid, ``fpn``: by a module that makes its last levels,
    by None, which makes none, or by True, the usual one.

    ``forward``: (N, C, H, W) to maps by name, from the finest to the coarsest: those of the pyramid, or "0", "1", ...

    Attributes:
        channels: of each of the maps of ``body``.
        strides: input pixels per pixel of them.
        out_channels: of the maps it gives, which are alike with a pyramid; else of the last.
    """

    def __init__(self, net: ConvNet, fpn: bool | nn.Module | None, out_channels: int = 256, **factory: Any) -> None:
        super().__init__()
        self.channels = tuple(feature.channels for feature in net.feature_info)
        self.strides = tuple(feature.stride for feature in net.feature_info)
        self.body: nn.Module = net
        features = [feature.name.partition("features.")[2] for feature in net.feature_info]
        if all(name.isdecimal() for name in features):
            layers = net.get_submodule("features")
            assert isinstance(layers, nn.Sequential)
            self.body = Stages(list(layers), [int(name) for name in features])
        self.fpn = None
        self.out_channels = self.channels[-1]
        if fpn is not False:
            extra = Subsample() if fpn is True else fpn
            self.fpn = FeaturePyramid(self.channels, out_channels, extra, **factory)
            self.out_channels = out_channels

    @property
    def levels(self) -> int:
        """How many maps it gives."""
        return len(self.channels) if self.fpn is None else self.fpn.levels

    def forward(self, input: Tensor) -> dict[str, Tensor]:
        maps = self.body(input)
        maps = list(maps.values()) if isinstance(maps, dict) else maps
        return {str(i): map_ for i, map_ in enumerate(maps)} if self.fpn is None else self.fpn(maps)


def create_body(row: Any, features: str | Sequence[str], **factory: Any) -> ConvNet:
    """The classifier of a detector's row with only these features; its norms and weights are as the row says."""
    return create_classifier(row, **factory).keep_features(features)


def create_classifier(row: Any, **factory: Any) -> ConvNet:
    """The same with its head, of which Fast R-CNN takes the hidden layers."""
    options = {"in_channels": row.in_channels, **dict(row.backbone_options), **factory}
    net = create(row.backbone, weights=row.backbone_weights, **options)
    set_norms(net, eps=row.norm_eps, momentum=row.norm_momentum, frozen=row.frozen_norms)
    frozen = [path for feature in net.feature_chain[: row.frozen_stages] for path in feature.modules]
    for path in frozen:
        net.get_submodule(path).requires_grad_(False)
    return net


def init_normal(module: nn.Module, std: float) -> None:
    """Normal weights of convolutions and linear layers, and no biases."""
    for each in module.modules():
        if isinstance(each, nn.Conv2d | nn.Linear):
            nn.init.normal_(each.weight, std=std)
            if each.bias is not None:
                nn.init.zeros_(each.bias)
