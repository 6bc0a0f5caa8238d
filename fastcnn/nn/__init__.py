"""Layers over ``fastcnn.ops`` and the blocks that the networks share."""

from fastcnn.nn.blocks import Bottleneck, ConvNormAct, InvertedResidual, SqueezeExcite, fold_conv_norm
from fastcnn.nn.layers import (
    ChannelShuffle,
    DepthwiseConv2d,
    GroupedConv2dShuffle,
    Hardsigmoid,
    Hardswish,
    LocalResponseNorm,
    MultiScaleRoIAlign,
    RoIAlign,
    RoIPool,
    SigmoidFocalLoss,
    SoftmaxFocalLoss,
)

__all__ = [
    "Bottleneck",
    "ChannelShuffle",
    "ConvNormAct",
    "DepthwiseConv2d",
    "GroupedConv2dShuffle",
    "Hardsigmoid",
    "Hardswish",
    "InvertedResidual",
    "LocalResponseNorm",
    "MultiScaleRoIAlign",
    "RoIAlign",
    "RoIPool",
    "SigmoidFocalLoss",
    "SoftmaxFocalLoss",
    "SqueezeExcite",
    "fold_conv_norm",
]
