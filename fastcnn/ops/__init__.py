"""The ops: functions of tensors, with the signatures torch and torchvision give them."""

from fastcnn.ops.hardswish import hardswish
from fastcnn.ops.nms import nms
from fastcnn.ops.roi_align import roi_align
from fastcnn.ops.sigmoid_focal_loss import sigmoid_focal_loss
from fastcnn.ops.softmax_focal_loss import softmax_focal_loss

__all__ = ["hardswish", "nms", "roi_align", "sigmoid_focal_loss", "softmax_focal_loss"]
