"""MnasNet: Tan et al., MnasNet: Platform-Aware Neural Architecture Search for Mobile, CVPR 2019.

``mnasnet_a1`` is figure 7; ``mnasnet1_0`` and the other widths are B1, found without squeeze-excite.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastcnn.models._net import ConvNet, Feature, Row
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register
from fastcnn.models.classification._timm import Blocks, TimmNet, TimmRow
from fastcnn.nn.blocks import ConvSequence, ModuleFactory, conv2d, make_divisible
from fastcnn.nn.init import init_weights


class Stack(NamedTuple):
    """Inverted residuals: kernel size, stride of the first, expansion, output channels, repetitions."""

    kernel_size: int
    stride: int
    expansion: int
    out: int
    repeats: int


B1 = (
    Stack(3, 2, 3, 24, 3),
    Stack(5, 2, 3, 40, 3),
    Stack(5, 2, 6, 80, 3),
    Stack(3, 1, 6, 96, 2),
    Stack(5, 2, 6, 192, 4),
    Stack(3, 1, 6, 320, 1),
)


@dataclass(frozen=True, kw_only=True)
class MnasNetRow(Row):
    """B1 and what it is multiplied by.

    Attributes:
        width_mult: factor on all channels but those of the last convolution, rounded to multiples of 8.
        fixed_stem: the layers before the first stack keep their 32 and 16 channels at any width, as in version 1 of
            torchvision's weights.
        dropout: before the classifier.
    """

    width_mult: float = 1.0
    fixed_stem: bool = False
    dropout: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width_mult <= 0:
            raise ValueError(f"width_mult must be positive, got {self.width_mult}")


class MnasBlock(nn.Module):
    """Inverted residual with ReLU and without activation at its end, with torchvision's keys.

    (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)); adds the input where the shape is
    kept.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        expansion: int,
        *,
        norm: ModuleFactory = nn.BatchNorm2d,
        **factory: Any,
    ) -> None:
        super().__init__()
        options: dict[str, Any] = {"bias": False, **factory}
        width = in_channels * expansion
        self.layers = ConvSequence(
            conv2d(in_channels, width, 1, **options),
            norm(width, **factory),
            nn.ReLU(inplace=True),
            conv2d(width, width, kernel_size, stride, padding=kernel_size // 2, groups=width, **options),
            norm(width, **factory),
            nn.ReLU(inplace=True),
            conv2d(width, out_channels, 1, **options),
            norm(out_channels, **factory),
        )
        self.use_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, input: Tensor) -> Tensor:
        return self.layers(input, input if self.use_shortcut else None)


class MnasNet(ConvNet):
    """Keys are torchvision's.

    Features: ``layers.2`` (the stem), ``layers.7`` (the separable convolution after it), ``layers.8`` ...
    ``layers.13`` (the stacks) and ``layers.16`` (the last convolution).
    """

    head_names = ("avgpool", "classifier")
    classifier_path = "classifier.1"

    def __init__(self, row: MnasNetRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        # Of the state dict, by which torchvision tells the two stems apart.
        self._version = 1 if row.fixed_stem else 2
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        norm = partial(nn.BatchNorm2d, momentum=3e-4)
        stem, channels = (c if row.fixed_stem else make_divisible(c * row.width_mult) for c in (32, 16))
        options: dict[str, Any] = {"bias": False, **factory}
        layers: list[nn.Module] = [
            nn.Conv2d(row.in_channels, stem, 3, 2, padding=1, **options),
            norm(stem, **factory),
            nn.ReLU(inplace=True),
            conv2d(stem, stem, 3, padding=1, groups=stem, **options),
            norm(stem, **factory),
            nn.ReLU(inplace=True),
            conv2d(stem, channels, 1, **options),
            norm(channels, **factory),
        ]
        chain = [
            Feature("layers.2", stem, 2, ("layers.0", "layers.1", "layers.2")),
            Feature("layers.7", channels, 2, tuple(f"layers.{index}" for index in range(3, 8))),
        ]
        stride = 2
        for stack in B1:
            out = make_divisible(stack.out * row.width_mult)
            blocks = nn.Sequential()
            for index in range(stack.repeats):
                step = stack.stride if index == 0 else 1
                blocks.append(MnasBlock(channels, out, stack.kernel_size, step, stack.expansion, norm=norm, **factory))
                channels = out
            stride *= stack.stride
            name = f"layers.{len(layers)}"
            layers.append(blocks)
            chain.append(Feature(name, channels, stride, (name,)))
        layers += [conv2d(channels, 1280, 1, **options), norm(1280, **factory), nn.ReLU(inplace=True)]
        chain.append(Feature("layers.16", 1280, stride, ("layers.14", "layers.15", "layers.16")))
        self.layers = ConvSequence(*layers)
        self.feature_chain = tuple(chain)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(row.dropout), nn.Linear(1280, row.num_classes, **factory))
        self.init_weights(self)

    def forward_head(self, features: Tensor) -> Tensor:
        return self.classifier(self.avgpool(features).flatten(1))

    def init_weights(self, module: nn.Module) -> None:
        # The deviation that torchvision gives a classifier of 1000 classes, 1 / sqrt(classes), for any number.
        init_weights(module, linear_std=1000**-0.5)


_PAPER = "Tan et al., CVPR 2019"
_NEWER = Preprocess(crop_pct=224 / 232)

ROWS = {
    "mnasnet0_5": MnasNetRow(width_mult=0.5, source=f"{_PAPER}, B1; 0.5 times as wide, as torchvision"),
    "mnasnet0_75": MnasNetRow(
        width_mult=0.75, preprocess=_NEWER, source=f"{_PAPER}, B1; 0.75 times as wide, as torchvision"
    ),
    "mnasnet1_0": MnasNetRow(source=f"{_PAPER}, B1, as torchvision"),
    "mnasnet1_3": MnasNetRow(
        width_mult=1.3, preprocess=_NEWER, source=f"{_PAPER}, B1; 1.3 times as wide, as torchvision"
    ),
}

register(ROWS, MnasNet)

TIMM_ROWS = {
    "mnasnet_a1": TimmRow(
        blocks=(
            Blocks("separable", 3, 1, 1, 16, 1),
            Blocks("inverted", 3, 2, 6, 24, 2),
            Blocks("inverted", 5, 2, 3, 40, 3, squeeze_excite=True),
            Blocks("inverted", 3, 2, 6, 80, 4),
            Blocks("inverted", 3, 1, 6, 112, 2, squeeze_excite=True),
            Blocks("inverted", 5, 2, 6, 160, 3, squeeze_excite=True),
            Blocks("inverted", 3, 1, 6, 320, 1),
        ),
        source=f"{_PAPER}, figure 7: A1; keys and weights of timm's semnasnet_100",
    ),
    "mnasnet_small": TimmRow(
        blocks=(
            Blocks("separable", 3, 1, 1, 8, 1),
            Blocks("inverted", 3, 2, 3, 16, 1),
            Blocks("inverted", 3, 2, 6, 16, 2),
            Blocks("inverted", 5, 2, 6, 32, 4, squeeze_excite=True),
            Blocks("inverted", 3, 1, 6, 32, 3, squeeze_excite=True),
            Blocks("inverted", 5, 2, 6, 88, 3, squeeze_excite=True),
            Blocks("inverted", 3, 1, 6, 144, 1),
        ),
        stem=8,
        source=f"{_PAPER}, table 2: the small network, as timm has it from the authors' code",
    ),
}

register(TIMM_ROWS, TimmNet)
