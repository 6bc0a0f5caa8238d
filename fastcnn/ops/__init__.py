"""The ops: functions of tensors, with the signatures torch and torchvision give them."""

from fastcnn.ops.batched_nms import batched_nms
from fastcnn.ops.batched_nms_padded import batched_nms_padded
from fastcnn.ops.hardswish import hardswish
from fastcnn.ops.multi_scale_roi_align import multi_scale_roi_align
from fastcnn.ops.nms import nms
from fastcnn.ops.roi_align import roi_align
from fastcnn.ops.roi_pool import roi_pool

__all__ = ["batched_nms", "batched_nms_padded", "hardswish", "multi_scale_roi_align", "nms", "roi_align", "roi_pool"]
