"""Classifiers without their heads, as the backbones of other networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from fastcnn.models._net import ConvNet, Net, Row
from fastcnn.models._registry import create
from fastcnn.nn.frozen import set_norms


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


def create_body(row: Any, features: str | Sequence[str], **factory: Any) -> ConvNet:
    """The classifier of a network's row with only these features; its norms and weights are as the row says."""
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


def replace_class_layers(net: Net, paths: Sequence[str], num_classes: int) -> Net:
    """Gives the layers at ``paths`` ``num_classes`` fresh outputs, initialised as when built; returns the network.

    Raises:
        ValueError: ``num_classes`` below 1.
    """
    row: Any = dataclasses.replace(net.row, num_classes=num_classes)
    first = net.get_parameter(next(name for name, _ in net.named_parameters()))
    fresh = type(net)(
        dataclasses.replace(row, backbone_weights=None),
        device=first.device,
        dtype=first.dtype,  # type: ignore[call-arg]
    )
    for path in paths:
        new: nn.Module = fresh.get_submodule(path)
        net.set_submodule(path, new.train(net.get_submodule(path).training))
    net.row, net.classes = row, ()
    return net
