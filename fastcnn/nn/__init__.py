"""Layers over ``fastcnn.ops`` and the blocks that the networks share."""

from fastcnn.nn.blocks import Bottleneck, ConvNormAct, InvertedResidual, SqueezeExcite, fold_conv_norm
from fastcnn.nn.layers import DepthwiseConv2d, Hardswish, RoIAlign

__all__ = [
    "Bottleneck",
    "ConvNormAct",
    "DepthwiseConv2d",
    "Hardswish",
    "InvertedResidual",
    "RoIAlign",
    "SqueezeExcite",
    "fold_conv_norm",
]
