"""SSD: Liu et al., SSD: Single Shot MultiBox Detector, ECCV 2016, on VGG-16."""

from __future__ import annotations

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
from fastcnn.models.detection.detector import square
from fastcnn.models.detection.multibox import MultiBox, MultiBoxRow, init_xavier
from fastcnn.nn.blocks import ConvSequence


class Extra(NamedTuple):
    """Two convolutions behind the backbone: 1x1, then the one that makes the next map."""

    hidden: int
    out: int
    kernel_size: int = 3
    stride: int = 1
    padding: int = 0


@dataclass(frozen=True, kw_only=True)
class SSDRow(MultiBoxRow):
    """An SSD on VGG-16: figure 2.

    Attributes:
        extras: behind conv7, the former fc7.
    """

    backbone: str = "vgg16"
    backbone_options: tuple[tuple[str, Any], ...] = (("hidden", 1),)  # Of the head that is left out.
    extras: tuple[Extra, ...]


class SSDFeatures(nn.Module):
    """VGG-16 to conv4_3, which is scaled to a learned norm, its conv5 and dilated fc6 and fc7, and the extras.

    ``forward``: (N, C, H, W) to a list of maps. Keys are torchvision's. Section 3: pool5 is 3x3 at stride 1, fc6 has
    holes ("a trous"); the norm of conv4_3 starts as 20. Pool3 rounds sides up, as in the authors' code.
    """

    def __init__(self, net: ConvNet, extras: Sequence[Extra], **factory: Any) -> None:
        super().__init__()
        layers: list[Any] = list(net.get_submodule("features").children())
        pools = [index for index, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
        layers[pools[2]].ceil_mode = True
        self.scale_weight = nn.Parameter(torch.full((512,), 20.0, **factory))
        self.features = ConvSequence(*layers[: pools[3]])
        fc = ConvSequence(
            nn.MaxPool2d(3, 1, 1),
            nn.Conv2d(512, 1024, 3, padding=6, dilation=6, **factory),
            nn.ReLU(inplace=True),
            nn.Conv2d(1024, 1024, 1, **factory),
            nn.ReLU(inplace=True),
        )
        self.extra = nn.ModuleList()
        channels = 1024
        self.channels = (512, channels, *(extra.out for extra in extras))
        for hidden, out, kernel_size, stride, padding in extras:
            block = ConvSequence(
                nn.Conv2d(channels, hidden, 1, **factory),
                nn.ReLU(inplace=True),
                nn.Conv2d(hidden, out, kernel_size, stride, padding, **factory),
                nn.ReLU(inplace=True),
            )
            self.extra.append(block)
            channels = out
        for new in (self.extra, fc):
            init_xavier(new)
        self.extra.insert(0, ConvSequence(*layers[pools[3] :], fc))

    def forward(self, input: Tensor) -> list[Tensor]:
        input = self.features(input)
        maps = [self.scale_weight.reshape(1, -1, 1, 1) * F.normalize(input)]
        for block in self.extra:
            input = block(input)
            maps.append(input)
        return maps


class SSD(MultiBox):
    """Keys are torchvision's. Class 0 is the background."""

    classifier_path = "head.classification_head.module_list.0"

    def __init__(self, row: SSDRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.backbone = SSDFeatures(create_body(row, "conv5_3", **factory), row.extras, **factory)
        self.add_head(self.backbone.channels, lambda inputs, out: nn.Conv2d(inputs, out, 3, padding=1, **factory))
        init_xavier(self.head)


_MEAN, _STD = (0.48235, 0.45882, 0.40784), (1 / 255,) * 3
_FEW, _MANY = (2,), (2, 3)
_300 = DefaultBoxes(
    ssd_shapes([_FEW, _MANY, _MANY, _MANY, _FEW, _FEW], (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)),
    steps=(8, 16, 32, 64, 100, 300),
)
_512 = DefaultBoxes(
    ssd_shapes([_FEW, *[_MANY] * 4, _FEW, _FEW], (0.07, 0.15, 0.30, 0.45, 0.60, 0.75, 0.90, 1.05)),
    steps=(8, 16, 32, 64, 128, 256, 512),
)
_STRIDED = (Extra(256, 512, stride=2, padding=1), Extra(128, 256, stride=2, padding=1))

ROWS = {
    "ssd300_vgg16": SSDRow(
        preprocess=square(300, _MEAN, _STD),
        boxes=_300,
        extras=(*_STRIDED, Extra(128, 256), Extra(128, 256)),
        source="Liu et al., ECCV 2016, SSD300, as torchvision: 8732 boxes",
    ),
    "ssd512_vgg16": SSDRow(
        preprocess=square(512, _MEAN, _STD),
        boxes=_512,
        extras=(*_STRIDED, *[_STRIDED[1]] * 2, Extra(128, 256, 4, padding=1)),
        source="Liu et al., ECCV 2016, SSD512, layers and boxes of the authors' code for VOC: 24564 boxes",
    ),
}

register(ROWS, SSD)
