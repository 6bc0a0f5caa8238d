"""Networks judged by more than one look: ensembles, crops, whole images, scales. All average probabilities.

Each takes networks in eval mode, of logits (N, num_classes) or maps of them (N, num_classes, H, W), runs without
gradients, and is deterministic.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcnn.models._net import ConvNet

# "MF" of Chen et al., DeepLabv3, 2017, section 4.1, with flips.
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


class Ensemble(nn.Module):
    """The mean of what several classifiers, or several segmenters, give as probabilities: Krizhevsky et al., NIPS 2012,
    section 6.

    Args:
        nets: of as many classes each.
        preprocess: whether each network preprocesses the pixels itself, for networks that take images of other sizes
            or colours than one another.

    Raises:
        ValueError: no network, or other numbers of classes.
    """

    def __init__(self, nets: Iterable[ConvNet], preprocess: bool = False) -> None:
        super().__init__()
        self.nets, self.preprocess = nn.ModuleList(nets), preprocess
        classes = [net.num_classes for net in self.nets]
        if len(set(classes)) != 1:
            raise ValueError(f"an ensemble is of networks of as many classes each, one or more, got {classes}")

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Inputs (N, C, H, W), or pixels for :attr:`ConvNet.preprocess`, to probabilities (N, num_classes) or maps.

        Raises:
            RuntimeError: a network is in training mode.
        """
        nets: Iterable[Any] = self.nets
        return _mean(_probabilities(net, net.preprocess(images) if self.preprocess else images) for net in nets)


@torch.no_grad()
def multi_crop_predict(net: nn.Module, crops: Iterable[Tensor]) -> Tensor:
    """Probabilities (N, num_classes), averaged over crops: Krizhevsky et al., section 4.1.

    Args:
        net: a classifier.
        crops: batches (N, C, H, W) of the same images each, such as :func:`fastcnn.data.ten_crop` of (N, C, H, W)
            gives; several in a list may be of several sizes. One runs at a time.

    Raises:
        RuntimeError: the network is in training mode.
        ValueError: no crop.
    """
    return _mean(_probabilities(net, crop) for crop in crops)


@torch.no_grad()
def dense_predict(net: nn.Module, images: Tensor, flip: bool = True) -> Tensor:
    """Probabilities (N, num_classes) of whole images: Simonyan and Zisserman, Very Deep Convolutional Networks, ICLR
    2015, section 3.2.

    Scores are averaged over the places of the map, probabilities over images and their mirror images.

    Args:
        net: a classifier whose linear layers were made convolutions, so that it gives logits (N, num_classes, H', W').
        images: (N, C, H, W), as large as the network's usual input or larger.
        flip: whether mirror images are looked at, too.

    Raises:
        RuntimeError: the network is in training mode.
        ValueError: the network gives no maps.
    """

    def scores(inputs: Tensor) -> Tensor:
        maps = _logits(net, inputs)
        if maps.dim() != 4:
            raise ValueError(f"dense_predict takes a fully convolutional network, this one gives {tuple(maps.shape)}")
        return maps.mean((2, 3)).softmax(1)

    return _mean(scores(each) for each in _and_mirrored(images, flip))


@torch.no_grad()
def multi_scale_predict(net: nn.Module, images: Tensor, scales: Sequence[float] = SCALES, flip: bool = True) -> Tensor:
    """Probabilities averaged over sizes of images, and over mirror images: section 4.1 of DeepLabv3; of classifiers,
    "multi-scale testing" of Simonyan and Zisserman, section 4.2.

    Maps are resized to the images' size before the softmax, bilinearly, and mirrored back. With the default this takes
    17.375 times the multiply-adds of the images alone, twice the sum of the squares of the scales.

    Args:
        net: a classifier of images of any size; or a segmenter whose map, of any stride, covers the whole image. Of one
            with a ``predict``, as U-Net, that is called.
        images: (N, C, H, W).
        scales: of the images' sides, which are rounded; images are antialiased where they become smaller.
        flip: whether mirror images are looked at, too.

    Returns:
        (N, num_classes), or (N, num_classes, H, W).

    Raises:
        RuntimeError: the network is in training mode.
        ValueError: no scale, or one that is not above 0.
    """
    if not scales or not min(scales) > 0:
        raise ValueError(f"scales must be above 0, one or more, got {scales!r}")
    size = images.shape[-2:]

    def looks() -> Iterator[Tensor]:
        for scale in scales:
            for mirrored, each in enumerate(_and_mirrored(_resized(images, scale), flip)):
                logits = _logits(net, each, whole=True)
                if logits.dim() == 4:
                    logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
                    logits = logits.flip(-1) if mirrored else logits
                yield logits.softmax(1)

    return _mean(looks())


def _resized(images: Tensor, scale: float) -> Tensor:
    sides = [max(1, round(side * scale)) for side in images.shape[-2:]]
    if sides == list(images.shape[-2:]):
        return images
    return F.interpolate(images, sides, mode="bilinear", align_corners=False, antialias=scale < 1)


def _and_mirrored(images: Tensor, flip: bool) -> tuple[Tensor, ...]:
    return (images, images.flip(-1)) if flip else (images,)


def _probabilities(net: nn.Module, inputs: Tensor) -> Tensor:
    return _logits(net, inputs).softmax(1)


def _logits(net: Any, inputs: Tensor, whole: bool = False) -> Tensor:
    if net.training:
        raise RuntimeError(f"this {type(net).__name__} is in training mode: call eval() to judge it")
    # Valid convolutions give the middle of an image alone.
    logits: Tensor = net.predict(inputs) if whole and hasattr(net, "predict") else net(inputs)
    return logits


def _mean(probabilities: Iterable[Tensor]) -> Tensor:
    """Adds one at a time, for 144 maps may not fit into memory."""
    total, count = torch.zeros(()), 0
    for each in probabilities:
        total, count = total.to(each) + each, count + 1
    if not count:
        raise ValueError("there are no crops to average over")
    return total / count
