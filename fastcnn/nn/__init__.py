"""Layers over ``fastcnn.ops`` and the blocks that the networks share."""

from fastcnn.nn.blocks import Bottleneck, ConvNormAct, InvertedResidual, SqueezeExcite, fold_conv_norm
from fastcnn.nn.layers import (
    ChannelShuffle,
    GroupedConv2dShuffle,
    Hardsigmoid,
    Hardswish,
    LocalResponseNorm,
    RoIAlign,
    SigmoidFocalLoss,
    SoftmaxFocalLoss,
)

__all__ = [
    "Bottleneck",
    "ChannelShuffle",
    "ConvNormAct",
    "GroupedConv2dShuffle",
    "Hardsigmoid",
    "Hardswish",
    "InvertedResidual",
    "LocalResponseNorm",
    "RoIAlign",
    "SigmoidFocalLoss",
    "SoftmaxFocalLoss",
    "SqueezeExcite",
    "fold_conv_norm",
]
