"""Mobile networks that are a table of blocks, with timm's keys."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastcnn.models._net import Feature, Row
from fastcnn.models._pooled import PooledNet
from fastcnn.models._preprocess import BICUBIC, Preprocess
from fastcnn.nn.blocks import ConvSequence, ModuleFactory, SqueezeExcite, conv2d
from fastcnn.nn.init import init_weights


class Blocks(NamedTuple):
    """Blocks of one kind, one after the other.

    ``kind``: "separable" (depthwise, 1x1), "inverted" (1x1 expansion, depthwise, 1x1) or "fused" (an expanding
    convolution of the kernel's size, 1x1). The first block has the stride. ``squeeze_excite``: with hidden channels
    a quarter of the block's inputs.
    """

    kind: str
    kernel_size: int
    stride: int
    expansion: int
    out: int
    repeats: int
    squeeze_excite: bool = False


@dataclass(frozen=True, kw_only=True)
class TimmRow(Row):
    """A table of blocks.

    Attributes:
        blocks: the table.
        stem, head: channels of the first and the last convolution.
        act: after every convolution but a block's last.
        dropout: before the classifier.
    """

    blocks: tuple[Blocks, ...]
    stem: int = 32
    head: int = 1280
    act: ModuleFactory = nn.ReLU
    dropout: float = 0.0
    preprocess: Preprocess = BICUBIC

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.dropout <= 1:
            raise ValueError(f"dropout must be between 0 and 1, got {self.dropout}")


class TimmSqueezeExcite(SqueezeExcite):
    """:class:`fastcnn.nn.SqueezeExcite` with timm's keys ``conv_reduce`` and ``conv_expand``."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for ours, theirs in (("fc1", "conv_reduce"), ("fc2", "conv_expand")):
            self.add_module(theirs, self._modules.pop(ours))

    @property
    def fc1(self) -> nn.Conv2d:  # type: ignore[override]
        return self._modules["conv_reduce"]  # type: ignore[return-value]

    @property
    def fc2(self) -> nn.Conv2d:  # type: ignore[override]
        return self._modules["conv_expand"]  # type: ignore[return-value]


class TimmBlock(ConvSequence):
    """A block of the table: (N, channels, H, W) to (N, out, ceil(H / stride), ceil(W / stride)).

    Linear at its end; adds the input where the shape is kept.
    """

    def __init__(self, channels: int, table: Blocks, stride: int, act: ModuleFactory, **factory: Any) -> None:
        width, kernel = channels * table.expansion, table.kernel_size
        options: dict[str, Any] = {"bias": False, **factory}
        same: dict[str, Any] = {"padding": kernel // 2, **options}
        convs: dict[str, nn.Conv2d] = {}
        if table.kind == "fused":
            convs["conv_exp"] = nn.Conv2d(channels, width, kernel, stride, **same)
        else:
            if table.kind == "inverted":
                convs["conv_pw"] = conv2d(channels, width, 1, **options)
            convs["conv_dw"] = conv2d(width, width, kernel, stride, groups=width, **same)
        spatial = next(reversed(convs))
        convs["conv_pw" if table.kind == "separable" else "conv_pwl"] = conv2d(width, table.out, 1, **options)
        layers: dict[str, nn.Module] = {}
        for index, (name, conv) in enumerate(convs.items(), 1):
            layers[name] = conv
            layers[f"bn{index}"] = nn.BatchNorm2d(conv.out_channels, **factory)
            if index < len(convs):
                layers[f"act{index}"] = act(inplace=True)
            if name == spatial and table.squeeze_excite:
                layers["se"] = TimmSqueezeExcite(width, round(channels / 4), act=act, **factory)
        super().__init__(OrderedDict(layers))
        self.use_shortcut = stride == 1 and channels == table.out

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(input, input if self.use_shortcut else None)


class TimmNet(PooledNet):
    """Keys are timm's. Features: ``stem``, ``blocks.0`` ..., one per row of the table, and ``head``."""

    head_names = ("global_pool", "dropout", "classifier")
    classifier_path = "classifier"
    conv_chains = (("conv_stem", "bn1", "act1"), ("conv_head", "bn2", "act2"))

    def __init__(self, row: TimmRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        channels, stride = row.stem, 2
        self.conv_stem = nn.Conv2d(row.in_channels, channels, 3, 2, padding=1, bias=False, **factory)
        self.bn1 = nn.BatchNorm2d(channels, **factory)
        self.act1 = row.act(inplace=True)
        chain = [Feature("stem", channels, stride, ("conv_stem", "bn1", "act1"))]
        self.blocks = nn.Sequential()
        for table in row.blocks:
            blocks = nn.Sequential()
            for index in range(table.repeats):
                step = table.stride if index == 0 else 1
                blocks.append(TimmBlock(channels, table, step, row.act, **factory))
                channels = table.out
            stride *= table.stride
            name = f"blocks.{len(self.blocks)}"
            self.blocks.append(blocks)
            chain.append(Feature(name, channels, stride, (name,)))
        self.conv_head = conv2d(channels, row.head, 1, bias=False, **factory)
        self.bn2 = nn.BatchNorm2d(row.head, **factory)
        self.act2 = row.act(inplace=True)
        chain.append(Feature("head", row.head, stride, ("conv_head", "bn2", "act2")))
        self.feature_chain = tuple(chain)
        self.add_head(row.head, row.dropout, **factory)
        self.init_weights(self)

    def init_weights(self, module: nn.Module) -> None:
        # The deviation that timm gives a classifier of 1000 classes, 1 / sqrt(3 * classes), for any number.
        init_weights(module, linear_std=3000**-0.5, per_group=True)
