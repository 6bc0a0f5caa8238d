"""The ops: functions of tensors, with the signatures torch and torchvision give them."""

from fastcnn.ops.batch_norm import batch_norm
from fastcnn.ops.batched_nms import batched_nms
from fastcnn.ops.batched_nms_padded import batched_nms_padded
from fastcnn.ops.channel_shuffle import channel_shuffle
from fastcnn.ops.depthwise_conv2d import depthwise_conv2d
from fastcnn.ops.grouped_conv2d_shuffle import grouped_conv2d_shuffle
from fastcnn.ops.hardsigmoid import hardsigmoid
from fastcnn.ops.hardswish import hardswish
from fastcnn.ops.local_response_norm import local_response_norm
from fastcnn.ops.multi_scale_roi_align import multi_scale_roi_align
from fastcnn.ops.nms import nms
from fastcnn.ops.pointwise_conv2d import pointwise_conv2d
from fastcnn.ops.roi_align import roi_align
from fastcnn.ops.roi_pool import roi_pool
from fastcnn.ops.sigmoid_focal_loss import sigmoid_focal_loss
from fastcnn.ops.softmax_focal_loss import softmax_focal_loss
from fastcnn.ops.squeeze_excite import squeeze_excite

__all__ = [
    "batch_norm",
    "batched_nms",
    "batched_nms_padded",
    "channel_shuffle",
    "depthwise_conv2d",
    "grouped_conv2d_shuffle",
    "hardsigmoid",
    "hardswish",
    "local_response_norm",
    "multi_scale_roi_align",
    "nms",
    "pointwise_conv2d",
    "roi_align",
    "roi_pool",
    "sigmoid_focal_loss",
    "softmax_focal_loss",
    "squeeze_excite",
]
