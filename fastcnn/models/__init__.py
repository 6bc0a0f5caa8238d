"""Networks: ``create`` one of ``list_models``; ``summary`` counts it; ``load_weights`` fills it."""

from fastcnn.models import classification, detection, generation, restoration, segmentation
from fastcnn.models._classes import COCO_CLASSES, COCO_SLOTS, VOC_CLASSES
from fastcnn.models._freeze import freeze
from fastcnn.models._metadata import read_metadata
from fastcnn.models._net import ConvNet, Feature, Row
from fastcnn.models._output_stride import set_output_stride
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import (
    create,
    create_from,
    find_entry,
    list_models,
    list_weights,
    register,
    save_weights,
)
from fastcnn.models._summary import (
    Summary,
    count_macs,
    count_params,
    count_weights_only,
    summary,
    trace_shapes,
)
from fastcnn.models._weights import load_weights, read_state_dict
from fastcnn.models.evaluators import Ensemble, dense_predict, multi_crop_predict, multi_scale_predict
from fastcnn.models.model_parallel import ModelParallel

__all__ = [
    "COCO_CLASSES",
    "COCO_SLOTS",
    "VOC_CLASSES",
    "ConvNet",
    "Ensemble",
    "Feature",
    "ModelParallel",
    "Preprocess",
    "Row",
    "Summary",
    "classification",
    "count_macs",
    "count_params",
    "count_weights_only",
    "create",
    "create_from",
    "dense_predict",
    "detection",
    "find_entry",
    "freeze",
    "generation",
    "list_models",
    "list_weights",
    "load_weights",
    "multi_crop_predict",
    "multi_scale_predict",
    "read_metadata",
    "read_state_dict",
    "register",
    "restoration",
    "save_weights",
    "segmentation",
    "set_output_stride",
    "summary",
    "trace_shapes",
]
