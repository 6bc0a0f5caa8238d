"""YOLOv2: Redmon and Farhadi, YOLO9000: Better, Faster, Stronger, CVPR 2017, section 2, and its ten switches."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcnn.models._plain import Conv, Pool
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import find_entry, register
from fastcnn.models.classification.darknet import Darknet19, Darknet19Row, DarknetConv
from fastcnn.models.detection import priors
from fastcnn.models.detection.yolo import SQUARE_416, SQUARE_448, YOLO, YOLORow
from fastcnn.models.detection.yolo_anchors import AnchorRow, AnchorYOLO, DirectLocation, OffsetLocation
from fastcnn.models.detection.yolo_layers import TINY, DarknetStack, Layers, Reorg, scale_channels
from fastcnn.models.detection.yolov1 import ADDED, PRETRAINED, YOLOv1, YOLOv1Row

# Table 2, a column for each step from YOLO to YOLOv2, whose VOC 2007 mAPs are 63.4, 65.8, 69.5, 69.2, 69.6, 74.4,
# 75.4, 76.8 and 78.6.
TABLE_2 = {
    "batch_norm": ".xxxxxxxx",
    "hi_res_classifier": "..xxxxxxx",
    "convolutional": "...xxxxxx",
    "anchors": "...xx....",
    "new_network": "....xxxxx",
    "dimension_priors": ".....xxxx",
    "location_prediction": ".....xxxx",
    "passthrough": "......xxx",
    "multi_scale": ".......xx",
    "hi_res_detector": "........x",
}
_NEEDS = {
    "anchors": ("convolutional",),
    "new_network": ("convolutional", "batch_norm"),
    "dimension_priors": ("convolutional",),
    "location_prediction": ("convolutional",),
    "passthrough": ("new_network",),
    "multi_scale": ("convolutional",),
    "hi_res_detector": ("convolutional",),
}


def column_of_table_2(column: int) -> dict[str, bool]:
    """The ten switches of a column, from 0, YOLO, to 8: ``create("yolov2", **column_of_table_2(4))``."""
    if not 0 <= column <= 8:
        raise ValueError(f"table 2 has columns 0 to 8, got {column}")
    return {switch: marks[column] == "x" for switch, marks in TABLE_2.items()}


@dataclass(frozen=True, kw_only=True)
class YOLOv2Row(AnchorRow):
    """Table 2's switches, ``multi_scale`` and ``hi_res_classifier`` among them, and what they leave open.

    Attributes:
        batch_norm: after every convolution, and no dropout.
        convolutional: boxes from a convolution, at 416 pixels and with a pool less; not from linear layers at 448.
        anchors: from hand-picked priors, Faster R-CNN's nine.
        new_network: Darknet-19 rather than the 24 convolutions of YOLO.
        dimension_priors: from clustered priors in the place of the hand-picked.
        location_prediction: centres within their cell rather than anywhere.
        passthrough: the finer map beside the last, before the last 3x3 convolution.
        hi_res_detector: detects at 544 pixels; with ``multi_scale``, trains as without.
        layers: a stack in the place of Darknet-19; without passthrough.
        head: widths of the 3x3 convolutions after Darknet-19 or the stack; YOLO's network has its own.
        passthrough_channels: to which a 1x1 convolution reduces the finer map; None leaves it as it is.
        darknet_reorg: see :class:`Reorg`.
        object_scale, noobject_scale, coord_scale, class_scale: weights in the loss.
    """

    batch_norm: bool = True
    hi_res_classifier: bool = True
    convolutional: bool = True
    anchors: bool = False
    new_network: bool = True
    dimension_priors: bool = True
    location_prediction: bool = True
    passthrough: bool = True
    hi_res_detector: bool = False
    layers: Layers | None = None
    head: tuple[int, ...] = (1024, 1024, 1024)
    passthrough_channels: int | None = 64
    darknet_reorg: bool = True
    object_scale: float = 5.0
    noobject_scale: float = 1.0
    coord_scale: float = 1.0
    class_scale: float = 1.0
    preprocess: Preprocess = SQUARE_416

    def __post_init__(self) -> None:
        super().__post_init__()
        for switch, needs in _NEEDS.items():
            for needed in needs:
                if getattr(self, switch) and not getattr(self, needed):
                    raise ValueError(f"{switch} needs {needed}")
        if self.convolutional and self.anchors == self.dimension_priors:
            raise ValueError(f"convolutional needs one of anchors and dimension_priors, got {self.anchors} for both")
        if self.passthrough and (self.layers is not None or not self.head):
            raise ValueError("passthrough needs Darknet-19 and a convolution after it: no layers, and a head")
        if self.layers is not None and not self.new_network:
            raise ValueError("layers are in the place of Darknet-19 and need new_network")
        if any(width < 1 for width in (*self.head, self.passthrough_channels or 1)):
            raise ValueError(f"widths must be positive, got head={self.head}, {self.passthrough_channels=}")


class YOLOv2(AnchorYOLO):
    """Keys: ``backbone``, ``convs.N``, ``passthrough.0``, ``last``, ``predictor``. Features: the backbone's.

    Any input whose sides are multiples of 32 works with the same weights. Where not ``convolutional``, ``create``
    gives a :class:`YOLOv1`.

    The loss is Darknet's: half squares of the errors of place, size (in logarithms) and objectness, which goes to the
    IoU where there is an object, and cross-entropy of the classes. What Darknet does for the first 12,800 images only,
    to draw all boxes to their priors, is not done.
    """

    head_names = ("convs", "passthrough", "last", "predictor")
    predictors = ("predictor",)
    default_priors = priors.YOLOV2_VOC

    def __init__(self, row: YOLOv2Row, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype, "negative_slope": row.negative_slope}
        conv = partial(DarknetConv, norm=nn.BatchNorm2d if row.batch_norm else None, **factory)
        self._add_backbone(row, **factory)
        self.stride = self.feature_chain[-1].stride
        self.strides = (self.stride,)
        self.location = DirectLocation() if row.location_prediction else OffsetLocation()
        found = self.default_priors if row.priors is None else row.priors
        self.priors = (found if row.dimension_priors else priors.FASTER_RCNN,)
        channels = self.feature_chain[-1].channels
        self.head = row.head if row.new_network else ()
        *widths, last = [scale_channels(width, row.width_mult) for width in self.head] or [0]
        self.convs = nn.Sequential()
        for width in widths:
            self.convs.append(conv(channels, width, 3))
            channels = width
        if row.passthrough:
            self.finer = self.feature_chain[-2].name
            passed = self.feature_chain[-2].channels
            self.passthrough = nn.Sequential()
            if row.passthrough_channels is not None:
                reduced = scale_channels(row.passthrough_channels, row.width_mult)
                self.passthrough.append(conv(passed, reduced, 1))
                passed = reduced
            self.passthrough.append(Reorg(2, darknet=row.darknet_reorg))
            channels += 4 * passed
        if last:
            self.last = conv(channels, last, 3)
            channels = last
        self.predictor = nn.Conv2d(channels, self.predictor_outputs(row)[0], 1, device=device, dtype=dtype)
        self.init_weights(self)

    def _add_backbone(self, row: YOLOv2Row, **factory: Any) -> None:
        layers = row.layers
        if not row.new_network:
            # One pool less than YOLO, so that a map of 416 pixels has 13 cells and thus one in the middle.
            last = max(index for index, layer in enumerate(PRETRAINED) if isinstance(layer, Pool))
            layers = PRETRAINED[:last] + PRETRAINED[last + 1 :] + ADDED
        if layers is not None:
            options: dict[str, Any] = {"batch_norm": row.batch_norm, "width_mult": row.width_mult, **factory}
            stack = DarknetStack(row.in_channels, layers, path="backbone", **options)
            self.add_backbone(stack, stack.feature_chain)
            return
        darknet19 = find_entry("darknet19").row
        assert isinstance(darknet19, Darknet19Row)
        stages = tuple(tuple(scale_channels(out, row.width_mult) for out in stage) for stage in darknet19.stages)
        slope = factory.pop("negative_slope")
        darknet19 = replace(darknet19, stages=stages, in_channels=row.in_channels, negative_slope=slope)
        backbone = Darknet19(darknet19, **factory).keep_features(f"stages.{len(stages) - 1}")  # type: ignore[arg-type]
        self.add_backbone(backbone, backbone.feature_chain, "backbone.")

    @property
    def preprocess(self) -> Preprocess:
        return replace(self._v2.preprocess, input_size=544) if self._v2.hi_res_detector else self._v2.preprocess

    def head_outputs(self, batch: Tensor) -> tuple[Tensor, ...]:
        self.check_batch(batch)
        name = self.feature_chain[-1].name
        if not self._v2.passthrough:
            input = self.convs(self.forward_features(batch))
        else:
            maps = self.forward_stages(batch, (self.finer, name))
            input = torch.cat([self.passthrough(maps[self.finer]), self.convs(maps[name])], 1)
        return (self.predictor(self.last(input) if self.head else input),)

    def probabilities(self, raw: Tensor) -> Tensor:
        return raw.softmax(-1)

    def box_loss(self, raw: Tensor, place: Tensor, size: Tensor, area: Tensor) -> Tensor:
        errors = (self.location.read(raw[:, :2]) - place).square().sum() + (raw[:, 2:] - size).square().sum()
        return self._v2.coord_scale / 2 * errors

    def objectness_loss(self, raw: Tensor, iou: Tensor, without: Tensor) -> Tensor:
        with_object = (raw.sigmoid() - iou).square().sum()
        return (self._v2.object_scale * with_object + self._v2.noobject_scale * without.sigmoid().square().sum()) / 2

    def class_loss(self, raw: Tensor, labels: Tensor) -> Tensor:
        return self._v2.class_scale * F.cross_entropy(raw, labels, reduction="sum")

    @property
    def _v2(self) -> YOLOv2Row:
        assert isinstance(self.row, YOLOv2Row)
        return self.row


def build(row: YOLOv2Row, *, device: Any = None, dtype: torch.dtype | None = None) -> YOLO:
    """The network of a row: a YOLOv1 where it is not ``convolutional``."""
    if row.convolutional:
        return YOLOv2(row, device=device, dtype=dtype)
    common = {field.name: getattr(row, field.name) for field in fields(YOLORow)}
    if row.preprocess == SQUARE_416:
        common["preprocess"] = SQUARE_448
    common.update(layers=PRETRAINED + ADDED, batch_norm=row.batch_norm, letterbox=False)
    return YOLOv1(YOLOv1Row(**common), device=device, dtype=dtype)


_PAPER = "Redmon and Farhadi, YOLO9000, CVPR 2017"

register(
    {
        "yolov2": YOLOv2Row(source=f"{_PAPER}, table 2, last column but one; VOC's priors are Darknet's"),
        "yolov2_544": YOLOv2Row(hi_res_detector=True, source=f"{_PAPER}, table 2, last column"),
        "yolov2_coco": YOLOv2Row(
            num_classes=80, priors=priors.YOLOV2_COCO, source=f"{_PAPER}, table 5; COCO's priors are Darknet's"
        ),
        "yolov2_unreduced": YOLOv2Row(
            passthrough_channels=None, source=f"{_PAPER}, table 2: all 512 channels of the finer map, as in the text"
        ),
        "yolov2_x0_25": YOLOv2Row(width_mult=0.25, source=f"{_PAPER}, a quarter as wide, for small machines"),
        "yolov2_tiny": YOLOv2Row(
            layers=(*TINY, Conv(1024)),
            head=(),
            passthrough=False,
            priors=priors.YOLOV2_TINY_VOC,
            source="Darknet's tiny network for VOC, after Redmon and Farhadi, CVPR 2017",
        ),
    },
    build,
)
