"""The ops: functions of tensors, with the signatures torch and torchvision give them."""

from fastcnn.ops.depthwise_conv2d import depthwise_conv2d
from fastcnn.ops.hardswish import hardswish
from fastcnn.ops.nms import nms
from fastcnn.ops.roi_align import roi_align

__all__ = ["depthwise_conv2d", "hardswish", "nms", "roi_align"]
