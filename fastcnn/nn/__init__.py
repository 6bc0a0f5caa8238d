"""Layers over ``fastcnn.ops`` and the blocks that the networks share."""

from fastcnn.nn.blocks import ConvNormAct, ConvSequence, InvertedResidual, SqueezeExcite, conv2d
from fastcnn.nn.fusing import fold_conv_norm
from fastcnn.nn.layers import (
    BatchNorm2d,
    ChannelShuffle,
    DepthwiseConv2d,
    GroupedConv2dShuffle,
    Hardsigmoid,
    Hardswish,
    LocalResponseNorm,
    MultiScaleRoIAlign,
    PointwiseConv2d,
    ReLU6,
    RoIAlign,
    RoIPool,
    SigmoidFocalLoss,
    SoftmaxFocalLoss,
)
from fastcnn.nn.pooling import PSRoIPool, SpatialPyramidPool2d, SpatialPyramidRoIPool
from fastcnn.nn.residual import BasicBlock, Bottleneck

__all__ = [
    "BasicBlock",
    "BatchNorm2d",
    "Bottleneck",
    "ChannelShuffle",
    "ConvNormAct",
    "ConvSequence",
    "DepthwiseConv2d",
    "GroupedConv2dShuffle",
    "Hardsigmoid",
    "Hardswish",
    "InvertedResidual",
    "LocalResponseNorm",
    "MultiScaleRoIAlign",
    "PSRoIPool",
    "PointwiseConv2d",
    "ReLU6",
    "RoIAlign",
    "RoIPool",
    "SigmoidFocalLoss",
    "SoftmaxFocalLoss",
    "SpatialPyramidPool2d",
    "SpatialPyramidRoIPool",
    "SqueezeExcite",
    "conv2d",
    "fold_conv_norm",
]
