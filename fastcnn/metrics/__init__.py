"""How good detections are: VOC's average precision, and COCO's for boxes and masks; how near images are: PSNR, SSIM."""

from fastcnn.metrics.coco import CocoMetrics
from fastcnn.metrics.quality import psnr, ssim
from fastcnn.metrics.voc import VOCMetrics, average_precision

__all__ = ["CocoMetrics", "VOCMetrics", "average_precision", "psnr", "ssim"]
