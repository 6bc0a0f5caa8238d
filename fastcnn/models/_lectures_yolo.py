"""What lectures print about the YOLO networks: as _lectures.py. Data only."""

from __future__ import annotations

from fastcnn.models._lectures import MACS, PARAMS, Note, Quote

YOLO_QUOTES = (
    Quote("yolov2", PARAMS, "50.7 M", "000"),
    Quote("yolov2", MACS, "17.5 G", "000", "of `yolov2_unreduced`, which has 67.1 M parameters"),
    Quote("yolov2_unreduced", MACS, "17.5 G", "000"),
)

YOLO_NOTES = (
    Note(
        "yolov2",
        "000",
        "anchors are chosen by K-means on COCO",
        "on VOC and on COCO, each for its own network: `yolov2` and `yolov2_coco`",
    ),
    Note("yolo9000", "000", "classifies 9000 classes", "9418 nodes of a tree, inner ones included"),
)
