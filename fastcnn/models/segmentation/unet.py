"""U-Net: Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.models._net import ConvNet, Feature, Row
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register
from fastcnn.models.segmentation.tiling import check_sides, predict_tiled
from fastcnn.nn.blocks import ConvSequence, conv2d

GREY = Preprocess(572, crop_pct=1.0, mean=(0.0,), std=(1.0,))


@dataclass(frozen=True, kw_only=True)
class UNetRow(Row):
    """Figure 1.

    Attributes:
        num_classes: with the background, which is class 0.
        width: channels of the first level, doubled with each below.
        depth: poolings.
        padding: of the 3x3 convolutions: 0, as published, or 1, which keeps the image's size, whatever that is.
        batch_norm: whether one follows each 3x3 convolution, which then has no bias unless ``norm_bias``.
        norm_bias: see there.
        early_doubling: whether a level's second convolution doubles the channels already, as 3D U-Net's do.
        up_bias: whether the up-convolutions have biases.
        dropout: in training, on the maps of the two lowest levels, "at the end of the contracting path"; as in the
            authors' network, the upper one's goes into the skip too.
    """

    task: str = "segmentation"
    num_classes: int = 2
    in_channels: int = 1
    preprocess: Preprocess = GREY
    width: int = 64
    depth: int = 4
    padding: int = 0
    batch_norm: bool = False
    norm_bias: bool = False
    early_doubling: bool = False
    up_bias: bool = True
    dropout: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("width", "depth"):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{field} must be an int of at least 1, got {value!r}")
        if self.padding not in (0, 1):
            raise ValueError(f"padding must be 0 or 1, got {self.padding!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}")


class Up(nn.Module):
    """An up-convolution, the skip's map before its result, cropped to one size, and two convolutions.

    ``forward(input, skip)``: (N, in_channels, h, w) and a larger map of the level above. Without padding the skip is
    cropped, in equal parts on all sides; with it the other is, at its end, as odd sides were pooled to half and more.
    """

    def __init__(self, up: nn.Module, convs: nn.Module) -> None:
        super().__init__()
        self.up = up
        self.convs = convs

    def forward(self, input: Tensor, skip: Tensor) -> Tensor:
        input = self.up(input)
        for axis in range(2, input.dim()):
            more = skip.shape[axis] - input.shape[axis]
            if more > 0:
                skip = skip.narrow(axis, more // 2, input.shape[axis])
            elif more < 0:
                input = input.narrow(axis, 0, skip.shape[axis])
        return self.convs(torch.cat((skip, input), 1))  # type: ignore[no-any-return]


class UNet(ConvNet):
    """``net(x)``: (N, C, H, W) to logits (N, num_classes, H', W'). Deterministic in eval mode.

    Without padding only some sides fit, see :func:`~fastcnn.models.segmentation.tiling.input_side`, and the result is
    of the image's middle: 184 pixels less for a depth of 4. :meth:`predict` takes any size, and gives logits of it.
    With padding H' = H and W' = W, from one pixel on: poolings of odd sides round up, and what up-convolutions make
    more is cut off at the end.

    Features: ``down1``, ... of the contracting path, and up again ..., ``up2``, ``up1``. Keys are ours.
    """

    row: Any
    head_names = ("head",)
    classifier_path = "head"

    def __init__(self, row: UNetRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        outputs = [row.width << level + row.early_doubling for level in range(row.depth + 1)]
        channels = row.in_channels
        chain = []
        self.down = nn.ModuleList()
        for level, wide in enumerate(outputs):
            pool: list[nn.Module] = [] if level == 0 else [self._layer("MaxPool")(2, ceil_mode=row.padding == 1)]
            hidden = wide >> row.early_doubling
            drop: list[nn.Module] = [nn.Dropout(row.dropout)] if row.dropout and level >= row.depth - 1 else []
            self.down.append(ConvSequence(*pool, *self._convs(channels, hidden, wide, **factory), *drop))
            channels = wide
            chain.append(Feature(f"down{level + 1}", wide, 1 << level, (f"down.{level}",)))
        self.up = nn.ModuleList()
        for level in reversed(range(row.depth)):
            wide = outputs[level]
            between = channels if row.early_doubling else wide
            up = self._layer("ConvTranspose")(channels, between, 2, 2, bias=row.up_bias, **factory)
            chain.append(Feature(f"up{level + 1}", wide, 1 << level, (f"up.{len(self.up)}",)))
            self.up.append(Up(up, ConvSequence(*self._convs(wide + between, wide, wide, **factory))))
            channels = wide
        self.head = self._conv(channels, row.num_classes, 1, **factory)
        self.feature_chain = tuple(chain)
        self.init_weights(self)

    def _layer(self, kind: str) -> Any:
        return getattr(nn, f"{kind}{self.dims}d")

    def _conv(self, channels: int, outputs: int, kernel_size: int, **options: Any) -> nn.Module:
        make: Any = conv2d if self.dims == 2 else nn.Conv3d
        return make(channels, outputs, kernel_size, **options)  # type: ignore[no-any-return]

    def _convs(self, channels: int, *outputs: int, **factory: Any) -> list[nn.Module]:
        layers: list[nn.Module] = []
        bias = not self.row.batch_norm or self.row.norm_bias
        for wide in outputs:
            layers.append(self._conv(channels, wide, 3, padding=self.row.padding, bias=bias, **factory))
            layers += [self._layer("BatchNorm")(wide, **factory)] if self.row.batch_norm else []
            layers.append(nn.ReLU(inplace=True))
            channels = wide
        return layers

    def forward_stages(self, input: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        check_sides(self, input.shape[2:])
        out: dict[str, Tensor] = {}
        skips: list[Tensor] = []
        for stage in self.feature_chain:
            layer = self.get_submodule(stage.modules[0])
            if isinstance(layer, Up):
                input = layer(input, skips.pop())
            else:
                input = layer(input)
                if stage.stride < 1 << self.row.depth:
                    skips.append(input)
            if stage.name in names:
                out[stage.name] = input
        return out

    def forward_head(self, features: Tensor) -> Tensor:
        return self.head(features)  # type: ignore[no-any-return]

    def predict(self, input: Tensor) -> Tensor:
        """Logits of the image's size, (N, num_classes, H, W): in tiles where the network has no padding.

        See :func:`predict_tiled`, whose default tiles are those of the row's ``preprocess``.
        """
        if self.row.padding == 0:
            return predict_tiled(self, input)
        return self(input)  # type: ignore[no-any-return]

    def init_weights(self, module: nn.Module) -> None:
        """Section 3: normal with variance 2 / N, of N values that one output sums; biases 0."""
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
                # Of an up-convolution, whose kernel is its stride, each output has one tap.
                taps = 1 if isinstance(layer, nn.ConvTranspose2d | nn.ConvTranspose3d) else math.prod(layer.kernel_size)
                nn.init.normal_(layer.weight, std=math.sqrt(2 / (layer.in_channels * taps)))
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


_PAPER = "Ronneberger et al., MICCAI 2015, figure 1"

ROWS = {
    "unet": UNetRow(source=_PAPER),
    "unet_same": UNetRow(padding=1, source=f"{_PAPER}, with padding 1: logits of the image's size"),
    "unet_x0_25": UNetRow(
        padding=1,
        width=16,
        batch_norm=True,
        dropout=0.0,
        in_channels=3,
        preprocess=Preprocess(128, crop_pct=1.0),
        source=f"{_PAPER}, with padding 1 and batch norms, a quarter as wide, for small machines",
    ),
}

register(ROWS, UNet)
