"""DSSD: Fu et al., DSSD: Deconvolutional Single Shot Detector, 2017 (arXiv:1701.06659); and its SSD on ResNet-101."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcnn.models._backbones import create_body
from fastcnn.models._net import ConvNet
from fastcnn.models._registry import register
from fastcnn.models.detection.anchors import DefaultBoxes, ssd_shapes
from fastcnn.models.detection.backbones import HOLES
from fastcnn.models.detection.detector import square
from fastcnn.models.detection.multibox import MultiBox, MultiBoxRow, init_xavier
from fastcnn.nn.blocks import ConvNormAct


class Window(NamedTuple):
    """Of the convolution that makes a coarser map, and of the deconvolution that undoes it; nothing is padded."""

    kernel_size: int
    stride: int


@dataclass(frozen=True, kw_only=True)
class DSSDRow(MultiBoxRow):
    """A DSSD, or the SSD that it is made of, on a ResNet: section 3.

    Attributes:
        features: of the backbone, the first maps: conv3_x and conv5_x, whose stride is 16.
        windows: of the maps behind them.
        deconvolution: modules of figure 3 on the way back, DSSD; without them it is an SSD.
        prediction: modules of figure 2 (c) before the heads.
    """

    num_classes: int = 21
    backbone_options: tuple[tuple[str, Any], ...] = HOLES
    features: tuple[str, str] = ("layer2", "layer4")
    windows: tuple[Window, ...]
    deconvolution: bool = True
    prediction: bool = True


class ProjectedBottleneck(nn.Module):
    """Three convolutions, 1x1, a window's, 1x1, beside a projection by that window, added: (N, C, H, W) to
    (N, 1024, H', W').

    With a 1x1 window it is the prediction module of figure 2 (c); with others, the blocks that make the maps behind
    conv5_x. Every convolution has a norm.
    """

    hidden, out = 256, 1024

    def __init__(self, channels: int, window: Window, **factory: Any) -> None:
        super().__init__()
        kernel: dict[str, Any] = {"kernel_size": window.kernel_size, "stride": window.stride, "padding": 0, **factory}
        self.branch = nn.Sequential(
            ConvNormAct(channels, self.hidden, 1, **factory),
            ConvNormAct(self.hidden, self.hidden, **kernel),
            ConvNormAct(self.hidden, self.out, 1, act=None, **factory),
        )
        self.shortcut = ConvNormAct(channels, self.out, act=None, **kernel)

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(self.branch(input) + self.shortcut(input))


class DeconvolutionModule(nn.Module):
    """The product of a finer map and a deconvolved coarser one: figure 3, by "Eltw product", its better choice.

    ``forward(coarse, fine)``: (N, coarse, h, w) and (N, fine, H, W) to (N, 512, H, W).
    """

    out = 512

    def __init__(self, coarse: int, fine: int, window: Window, **factory: Any) -> None:
        super().__init__()
        linear: dict[str, Any] = {"act": None, **factory}
        deconvolution = nn.ConvTranspose2d(coarse, self.out, window.kernel_size, window.stride, **factory)
        layers = {"deconvolution": deconvolution, "conv": ConvNormAct(self.out, self.out, 3, **linear)}
        self.coarse = nn.Sequential(OrderedDict(layers))
        self.fine = nn.Sequential(
            ConvNormAct(fine, self.out, 3, **factory), ConvNormAct(self.out, self.out, 3, **linear)
        )

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        return F.relu(self.coarse(coarse) * self.fine(fine))


class DSSDFeatures(nn.Module):
    """A ResNet to conv5_x, the maps behind it, and those that deconvolution makes: (N, C, H, W) to a list of maps.

    The first pooling is that of the authors' Caffe, which pads nothing and rounds sides up: 321 pixels make maps of 40,
    20, 10, 5, 3 and 1 pixel, as the paper's.
    """

    def __init__(self, net: ConvNet, row: DSSDRow, **factory: Any) -> None:
        super().__init__()
        net.get_submodule("maxpool").padding, net.get_submodule("maxpool").ceil_mode = 0, True  # type: ignore[assignment]
        self.body = net
        channels = [feature.channels for feature in net.feature_info]
        self.extra = nn.ModuleList()
        for window in row.windows:
            self.extra.append(ProjectedBottleneck(channels[-1], window, **factory))
            channels.append(ProjectedBottleneck.out)
        self.deconvolution = nn.ModuleList()
        if row.deconvolution:
            windows = (Window(2, 2), *row.windows)  # Of conv5_x to conv3_x, and on.
            for finer in range(len(channels) - 2, -1, -1):
                coarse = DeconvolutionModule.out if len(self.deconvolution) else channels[-1]
                self.deconvolution.append(DeconvolutionModule(coarse, channels[finer], windows[finer], **factory))
            channels[:-1] = [DeconvolutionModule.out] * (len(channels) - 1)
        self.prediction = nn.ModuleList()
        if row.prediction:
            self.prediction.extend(ProjectedBottleneck(each, Window(1, 1), **factory) for each in channels)
            channels = [ProjectedBottleneck.out] * len(channels)
        self.channels = tuple(channels)
        for new in (self.extra, self.deconvolution, self.prediction):
            init_xavier(new)

    def forward(self, input: Tensor) -> list[Tensor]:
        maps = list(self.body(input).values())
        for block in self.extra:
            maps.append(block(maps[-1]))
        for step, module in enumerate(self.deconvolution):
            finer = len(maps) - 2 - step
            maps[finer] = module(maps[finer + 1], maps[finer])
        for index, module in enumerate(self.prediction):
            maps[index] = module(maps[index])
        return maps


class DSSD(MultiBox):
    """Class 0 is the background. A batch of one image cannot train it, unless norms are frozen: the last map has one
    pixel.

    Keys: ``backbone.body`` with torchvision's of the ResNet, ``backbone.extra``, ``.deconvolution`` (from the coarsest
    on) and ``.prediction``, and SSD's of the head.
    """

    classifier_path = "head.classification_head.module_list.0"

    def __init__(self, row: DSSDRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.backbone = DSSDFeatures(create_body(row, row.features, **factory), row, **factory)
        self.add_head(self.backbone.channels, lambda inputs, out: nn.Conv2d(inputs, out, 3, padding=1, **factory))
        init_xavier(self.head)


def _boxes(scales: Sequence[float]) -> DefaultBoxes:
    """Eight at every position: ratios 1.6, 2 and 3, section 3, both ways, and two squares."""
    return DefaultBoxes(ssd_shapes([(1.6, 2.0, 3.0)] * (len(scales) - 1), scales))


_HALF, _VALID = Window(2, 2), Window(3, 1)
# Scales are SSD's: 0.1 for the finest map, and even steps of whole hundredths from 0.2 to 0.9.
_321: dict[str, Any] = {
    "preprocess": square(321),
    "boxes": _boxes((0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05)),
    "windows": (_HALF, _HALF, _VALID, _VALID),
}
_513: dict[str, Any] = {
    "preprocess": square(513),
    "boxes": _boxes((0.1, 0.2, 0.34, 0.48, 0.62, 0.76, 0.9, 1.04)),
    "windows": (_HALF,) * 5,
}
_SSD: dict[str, Any] = {"deconvolution": False, "prediction": False}
_PAPER = "Fu et al., 2017, {} with {}: {} boxes"

ROWS = {
    "dssd321_resnet101": DSSDRow(backbone="resnet101", **_321, source=_PAPER.format("DSSD321", "ResNet-101", "17080")),
    "dssd513_resnet101": DSSDRow(backbone="resnet101", **_513, source=_PAPER.format("DSSD513", "ResNet-101", "43688")),
    "dssd321_resnet50": DSSDRow(
        backbone="resnet50", **_321, source=_PAPER.format("DSSD321", "ResNet-50 for ResNet-101", "17080")
    ),
    "ssd321_resnet101": DSSDRow(
        backbone="resnet101", **_321, **_SSD, source=_PAPER.format("SSD321", "ResNet-101", "17080")
    ),
    "ssd513_resnet101": DSSDRow(
        backbone="resnet101", **_513, **_SSD, source=_PAPER.format("SSD513", "ResNet-101", "43688")
    ),
}

register(ROWS, DSSD)
