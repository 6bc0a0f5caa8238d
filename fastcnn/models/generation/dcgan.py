"""DCGAN: Radford et al., Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks,
ICLR 2016."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.models._image_net import ImageNetwork, ImageRow, pixels
from fastcnn.models._net import ConvNet, Feature, Row
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register

_NOISE = pixels(1, channels=100)
_IMAGES = Preprocess(64, crop_pct=1.0, mean=(0.5,) * 3, std=(0.5,) * 3)


def _check_channels(channels: tuple[int, ...]) -> None:
    if not channels or not all(isinstance(width, int) and width > 0 for width in channels):
        raise ValueError(f"channels must be positive ints, one or more, got {channels!r}")


def _init(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


@dataclass(frozen=True, kw_only=True)
class GeneratorRow(ImageRow):
    """Figure 1. ``in_channels`` is the length of z; ``preprocess`` is for no image, and says that z has one place.

    Attributes:
        channels: of the maps of 4x4, 8x8 ... pixels, before the image, which is twice the last's side.
        out_channels: of the image.
    """

    task: str = "generation"
    channels: tuple[int, ...] = (1024, 512, 256, 128)
    out_channels: int = 3
    in_channels: int = 100
    preprocess: Preprocess = _NOISE

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_channels(self.channels)
        if self.out_channels < 1:
            raise ValueError(f"out_channels must be at least 1, got {self.out_channels}")


class DCGANGenerator(ImageNetwork):
    """z (N, 100), uniform in [-1, 1], or (N, 100, 1, 1), to images (N, 3, 64, 64) in [-1, 1].

    A projection to 4x4 pixels, as the transposed convolution that it is, and four fractionally-strided convolutions of
    5x5, each with a batch norm and a ReLU but the last, which has a tanh. Features: ``project``, ``layers.0`` ...;
    an input has no pixels that their strides could count: they are 1.
    """

    head_names = ("last",)

    def __init__(self, row: GeneratorRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        self.row: GeneratorRow
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        doubled: dict[str, Any] = {"stride": 2, "padding": 2, "output_padding": 1, **factory}
        first, *others = row.channels
        self.project = nn.Sequential(
            nn.ConvTranspose2d(row.in_channels, first, 4, bias=False, **factory),
            nn.BatchNorm2d(first, **factory),
            nn.ReLU(inplace=True),
        )
        chain = [Feature("project", first, 1, ("project",))]
        self.layers = nn.Sequential()
        for width in others:
            conv = nn.ConvTranspose2d(first, width, 5, bias=False, **doubled)
            name = f"layers.{len(self.layers)}"
            self.layers.append(nn.Sequential(conv, nn.BatchNorm2d(width, **factory), nn.ReLU(inplace=True)))
            chain.append(Feature(name, width, 1, (name,)))
            first = width
        self.feature_chain = tuple(chain)
        self.last = nn.ConvTranspose2d(first, row.out_channels, 5, **doubled)
        self.init_weights(self)

    def forward(self, input: Tensor) -> Any:
        """See :meth:`ConvNet.forward`; z may have two dimensions."""
        return super().forward(input[..., None, None] if input.dim() == 2 else input)

    def forward_head(self, features: Tensor) -> Tensor:
        return self.last(features).tanh()

    def init_weights(self, module: nn.Module) -> None:
        """Normal weights of deviation 0.02: section 4."""
        _init(module)


@dataclass(frozen=True, kw_only=True)
class DiscriminatorRow(Row):
    """Section 3. ``num_classes`` is 1, a logit.

    Attributes:
        channels: of the convolutions, each of which halves the sides.
        map_size: (height, width) of the last map, which the linear layer takes.
    """

    task: str = "generation"
    channels: tuple[int, ...] = (128, 256, 512, 1024)
    map_size: tuple[int, int] = (4, 4)
    num_classes: int = 1
    preprocess: Preprocess = _IMAGES

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_channels(self.channels)
        if len(self.map_size) != 2 or min(self.map_size) < 1:
            raise ValueError(f"map_size must be two positive ints, got {self.map_size!r}")


class DCGANDiscriminator(ConvNet):
    """Images (N, 3, 64, 64) in [-1, 1] to a logit (N, 1), positive for those that it takes for real.

    Strided convolutions of 5x5 with leaky ReLUs, with batch norms but in the first, and a linear layer. Features:
    ``layers.0`` (stride 2) ... ``layers.3`` (16).

    Raises:
        ValueError: an input of another size.
    """

    head_names = ("classifier",)
    classifier_path = "classifier"

    def __init__(self, row: DiscriminatorRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        self.row: DiscriminatorRow
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        channels, chain = row.in_channels, []
        self.layers = nn.Sequential()
        for index, width in enumerate(row.channels):
            conv = nn.Conv2d(channels, width, 5, 2, padding=2, bias=index == 0, **factory)
            norm = [nn.BatchNorm2d(width, **factory)] if index else []
            self.layers.append(nn.Sequential(conv, *norm, nn.LeakyReLU(0.2, inplace=True)))
            channels = width
            chain.append(Feature(f"layers.{index}", width, 2 ** (index + 1), (f"layers.{index}",)))
        self.feature_chain = tuple(chain)
        height, width = row.map_size
        self.classifier = nn.Linear(channels * height * width, row.num_classes, **factory)
        self.init_weights(self)

    def forward_head(self, features: Tensor) -> Tensor:
        if tuple(features.shape[2:]) != self.row.map_size:
            raise ValueError(f"the linear layer takes maps of {self.row.map_size}, got {tuple(features.shape[2:])}")
        return self.classifier(features.flatten(1))

    def init_weights(self, module: nn.Module) -> None:
        """Normal weights of deviation 0.02: section 4."""
        _init(module)


_PAPER = "Radford et al., ICLR 2016"

GENERATORS = {"dcgan_generator": GeneratorRow(source=f"{_PAPER}, figure 1")}
DISCRIMINATORS = {
    "dcgan_discriminator": DiscriminatorRow(source=f"{_PAPER}, section 3, with the generator's widths in reverse")
}

register(GENERATORS, DCGANGenerator)
register(DISCRIMINATORS, DCGANDiscriminator)
