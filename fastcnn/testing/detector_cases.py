"""Which detectors are timed, and on what."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from fastcnn.models.detection.rpn import ProposalRules
from fastcnn.models.detection.yolo import SQUARE_416


class DetectorCase(NamedTuple):
    """What a detector is timed on.

    Attributes:
        images: at a time. Of several, all at once are timed against one by one.
        side: in pixels: the shorter one, or of the square that images are resized to.
        options: of :func:`fastcnn.models.create`, which make it so.
        classes: path of the layer whose outputs are the classes, or of a parent of such; None leaves scores alone.
        candidates: pairs of a box and a class of an image that untrained weights are to give a score above the
            threshold, as trained ones do.
    """

    images: int
    side: int
    options: Mapping[str, Any] = {}
    classes: str | None = None
    candidates: int = 1000

    @property
    def layer(self) -> str:
        return f"batch {self.images}, {self.side} px"


_REGIONS, _DENSE = ("roi_heads.box_predictor.cls_score", 300), ("head.classification_head", 1000)


# Of small images: with as many regions as of large ones, nothing else would count.
_FEW = {"proposals": ProposalRules(after=(2000, 100)), "max_detections": 10}


def _resized(images: int, side: int, classes: tuple[str, int], **options: Any) -> DetectorCase:
    return DetectorCase(images, side, {"min_size": side, **options}, *classes)


def _square(side: int) -> DetectorCase:
    return DetectorCase(8, side, {"preprocess": dataclasses.replace(SQUARE_416, input_size=side)})


# Sides are small enough for each case to take a minute or two on two cores.
CASES: dict[str, tuple[DetectorCase, ...]] = {
    "fasterrcnn_resnet50_fpn": (_resized(1, 320, _REGIONS), _resized(8, 128, _REGIONS, **_FEW)),
    "maskrcnn_resnet50_fpn": (_resized(1, 320, _REGIONS), _resized(8, 128, _REGIONS, **_FEW)),
    "retinanet_resnet50_fpn": (_resized(1, 320, _DENSE), _resized(8, 128, _DENSE)),
    "ssd300_vgg16": (DetectorCase(1, 300, {}, *_DENSE),),
    "ssdlite320_mobilenet_v3_large": (DetectorCase(8, 320, {}, *_DENSE),),
    "yolov2_tiny": (_square(416),),
    "yolov3": (_square(160),),
}
