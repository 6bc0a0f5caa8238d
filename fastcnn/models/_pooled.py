"""Networks whose head is what most have: the mean of every channel, dropout, and a linear layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fastcnn.models._net import ConvNet


class PooledNet(ConvNet):
    """A :class:`ConvNet` with that head, which :meth:`add_head` makes when the features stand.

    Attributes:
        head_names: ends with the names of the three layers; the last is the ``classifier_path``.
    """

    head_names: tuple[str, ...] = ("avgpool", "dropout", "fc")
    classifier_path = "fc"

    def add_head(self, channels: int, dropout: float, **factory: Any) -> None:
        """For a last feature of so many channels; ``factory`` is ``device`` and ``dtype``."""
        layers = (nn.AdaptiveAvgPool2d(1), nn.Dropout(dropout), nn.Linear(channels, self.num_classes, **factory))
        for name, layer in zip(self.head_names[-3:], layers, strict=True):
            self.add_module(name, layer)

    def forward_head(self, features: Tensor) -> Tensor:
        pool, dropout, classifier = (getattr(self, name) for name in self.head_names[-3:])
        return classifier(dropout(pool(features).flatten(1)))
