"""Data to train and test on: generated scenes, folders of images, of VOC's and COCO's layout too, augmentation.

An item is an image, float32 (3, H, W) in [0, 1], and a target: of detection a dict with torchvision's keys (see
:func:`~fastcnn.data.targets.make_target`), of classification a label, of segmentation an int64 (H, W) map. Files,
masks of COCO and region proposals need the extra ``detection``.
"""

from fastcnn.data import transforms
from fastcnn.data.coco import CocoDetection, coco_results
from fastcnn.data.draw import draw_detections
from fastcnn.data.folders import ClassMaps, ImageFolder, Images, SegmentationFolder, VOCSegmentation
from fastcnn.data.images import photograph, read_image, write_image
from fastcnn.data.proposals import edge_boxes, selective_search
from fastcnn.data.scenes import Scenes
from fastcnn.data.shapes import SHAPES
from fastcnn.data.targets import Target, collate, keep_objects, make_target, mask_extents
from fastcnn.data.voc import VOC_CLASSES, VOCDetection
from fastcnn.models.detection.windows import sliding_windows, warp_crops

__all__ = [
    "SHAPES",
    "VOC_CLASSES",
    "ClassMaps",
    "CocoDetection",
    "ImageFolder",
    "Images",
    "Scenes",
    "SegmentationFolder",
    "Target",
    "VOCDetection",
    "VOCSegmentation",
    "coco_results",
    "collate",
    "draw_detections",
    "edge_boxes",
    "keep_objects",
    "make_target",
    "mask_extents",
    "photograph",
    "read_image",
    "selective_search",
    "sliding_windows",
    "transforms",
    "warp_crops",
    "write_image",
]
