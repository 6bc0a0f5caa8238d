"""SqueezeNet: Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters, 2016, table 1, figure 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastcnn.models._net import ConvNet, Feature, Row
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register
from fastcnn.nn.blocks import conv2d
from fastcnn.nn.fused import is_hooked, side_by_side


class Widths(NamedTuple):
    """A fire module's row of table 1: channels of its squeeze layer and of its two expand layers."""

    squeeze: int
    expand1x1: int
    expand3x3: int


@dataclass(frozen=True, kw_only=True)
class SqueezeNetRow(Row):
    """Table 1.

    Attributes:
        stem_channels, stem_kernel: of the first convolution, of stride 2.
        stages: fire modules; before each stage is a max pool.
        bypass: "simple" adds a fire module's input to its output where both have as many channels, "complex" also
            where a 1x1 convolution has to make them so; None adds nothing.
        dropout: before the classifier.
    """

    stages: tuple[tuple[Widths, ...], ...]
    stem_channels: int = 96
    stem_kernel: int = 7
    bypass: str | None = None
    dropout: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bypass not in (None, "simple", "complex"):
            raise ValueError(f"bypass must be 'simple', 'complex' or None, got {self.bypass!r}")


class Fire(nn.Module):
    """1x1 "squeeze" convolution, then 1x1 and 3x3 "expand" convolutions side by side: figure 1. All have biases, ReLU.

    (N, in_channels, H, W) to (N, expand1x1 + expand3x3, H, W). Keys are torchvision's, and ``bypass`` for its 1x1.

    Args:
        bypass: as of :class:`SqueezeNetRow`.
    """

    def __init__(
        self,
        in_channels: int,
        widths: Widths,
        bypass: str | None = None,
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        squeeze, expand1x1, expand3x3 = widths
        out_channels = expand1x1 + expand3x3
        self.squeeze = conv2d(in_channels, squeeze, 1, **factory)
        self.squeeze_activation = nn.ReLU(inplace=True)
        self.expand1x1 = conv2d(squeeze, expand1x1, 1, **factory)
        self.expand1x1_activation = nn.ReLU(inplace=True)
        self.expand3x3 = nn.Conv2d(squeeze, expand3x3, 3, padding=1, **factory)
        self.expand3x3_activation = nn.ReLU(inplace=True)
        self.bypass: nn.Module | None = None
        if bypass is not None and in_channels == out_channels:
            self.bypass = nn.Identity()
        elif bypass == "complex":
            self.bypass = conv2d(in_channels, out_channels, 1, **factory)

    conv_chains = tuple((name, f"{name}_activation") for name in ("squeeze", "expand1x1", "expand3x3"))

    def forward(self, input: Tensor) -> Tensor:
        squeezed = self.squeeze_activation(self.squeeze(input))
        convs = self.expand1x1, self.expand3x3
        activations = self.expand1x1_activation, self.expand3x3_activation
        folded = all(type(layer) is nn.Identity and not is_hooked(layer) for layer in activations)
        out = side_by_side(convs, squeezed) if folded else None
        if out is None:
            expanded = [layer(conv(squeezed)) for layer, conv in zip(activations, convs, strict=True)]
            out = torch.cat(expanded, 1)
        return out if self.bypass is None else out + self.bypass(input)


class SqueezeNet(ConvNet):
    """Keys are torchvision's. Features: ``features.1`` (the stem), and one per fire module, from ``features.3``."""

    head_names = ("classifier",)
    classifier_path = "classifier.1"
    conv_chains = (("features.0", "features.1"), ("classifier.1", "classifier.2"))

    def __init__(self, row: SqueezeNetRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        channels, stride = row.stem_channels, 2
        self.features = nn.Sequential(
            nn.Conv2d(row.in_channels, channels, row.stem_kernel, 2, **factory),
            nn.ReLU(inplace=True),
        )
        chain = [Feature("features.1", channels, stride, ("features.0", "features.1"))]
        for stage in row.stages:
            before: tuple[str, ...] = (f"features.{len(self.features)}",)
            self.features.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            stride *= 2
            for widths in stage:
                name = f"features.{len(self.features)}"
                self.features.append(Fire(channels, widths, row.bypass, **factory))
                channels = widths.expand1x1 + widths.expand3x3
                chain.append(Feature(name, channels, stride, (*before, name)))
                before = ()
        self.feature_chain = tuple(chain)
        self.classifier = nn.Sequential(
            nn.Dropout(row.dropout),
            conv2d(channels, row.num_classes, 1, **factory),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
        )
        self.init_weights(self)

    def forward_head(self, features: Tensor) -> Tensor:
        return self.classifier(features).flatten(1)

    def init_weights(self, module: nn.Module) -> None:
        """As torchvision; a convolution by itself is taken for the classifier."""
        classifier = self.get_submodule(self.classifier_path) if module is self else module
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                if layer is classifier:
                    nn.init.normal_(layer.weight, std=0.01)
                else:
                    nn.init.kaiming_uniform_(layer.weight)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)


_FIRE2, _FIRE4, _FIRE6, _FIRE8 = (Widths(s, e, e) for s, e in ((16, 64), (32, 128), (48, 192), (64, 256)))
_TABLE = ((_FIRE2, _FIRE2, _FIRE4), (_FIRE4, _FIRE6, _FIRE6, _FIRE8), (_FIRE8,))
_EARLY_POOLS = ((_FIRE2, _FIRE2), (_FIRE4, _FIRE4), (_FIRE6, _FIRE6, _FIRE8, _FIRE8))
_PAPER = "Iandola et al., 2016, table 1"
# The sizes of table 1 follow from 227 pixels, not from the 224 that it prints.
_227 = Preprocess(input_size=227, crop_pct=227 / 256)

ROWS = {
    "squeezenet1_1": SqueezeNetRow(
        stages=_EARLY_POOLS,
        stem_channels=64,
        stem_kernel=3,
        source="version 1.1 of the authors' code: earlier pools and a smaller first convolution",
    ),
    "squeezenet1_0": SqueezeNetRow(stages=_TABLE, source=f"{_PAPER}, for 224 pixels as torchvision"),
    "squeezenet": SqueezeNetRow(stages=_TABLE, preprocess=_227, source=_PAPER),
    "squeezenet_simple_bypass": SqueezeNetRow(
        stages=_TABLE, bypass="simple", preprocess=_227, source=f"{_PAPER}; figure 2, middle"
    ),
    "squeezenet_complex_bypass": SqueezeNetRow(
        stages=_TABLE, bypass="complex", preprocess=_227, source=f"{_PAPER}; figure 2, right"
    ),
}

register(ROWS, SqueezeNet)
