"""Layers over ``fastcnn.ops`` and the blocks that the networks share."""

from fastcnn.nn.blocks import Bottleneck, ConvNormAct, InvertedResidual, SqueezeExcite, fold_conv_norm
from fastcnn.nn.layers import ChannelShuffle, GroupedConv2dShuffle, Hardswish, RoIAlign

__all__ = [
    "Bottleneck",
    "ChannelShuffle",
    "ConvNormAct",
    "GroupedConv2dShuffle",
    "Hardswish",
    "InvertedResidual",
    "RoIAlign",
    "SqueezeExcite",
    "fold_conv_norm",
]
