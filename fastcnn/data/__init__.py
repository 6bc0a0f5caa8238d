"""Data: generated scenes, folders of images, VOC's and COCO's too, augmentation, crops to be judged by, proposals.

An item is an image, float32 (3, H, W) in [0, 1], and a target: of detection a dict with torchvision's keys (see
:func:`~fastcnn.data.targets.make_target`), of classification a label, of segmentation an int64 (H, W) map. Files,
masks of COCO and region proposals need the extra ``detection``.
"""

from fastcnn.data import transforms
from fastcnn.data.augment import Lighting, RandomCrop, RandomResizedCrop, RandomShortestSize, pca_lighting
from fastcnn.data.coco import CocoDetection, coco_results
from fastcnn.data.crops import five_crop, googlenet_crops, grid_crop, ten_crop, twelve_crop
from fastcnn.data.draw import draw_detections, draw_segmentation
from fastcnn.data.folders import ClassMaps, ImageFolder, Images, SegmentationFolder, VOCSegmentation
from fastcnn.data.images import photograph, read_image, write_image
from fastcnn.data.kornia import Kornia
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
    "Kornia",
    "Lighting",
    "RandomCrop",
    "RandomResizedCrop",
    "RandomShortestSize",
    "Scenes",
    "SegmentationFolder",
    "Target",
    "VOCDetection",
    "VOCSegmentation",
    "coco_results",
    "collate",
    "draw_detections",
    "draw_segmentation",
    "edge_boxes",
    "five_crop",
    "googlenet_crops",
    "grid_crop",
    "keep_objects",
    "make_target",
    "mask_extents",
    "pca_lighting",
    "photograph",
    "read_image",
    "selective_search",
    "sliding_windows",
    "ten_crop",
    "transforms",
    "twelve_crop",
    "warp_crops",
    "write_image",
]
