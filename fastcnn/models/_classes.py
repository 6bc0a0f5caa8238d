"""Names of the classes that published detectors were trained on: facts of the data sets."""

from __future__ import annotations

# As VOC2007 to VOC2012 list them, without a background.
VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)

# By category id, 1 to 90; COCO's detection task never used the ids that are None.
_COCO = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", None, "stop sign", "parking meter", "bench"),
    *("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"),
    *(None, "backpack", "umbrella", None, None, "handbag", "tie", "suitcase"),
    *("frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard"),
    *("surfboard", "tennis racket", "bottle", None, "wine glass", "cup", "fork", "knife", "spoon", "bowl"),
    *("banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake"),
    *("chair", "couch", "potted plant", "bed", None, "dining table", None, None, "toilet", None),
    *("tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink"),
    *("refrigerator", None, "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
)

# The 80 that there are, as networks without a background count them.
COCO_CLASSES = tuple(name for name in _COCO if name is not None)

# The 91 that torchvision's networks have: labels are category ids.
COCO_SLOTS = ("__background__", *(name or "N/A" for name in _COCO))

# What Darknet publishes is of one of these, by their number; its files have no names.
DARKNET_CLASSES = {len(names): names for names in (VOC_CLASSES, COCO_CLASSES)}
