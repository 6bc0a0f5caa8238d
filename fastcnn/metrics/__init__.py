"""How good networks are: top-k errors, maps of classes, VOC's average precision, COCO's for boxes and masks; PSNR, SSIM."""

from fastcnn.metrics.classification import TopK, topk_error
from fastcnn.metrics.coco import CocoMetrics
from fastcnn.metrics.quality import psnr, ssim
from fastcnn.metrics.search import search_objective
from fastcnn.metrics.segmentation import SegmentationMetrics
from fastcnn.metrics.voc import VOCMetrics, average_precision

__all__ = [
    "CocoMetrics",
    "SegmentationMetrics",
    "TopK",
    "VOCMetrics",
    "average_precision",
    "psnr",
    "search_objective",
    "ssim",
    "topk_error",
]
