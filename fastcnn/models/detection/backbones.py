"""Classifiers as backbones of detectors, with torchvision's keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from fastcnn.models._net import ConvNet
from fastcnn.models.detection.pyramid import FeaturePyramid, Subsample

# The last stage of a ResNet at the side of the one before, by the "hole algorithm".
HOLES = (("replace_stride_with_dilation", (False, False, True)),)


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


def init_normal(module: nn.Module, std: float) -> None:
    """Normal weights of convolutions and linear layers, and no biases."""
    for each in module.modules():
        if isinstance(each, nn.Conv2d | nn.Linear):
            nn.init.normal_(each.weight, std=std)
            if each.bias is not None:
                nn.init.zeros_(each.bias)
