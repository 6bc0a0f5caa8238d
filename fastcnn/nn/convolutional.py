"""Classifiers that slide over larger images: fully connected layers as convolutions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.nn.blocks import ConvSequence, conv2d

# Layers of heads that do to every pixel what they do to a vector.
_POINTWISE = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.PReLU, nn.LeakyReLU, nn.Dropout, nn.Identity)


@torch.no_grad()
def linear_to_conv2d(linear: nn.Linear, kernel_size: int = 1) -> nn.Conv2d:
    """The convolution that is ``linear`` of the flattened window (C, kernel_size, kernel_size); shares its memory.

    Raises:
        ValueError: inputs that are not so many pixels for each channel.
    """
    channels, left = divmod(linear.in_features, kernel_size**2)
    if left:
        raise ValueError(f"{linear.in_features} inputs are no windows of {kernel_size}x{kernel_size} pixels")
    conv = conv2d(channels, linear.out_features, kernel_size, bias=linear.bias is not None, device="meta")
    conv.weight = nn.Parameter(
        linear.weight.view(linear.out_features, channels, kernel_size, kernel_size),
        requires_grad=linear.weight.requires_grad,
    )
    conv.bias = linear.bias
    return conv.train(linear.training)


def convolutional_head(layers: Iterable[nn.Module], window: int | None = None) -> ConvSequence:
    """The layers of a classifier's head as convolutions: (N, C, h, w) to (N, classes, h - k + 1, w - k + 1).

    ``layers`` in the order they run: an adaptive average pooling, then linear layers with what is pointwise between
    them, or 1x1 convolutions; no flattening. A pooling to k x k means is left out, as it is the identity on the map of
    the classifier's own image, and the first linear layer becomes a k x k convolution; one to a single mean becomes
    the mean of every window of k = ``window`` pixels, and the linear layers 1x1 convolutions.

    Raises:
        ValueError: another layer, or no ``window`` for a single mean.
    """
    result: list[nn.Module] = []
    kernel_size = 1
    for layer in layers:
        if isinstance(layer, nn.AdaptiveAvgPool2d) and not result:
            size: Any = layer.output_size
            side = size if isinstance(size, int) else size[0]
            if side != 1:
                kernel_size = int(side or 0)
            elif window is None:
                raise ValueError("a head that pools the whole map needs the side of its window")
            elif window > 1:
                result.append(nn.AvgPool2d(window, 1))
        elif isinstance(layer, nn.Linear):
            result.append(linear_to_conv2d(layer, kernel_size))
            kernel_size = 1
        elif isinstance(layer, _POINTWISE) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)):
            result.append(layer)
        else:
            raise ValueError(f"a head with a {type(layer).__name__} cannot be made of convolutions")
    return ConvSequence(*result)


class HeatMap(nn.Module):
    """What :func:`to_fully_convolutional` makes.

    ``forward``: an image (N, C, H, W) to logits (N, classes, h, w), one for each window.

    Attributes:
        features: the classifier without its head.
        head: convolutions.
    """

    def __init__(self, features: Any, head: ConvSequence) -> None:
        super().__init__()
        self.features, self.head = features, head

    def forward(self, input: Tensor) -> Tensor:
        return self.head(self.features.forward_features(input))


def to_fully_convolutional(net: Any, window: int | None = None) -> HeatMap:
    """Makes convolutions of a classifier's fully connected layers, so that a larger image gives a map of its classes.

    At the classifier's own size the map is one pixel, with its logits; there is one more for every ``stride`` pixels
    that the image is larger. Weights are the classifier's, in memory too; ``net`` loses its head and is the
    ``features`` of the result. Dropout drops single pixels then.

    Args:
        net: a :class:`fastcnn.models.ConvNet` that classifies, whose head is an average pooling and linear layers:
            AlexNet, VGG, ResNet, MobileNet and their like.
        window: side of the map that a head which takes its mean is to see; None is that of the classifier's own image.

    Raises:
        ValueError: a head with other layers, or none.

    Source: Long et al., Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, section 3.1 and figure 2.
    """
    last = net.feature_info[-1]
    layers = [layer for name in net.head_names if hasattr(net, name) for layer in _leaves(getattr(net, name))]
    if net.features_only or not layers:
        raise ValueError(f"this {type(net).__name__} has no head to make convolutions of")
    if window is None:
        window = -(-net.preprocess.input_size // last.stride)
    head = convolutional_head(layers, window)
    return HeatMap(net.keep_features(last.name), head)


def _leaves(module: nn.Module) -> Iterator[nn.Module]:
    return (layer for layer in module.modules() if not any(layer.children()))
