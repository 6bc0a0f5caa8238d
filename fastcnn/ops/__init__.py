"""The ops: functions of tensors, with the signatures torch and torchvision give them."""

from fastcnn.ops.channel_shuffle import channel_shuffle
from fastcnn.ops.grouped_conv2d_shuffle import grouped_conv2d_shuffle
from fastcnn.ops.hardsigmoid import hardsigmoid
from fastcnn.ops.hardswish import hardswish
from fastcnn.ops.local_response_norm import local_response_norm
from fastcnn.ops.nms import nms
from fastcnn.ops.roi_align import roi_align
from fastcnn.ops.sigmoid_focal_loss import sigmoid_focal_loss
from fastcnn.ops.softmax_focal_loss import softmax_focal_loss
from fastcnn.ops.squeeze_excite import squeeze_excite

__all__ = [
    "channel_shuffle",
    "grouped_conv2d_shuffle",
    "hardsigmoid",
    "hardswish",
    "local_response_norm",
    "nms",
    "roi_align",
    "sigmoid_focal_loss",
    "softmax_focal_loss",
    "squeeze_excite",
]
