"""What image networks are trained with: features of a classifier, and the parts of a photo enhancer's loss."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcnn.models._net import ConvNet
from fastcnn.models.restoration.images import gaussian_blur, gaussian_window, rgb_to_ycbcr
from fastcnn.nn.losses import generator_loss

# Ignatov et al., equation 7.
WEIGHTS = {"content": 1.0, "texture": 0.4, "color": 0.1, "variation": 400.0}


def _check_pair(input: Tensor, target: Tensor, name: str) -> None:
    if input.shape != target.shape or input.dim() != 4 or input.shape[1] != 3:
        raise ValueError(
            f"{name} takes two batches (N, 3, H, W) of one shape, got {tuple(input.shape)} and {tuple(target.shape)}"
        )


class FeatureLoss(nn.Module):
    """Mean square difference of a classifier's features: the "perceptual" or content loss.

    ``forward(input, target)``: two batches (N, 3, H, W) of pixels in [0, 1], which are normalised as the classifier's
    ``preprocess`` says, without a resize, to a scalar; 0 for identical images. Gradients flow to the images; the
    classifier stays frozen and in eval mode. Deterministic. Sources: Johnson et al., Perceptual Losses for Real-Time
    Style Transfer and Super-Resolution, ECCV 2016, section 3.2; Ignatov et al., ICCV 2017, equation 2, of which this
    is the square.

    Args:
        net: such as ``models.create("vgg19", weights=...)``, with trained weights; its other layers are dropped.
        feature: one of ``net.feature_info``, after its ReLU; the default is Ignatov et al.'s relu_5_4 of VGG-19.

    Raises:
        ValueError: a feature that the network has not; batches of other shapes.
    """

    def __init__(self, net: ConvNet, feature: str = "conv5_4") -> None:
        super().__init__()
        self.feature = feature
        self.net = net.keep_features(feature).requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> FeatureLoss:
        return super().train(False)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        _check_pair(input, target, "FeatureLoss")
        return F.mse_loss(self._features(input), self._features(target))

    def _features(self, image: Tensor) -> Tensor:
        judged = self.net.preprocess
        mean, std = (image.new_tensor(values)[:, None, None] for values in (judged.mean, judged.std))
        maps = self.net((image - mean) / std)
        assert isinstance(maps, dict)
        return maps[self.feature]

    def extra_repr(self) -> str:
        return f"feature={self.feature}"


def color_loss(input: Tensor, target: Tensor) -> Tensor:
    """The squared distance of two images that are blurred, which leaves of texture nothing; the mean over the batch.

    Two batches (N, 3, H, W) to a scalar, a sum over channels and pixels. The Gaussian has a variance of 3 pixels, in a
    window of 21x21, so that its height is the paper's 0.053; zeros lie beyond borders. Deterministic. Source:
    Ignatov et al., ICCV 2017, equations 3 and 4.

    Raises:
        ValueError: batches of other shapes.
    """
    _check_pair(input, target, "color_loss")
    window = gaussian_window(21, math.sqrt(3))
    return gaussian_blur(input - target, window, padding=10).square().sum((1, 2, 3)).mean()


def total_variation(image: Tensor) -> Tensor:
    """Squared differences of neighbours, down and across, summed, per value of the image; the mean over the batch.

    (N, C, H, W) to a scalar; 0 for images of one colour. Deterministic. Source: Ignatov et al., ICCV 2017, equation 6.

    Raises:
        ValueError: another rank.
    """
    if image.dim() != 4:
        raise ValueError(f"total_variation takes (N, C, H, W), got {tuple(image.shape)}")
    summed = image.diff(dim=2).square().sum((1, 2, 3)) + image.diff(dim=3).square().sum((1, 2, 3))
    return summed.mean() / math.prod(image.shape[1:])


class TextureDiscriminator(nn.Module):
    """(N, 3, side, side) RGB in [0, 1] to logits (N, 1): positive for photos of the better camera.

    It sees greys alone, and so texture. Five convolutions, each with a leaky ReLU and, after the first, a batch norm,
    and two linear layers. Source: Ignatov et al., ICCV 2017, section 3.2; no norm in the first, and norms before the
    leaky ReLUs of slope 0.2, as in the authors' code.

    Raises:
        ValueError: images of another shape.
    """

    def __init__(self, side: int = 100, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.side = side
        self.layers = nn.Sequential()
        channels, left = 1, side
        for out, kernel, stride in ((48, 11, 4), (128, 5, 2), (192, 3, 1), (192, 3, 1), (128, 3, 2)):
            first = channels == 1
            options: dict[str, Any] = {"padding": kernel // 2, "bias": first, **factory}
            self.layers.append(nn.Conv2d(channels, out, kernel, stride, **options))
            if not first:
                self.layers.append(nn.BatchNorm2d(out, **factory))
            self.layers.append(nn.LeakyReLU(0.2, inplace=True))
            channels, left = out, -(-left // stride)
        self.fc1 = nn.Linear(channels * left**2, 1024, **factory)
        self.fc2 = nn.Linear(1024, 1, **factory)

    def forward(self, image: Tensor) -> Tensor:
        if image.dim() != 4 or tuple(image.shape[1:]) != (3, self.side, self.side):
            raise ValueError(f"TextureDiscriminator takes (N, 3, {self.side}, {self.side}), got {tuple(image.shape)}")
        grey = (rgb_to_ycbcr(image)[:, :1] * 255 - 16) / 219
        hidden = F.leaky_relu(self.fc1(self.layers(grey).flatten(1)), 0.2)
        return self.fc2(hidden)


class EnhancementLoss(nn.Module):
    """The parts of a photo enhancer's loss, weighted, so that their sum is the loss: Ignatov et al., equation 7.

    ``forward(enhanced, target, logits)``: two batches (N, 3, H, W) with pixels in [0, 1], and what a discriminator
    such as :class:`TextureDiscriminator` says of ``enhanced``, (N, 1); to ``{"content", "texture", "color",
    "variation"}``, scalars. The discriminator learns by :func:`fastcnn.nn.losses.discriminator_loss`.

    Args:
        content: such as a :class:`FeatureLoss`.
        weights: of the parts.
    """

    def __init__(self, content: nn.Module, weights: dict[str, float] = WEIGHTS) -> None:
        super().__init__()
        if set(weights) != set(WEIGHTS):
            raise ValueError(f"weights must be of {', '.join(WEIGHTS)}, got {', '.join(weights)}")
        self.content, self.weights = content, dict(weights)

    def forward(self, enhanced: Tensor, target: Tensor, logits: Tensor) -> dict[str, Tensor]:
        parts = {
            "content": self.content(enhanced, target),
            "texture": generator_loss(logits),
            "color": color_loss(enhanced, target),
            "variation": total_variation(enhanced),
        }
        return {name: self.weights[name] * value for name, value in parts.items()}
