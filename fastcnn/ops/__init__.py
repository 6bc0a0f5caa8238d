"""The ops: functions of tensors, with the signatures torch and torchvision give them."""

from fastcnn.ops.channel_shuffle import channel_shuffle
from fastcnn.ops.grouped_conv2d_shuffle import grouped_conv2d_shuffle
from fastcnn.ops.hardswish import hardswish
from fastcnn.ops.nms import nms
from fastcnn.ops.roi_align import roi_align

__all__ = ["channel_shuffle", "grouped_conv2d_shuffle", "hardswish", "nms", "roi_align"]
