"""SSDLite: Sandler et al., MobileNetV2, CVPR 2018, section 6.2; Howard et al., MobileNetV3, ICCV 2019, section 6.3."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.models._backbones import create_body
from fastcnn.models._net import ConvNet
from fastcnn.models._registry import find_entry, register
from fastcnn.models.classification.mobilenetv3 import Bneck
from fastcnn.models.detection.anchors import DefaultBoxes, even_scales, ssd_shapes
from fastcnn.models.detection.backbones import init_normal
from fastcnn.models.detection.detector import square
from fastcnn.models.detection.multibox import MultiBox, MultiBoxRow
from fastcnn.nn.blocks import ConvNormAct, ConvSequence
from fastcnn.nn.layers import ReLU6

HALVES = (0.5,) * 3


@dataclass(frozen=True, kw_only=True)
class SSDLiteRow(MultiBoxRow):
    """An SSDLite.

    Attributes:
        tap: the inverted residual of the backbone whose expansion is the first map; where a network has none, the stage
            whose output it is.
        last: the feature that is the second map.
        extras: channels of the maps after it.
    """

    tap: str
    last: str
    extras: tuple[int, ...] = (512, 256, 256, 128)
    norm_eps: float = 1e-3
    norm_momentum: float = 0.03
    score_threshold: float = 0.001
    nms_threshold: float = 0.55
    max_detections: int = 300
    candidates: int = 300


class SSDLiteFeatures(nn.Module):
    """The backbone cut in two, ``features``, and the extras: (N, C, H, W) to a list of maps. Keys are torchvision's."""

    def __init__(self, net: ConvNet, row: SSDLiteRow, **options: Any) -> None:
        super().__init__()
        before, after, channels = _cut(net, row.tap)
        self.features = nn.Sequential(before, after)
        last = net.feature_info[-1].channels
        self.channels = (channels, last, *row.extras)
        self.extra = nn.ModuleList(
            _extra(inputs, out, **options) for inputs, out in zip(self.channels[1:], row.extras, strict=False)
        )

    def forward(self, input: Tensor) -> list[Tensor]:
        maps = []
        for block in (*self.features, *self.extra):
            input = block(input)
            maps.append(input)
        return maps


def _cut(net: ConvNet, tap: str) -> tuple[ConvSequence, ConvSequence, int]:
    """The layers to the tap, those after it, and the channels between."""
    paths = [path for feature in net.feature_chain for path in feature.modules]
    layers, place = [net.get_submodule(path) for path in paths], paths.index(tap)
    parts = list(_parts(layers[place]))
    if not parts:
        channels = next(feature.channels for feature in net.feature_chain if tap in feature.modules)
        return ConvSequence(*layers[: place + 1]), ConvSequence(*layers[place + 1 :]), channels
    (inner,) = parts
    if layers[place].use_shortcut:
        raise ValueError(f"{tap} adds its input to its output and cannot be cut in two")
    expansion = inner[0]
    assert isinstance(expansion, ConvNormAct)
    rest: Any = inner[1:]
    convolution: Any = expansion[0]
    channels = convolution.out_channels
    return ConvSequence(*layers[:place], expansion), ConvSequence(rest, *layers[place + 1 :]), channels  # type: ignore[return-value]


def _parts(block: nn.Module) -> Iterator[ConvSequence]:
    """The layers of an inverted residual, by the two names that its kinds have for them."""
    return (getattr(block, name) for name in ("block", "conv") if hasattr(block, name))


def _extra(inputs: int, out: int, **options: Any) -> ConvSequence:
    """Half the channels by 1x1, half the side by a depthwise 3x3, and 1x1 again."""
    half = out // 2
    return ConvSequence(
        ConvNormAct(inputs, half, 1, **options),
        ConvNormAct(half, half, 3, 2, groups=half, **options),
        ConvNormAct(half, out, 1, **options),
    )


def _predictor(inputs: int, out: int, **options: Any) -> ConvSequence:
    """SSDLite's: a depthwise separable convolution for SSD's 3x3."""
    factory = {name: options[name] for name in ("device", "dtype")}
    return ConvSequence(ConvNormAct(inputs, inputs, 3, groups=inputs, **options), nn.Conv2d(inputs, out, 1, **factory))


class SSDLite(MultiBox):
    """Keys are torchvision's on MobileNetV3. Class 0 is the background."""

    classifier_path = "head.classification_head.module_list.0.1"

    def __init__(self, row: SSDLiteRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        norm = partial(nn.BatchNorm2d, eps=row.norm_eps, momentum=row.norm_momentum)
        options: dict[str, Any] = {"norm": norm, "act": ReLU6, **factory}
        net = create_body(row, row.last, **factory)
        if row.backbone_weights is None:
            init_normal(net, 0.03)
        self.backbone = SSDLiteFeatures(net, row, **options)
        self.add_head(self.backbone.channels, partial(_predictor, **options))
        for new in (self.backbone.extra, self.head):
            init_normal(new, 0.03)


_RATIOS, _SCALES = (2, 3), even_scales(0.2, 0.95, 6)
_SIX = ssd_shapes([_RATIOS] * 6, _SCALES)
# The smallest boxes of the authors' code: a square of 0.1, and both ways of 2:1.
_THREE = [(0.1, 0.1), *_SIX[0][2:4]]
_PAPER = "Sandler et al., CVPR 2018, section 6.2, with {}: 2034 boxes, as the authors' code"


def _reduced_tail() -> tuple[Bneck, ...]:
    """MobileNetV3-Large with half the channels from C5 on: Howard et al., section 6.3."""
    blocks = find_entry("mobilenet_v3_large").row.blocks  # type: ignore[attr-defined]
    tail = zip(blocks[-3:], (672, 480, 480), strict=True)
    return (*blocks[:-3], *(block._replace(expanded=expanded, out=80) for block, expanded in tail))


ROWS = {
    "ssdlite320_mobilenet_v3_large": SSDLiteRow(
        backbone="mobilenet_v3_large",
        backbone_options=(("blocks", _reduced_tail()),),
        tap="features.13",
        last="features.16",
        preprocess=square(320, HALVES, HALVES),
        boxes=DefaultBoxes(_SIX),
        source="Howard et al., ICCV 2019, section 6.3, as torchvision: 3234 boxes, channels halved from C5 on",
    ),
    "ssdlite320_mobilenet_v2": SSDLiteRow(
        backbone="mobilenet_v2",
        num_classes=81,
        tap="features.14",
        last="features.18",
        preprocess=square(320, HALVES, HALVES),
        boxes=DefaultBoxes([_THREE, *_SIX[1:]]),
        source=_PAPER.format("MobileNetV2"),
    ),
    "ssdlite320_mobilenet_v1": SSDLiteRow(
        backbone="mobilenet_v1",
        num_classes=81,
        tap="blocks.3",
        last="blocks.4",
        preprocess=square(320, HALVES, HALVES),
        boxes=DefaultBoxes([_THREE, *_SIX[1:]]),
        source=_PAPER.format("MobileNet"),
    ),
    "ssdlite160_mobilenet_v2_x0_35": SSDLiteRow(
        backbone="mobilenet_v2_x0_35",
        tap="features.14",
        last="features.18",
        extras=(256, 128, 128, 64),
        preprocess=square(160, HALVES, HALVES),
        boxes=DefaultBoxes(_SIX),
        source="Sandler et al., CVPR 2018, section 6.2, 0.35 times as wide, for small machines",
    ),
}

register(ROWS, SSDLite)
