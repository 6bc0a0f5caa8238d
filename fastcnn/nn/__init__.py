"""Layers over ``fastcnn.ops`` and the blocks that the networks share."""

from fastcnn.nn.blocks import Bottleneck, ConvNormAct, InvertedResidual, SqueezeExcite, fold_conv_norm
from fastcnn.nn.layers import Hardswish, MultiScaleRoIAlign, RoIAlign, RoIPool

__all__ = [
    "Bottleneck",
    "ConvNormAct",
    "Hardswish",
    "InvertedResidual",
    "MultiScaleRoIAlign",
    "RoIAlign",
    "RoIPool",
    "SqueezeExcite",
    "fold_conv_norm",
]
