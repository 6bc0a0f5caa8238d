"""Xception: Chollet, Xception: Deep Learning with Depthwise Separable Convolutions, CVPR 2017, figure 5."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastcnn.models._net import Feature, Row
from fastcnn.models._pooled import PooledNet
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register
from fastcnn.nn.blocks import ConvSequence, conv2d
from fastcnn.nn.init import init_weights
from fastcnn.nn.norms import run_in_turn


class Block(NamedTuple):
    """A residual module of figure 5: output channels of its separable convolutions, and its stride."""

    widths: tuple[int, ...]
    stride: int = 1


class SeparableConv2d(ConvSequence):
    """A depthwise 3x3 convolution by fastcnn's kernels and a 1x1, with nothing in between.

    (N, in_channels, H, W) to (N, out_channels, H, W). Source: section 2 of the paper.
    """

    def __init__(self, in_channels: int, out_channels: int, **factory: Any) -> None:
        depthwise = conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False, **factory)
        pointwise = conv2d(in_channels, out_channels, 1, bias=False, **factory)
        super().__init__(OrderedDict(conv1=depthwise, pointwise=pointwise))


class SeparableStack(nn.Sequential):
    """ReLU, separable convolution, batch norm for every width; then the max pool of a stride.

    ``begin_with_relu=False`` leaves out the first ReLU, which is not in place: a shortcut needs its input.
    """

    def __init__(self, in_channels: int, block: Block, *, begin_with_relu: bool, **factory: Any) -> None:
        super().__init__()
        pairs = []
        for index, width in enumerate(block.widths):
            if index > 0 or begin_with_relu:
                self.append(nn.ReLU(inplace=index > 0))
            # The next ReLU too, if there is one.
            pairs.append((f"{len(self)}.pointwise", str(len(self) + 1), str(len(self) + 2)))
            self.extend([SeparableConv2d(in_channels, width, **factory), nn.BatchNorm2d(width, **factory)])
            in_channels = width
        if block.stride > 1:
            self.append(nn.MaxPool2d(3, block.stride, padding=1))
        self.conv_chains = tuple(pairs)

    def forward(self, input: Tensor) -> Tensor:
        return run_in_turn(self, input)


class XceptionBlock(nn.Module):
    """A stack of separable convolutions and a shortcut: a 1x1 convolution where stride or channels change.

    (N, in_channels, H, W) to (N, widths[-1], ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, in_channels: int, block: Block, *, begin_with_relu: bool, **factory: Any) -> None:
        super().__init__()
        out_channels = block.widths[-1]
        self.projects = block.stride != 1 or in_channels != out_channels
        if self.projects:
            self.skip = nn.Conv2d(in_channels, out_channels, 1, block.stride, bias=False, **factory)
            self.skipbn = nn.BatchNorm2d(out_channels, **factory)
            self.conv_chains = (("skip", "skipbn"),)
        self.rep = SeparableStack(in_channels, block, begin_with_relu=begin_with_relu, **factory)

    def forward(self, input: Tensor) -> Tensor:
        out = self.rep(input)
        out += self.skipbn(self.skip(input)) if self.projects else input
        return out


_PREPROCESS = Preprocess(299, 0.8975, "bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@dataclass(frozen=True, kw_only=True)
class XceptionRow(Row):
    """Figure 5.

    Attributes:
        blocks: its residual modules.
        exit: widths of the two separable convolutions after them.
        dropout: before the classifier.
    """

    blocks: tuple[Block, ...]
    exit: tuple[int, int] = (1536, 2048)
    dropout: float = 0.5
    preprocess: Preprocess = field(default=_PREPROCESS)

    def __post_init__(self) -> None:
        super().__post_init__()
        for block in self.blocks:
            if not block.widths or block.stride < 1:
                raise ValueError(f"a block needs widths and a positive stride, got {block}")


class Xception(PooledNet):
    """Keys are timm's of ``legacy_xception``. Features: ``stem``, ``block1`` ... ``block12``, ``exit``.

    A block's map is what it adds up, before the ReLU that the next one begins with.
    """

    conv_chains = (
        ("conv1", "bn1", "act1"),
        ("conv2", "bn2", "act2"),
        ("conv3.pointwise", "bn3", "act3"),
        ("conv4.pointwise", "bn4", "act4"),
    )

    def __init__(self, row: XceptionRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        channels, stride = 64, 2
        self.conv1 = nn.Conv2d(row.in_channels, 32, 3, 2, bias=False, **factory)
        self.bn1 = nn.BatchNorm2d(32, **factory)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(32, channels, 3, bias=False, **factory)
        self.bn2 = nn.BatchNorm2d(channels, **factory)
        self.act2 = nn.ReLU(inplace=True)
        chain = [Feature("stem", channels, stride, ("conv1", "bn1", "act1", "conv2", "bn2", "act2"))]
        for index, block in enumerate(row.blocks, 1):
            name = f"block{index}"
            self.add_module(name, XceptionBlock(channels, block, begin_with_relu=index > 1, **factory))
            channels, stride = block.widths[-1], stride * block.stride
            chain.append(Feature(name, channels, stride, (name,)))
        for index, width in enumerate(row.exit, 3):
            self.add_module(f"conv{index}", SeparableConv2d(channels, width, **factory))
            self.add_module(f"bn{index}", nn.BatchNorm2d(width, **factory))
            self.add_module(f"act{index}", nn.ReLU(inplace=True))
            channels = width
        modules = ("conv3", "bn3", "act3", "conv4", "bn4", "act4")
        self.feature_chain = (*chain, Feature("exit", channels, stride, modules))
        self.add_head(channels, row.dropout, **factory)
        self.init_weights(self)

    def init_weights(self, module: nn.Module) -> None:
        init_weights(module)


ROWS = {
    "xception": XceptionRow(
        blocks=(
            Block((128, 128), 2),
            Block((256, 256), 2),
            Block((728, 728), 2),
            *[Block((728, 728, 728))] * 8,
            Block((728, 1024), 2),
        ),
        source="Chollet, CVPR 2017, figure 5",
    ),
}

register(ROWS, Xception)
