"""Cells of searched networks (NASNet, PNASNet, AmoebaNet): tables of nodes, each the sum of two operations."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcnn.nn.blocks import ConvSequence, Size, _pair, conv2d
from fastcnn.nn.same import SamePool2d, conv2d_same, run_same

EPS = 1e-3


class ActConvNorm(nn.Module):
    """ReLU, convolution, batch norm: (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)).

    Source: Zoph et al., Learning Transferable Architectures, CVPR 2018, appendix A.4.
    """

    conv_chains = (("conv", "bn"),)

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size = 1, stride: Size = 1, **factory: Any
    ) -> None:
        super().__init__()
        self.act = nn.ReLU()
        self.conv = conv2d_same(in_channels, out_channels, kernel_size, stride, **factory)
        self.bn = nn.BatchNorm2d(out_channels, eps=EPS, **factory)

    def forward(self, input: Tensor) -> Tensor:
        return self.bn(run_same(self.conv, self.act(input)))


class SeparableConv2d(nn.Module):
    """A depthwise convolution by fastcnn's kernels, and a 1x1 at once. Shapes as :class:`ActConvNorm`."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, dilation: int = 1, **factory: Any
    ) -> None:
        super().__init__()
        options: dict[str, Any] = {"groups": in_channels, **factory}
        self.depthwise_conv2d = conv2d_same(in_channels, in_channels, kernel_size, stride, dilation, **options)
        self.pointwise_conv2d = conv2d(in_channels, out_channels, 1, bias=False, **factory)

    def forward(self, input: Tensor) -> Tensor:
        return self.pointwise_conv2d(run_same(self.depthwise_conv2d, input))


class SeparableBranch(nn.Module):
    """ReLU, separable convolution, batch norm, twice; the stride is in the first. Shapes as :class:`ActConvNorm`.

    Source: Zoph et al., Learning Transferable Architectures, CVPR 2018, appendix A.4.
    """

    conv_chains = (
        ("separable_1.pointwise_conv2d", "bn_sep_1"),
        ("separable_2.pointwise_conv2d", "bn_sep_2"),
    )

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, dilation: int = 1, **factory: Any
    ) -> None:
        super().__init__()
        self.act_1 = nn.ReLU()
        self.separable_1 = SeparableConv2d(in_channels, out_channels, kernel_size, stride, dilation, **factory)
        self.bn_sep_1 = nn.BatchNorm2d(out_channels, eps=EPS, **factory)
        self.act_2 = nn.ReLU(inplace=True)
        self.separable_2 = SeparableConv2d(out_channels, out_channels, kernel_size, dilation=dilation, **factory)
        self.bn_sep_2 = nn.BatchNorm2d(out_channels, eps=EPS, **factory)

    def forward(self, input: Tensor) -> Tensor:
        out = self.bn_sep_1(self.separable_1(self.act_1(input)))
        return self.bn_sep_2(self.separable_2(self.act_2(out)))


def add_factorized_reduction(parent: nn.Module, in_channels: int, out_channels: int, **factory: Any) -> None:
    """Gives ``parent`` the children ``path_1``, ``path_2`` and ``final_path_bn`` of :func:`factorized_reduction`."""
    half = out_channels // 2
    for name, width in (("path_1", half), ("path_2", out_channels - half)):
        conv = nn.Conv2d(in_channels, width, 1, 2, bias=False, **factory)
        parent.add_module(name, nn.Sequential(OrderedDict(conv=conv)))
    parent.add_module("final_path_bn", nn.BatchNorm2d(out_channels, eps=EPS, **factory))


def factorized_reduction(parent: Any, input: Tensor) -> Tensor:
    """Halves a map: 1x1 convolutions of its even and of its odd pixels, concatenated; then batch norm.

    (N, in_channels, H, W) to (N, out_channels, ceil(H / 2), ceil(W / 2)); the odd pixels end with a zero where needed.
    """
    shifted = F.pad(input, (-1, 1, -1, 1))
    return parent.final_path_bn(torch.cat([parent.path_1(input), parent.path_2(shifted)], 1))


class FactorizedReduction(nn.Module):
    """:func:`factorized_reduction` as a module, after a ReLU where ``act``."""

    def __init__(self, in_channels: int, out_channels: int, *, act: bool = True, **factory: Any) -> None:
        super().__init__()
        self.act = nn.ReLU() if act else None
        add_factorized_reduction(self, in_channels, out_channels, **factory)

    def forward(self, input: Tensor) -> Tensor:
        return factorized_reduction(self, input if self.act is None else self.act(input))


class Operation(Protocol):
    """An entry of a table of nodes."""

    def build(self, in_channels: int, out_channels: int, stride: int, **factory: Any) -> nn.Module: ...


@dataclass(frozen=True)
class Separable:
    """A :class:`SeparableBranch`."""

    kernel_size: int
    dilation: int = 1

    def build(self, in_channels: int, out_channels: int, stride: int, **factory: Any) -> nn.Module:
        return SeparableBranch(in_channels, out_channels, self.kernel_size, stride, self.dilation, **factory)


@dataclass(frozen=True)
class Conv:
    """An :class:`ActConvNorm` for each kernel, the stride in the first that is wide in its direction.

    Several, or one larger than 1x1, run on a quarter of the channels, between 1x1 convolutions.
    """

    kernels: tuple[Size, ...] = (1,)

    def build(self, in_channels: int, out_channels: int, stride: int, **factory: Any) -> nn.Module:
        if self.kernels == (1,):
            return ActConvNorm(in_channels, out_channels, 1, stride, **factory)
        width = max(1, out_channels // 4)
        layers = nn.Sequential(ActConvNorm(in_channels, width, **factory))
        for kernel in self.kernels:
            height, length = (stride if side > 1 else 1 for side in _pair(kernel))
            layers.append(ActConvNorm(width, width, kernel, (height, length) if stride > 1 else 1, **factory))
        return layers.append(ActConvNorm(width, out_channels, **factory))


@dataclass(frozen=True)
class Pool:
    """A max or average pooling, with a 1x1 convolution and batch norm after it where channels change."""

    average: bool
    kernel_size: int = 3
    count_zeros: bool = False

    def build(self, in_channels: int, out_channels: int, stride: int, **factory: Any) -> nn.Module:
        size, padding = self.kernel_size, self.kernel_size // 2
        pool: nn.Module
        if stride > 1 or size % 2 == 0:
            pool = SamePool2d(size, stride, average=self.average, count_zeros=self.count_zeros)
        elif self.average:
            pool = nn.AvgPool2d(size, stride, padding, count_include_pad=False)
        else:
            pool = nn.MaxPool2d(size, stride, padding)
        if in_channels == out_channels:
            return pool
        conv = conv2d(in_channels, out_channels, 1, bias=False, **factory)
        norm = nn.BatchNorm2d(out_channels, eps=EPS, **factory)
        return ConvSequence(OrderedDict(pool=pool, conv=conv, bn=norm))


@dataclass(frozen=True)
class Identity:
    """The state itself; an :class:`ActConvNorm` of 1x1 where shape changes."""

    def build(self, in_channels: int, out_channels: int, stride: int, **factory: Any) -> nn.Module:
        if stride == 1 and in_channels == out_channels:
            return nn.Identity()
        return ActConvNorm(in_channels, out_channels, 1, stride, **factory)


IDENTITY, CONV1, MAX, AVERAGE = Identity(), Conv(), Pool(average=False), Pool(average=True)
SEP3, SEP5, SEP7 = Separable(3), Separable(5), Separable(7)

Operand = tuple[Operation, int]


class CellTable(NamedTuple):
    """A cell of two inputs.

    Attributes:
        nodes: pairs of (operation, number of a state), whose sum is the next state. States 0 and 1 are the outputs of
            the cell before and of the one before that, brought to the cell's width; nodes are 2, 3, ...
        outputs: states whose channels are concatenated.
    """

    nodes: tuple[tuple[Operand, Operand], ...]
    outputs: tuple[int, ...]


class Cell(nn.Module):
    """A cell: two maps to (N, len(outputs) * filters, ceil(H / stride), ceil(W / stride)).

    Operation i, left and right, is ``comb_iter_<i>_left`` and ``comb_iter_<i>_right``, ``conv_1x1`` makes state 0 and
    ``conv_prev_1x1`` state 1. Only operations on these two have the stride. Source: Zoph et al., CVPR 2018, section 3.

    Args:
        in_channels, previous_channels: of the two maps; None for the first cell, whose state 1 is its input as it is.
        filters: channels of every operation.
        halve_previous: the map before has twice the size; see :func:`factorized_reduction`.
    """

    def __init__(
        self,
        table: CellTable,
        in_channels: int,
        previous_channels: int | None,
        filters: int,
        *,
        stride: int = 1,
        halve_previous: bool = False,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.table, self.out_channels = table, len(table.outputs) * filters
        self.add_inputs(in_channels, previous_channels, filters, halve_previous, **factory)
        channels = [filters, in_channels if previous_channels is None else filters]
        for index, node in enumerate(table.nodes):
            for side, (operation, state) in zip(("left", "right"), node, strict=True):
                module = operation.build(channels[state], filters, stride if state < 2 else 1, **factory)
                self.add_module(f"comb_iter_{index}_{side}", module)
            channels.append(filters)
        self.reductions = {state: f"reduction_{state}" for state in table.outputs if state < 2 and stride > 1}
        for state, name in self.reductions.items():
            self.add_module(name, FactorizedReduction(channels[state], filters, act=False, **factory))

    def add_inputs(self, channels: int, previous: int | None, filters: int, halve: bool, **factory: Any) -> None:
        if previous is not None:
            project: Any = FactorizedReduction if halve else ActConvNorm
            self.conv_prev_1x1 = project(previous, filters, **factory)
        self.conv_1x1 = ActConvNorm(channels, filters, **factory)

    def project_previous(self, previous: Tensor) -> Tensor:
        return self.conv_prev_1x1(previous)

    def forward(self, input: Tensor, previous: Tensor | None) -> Tensor:
        states = [self.conv_1x1(input), input if previous is None else self.project_previous(previous)]
        for index, ((_, left), (_, right)) in enumerate(self.table.nodes):
            sides = (getattr(self, f"comb_iter_{index}_{side}") for side in ("left", "right"))
            first, second = (module(states[state]) for module, state in zip(sides, (left, right), strict=True))
            states.append(first + second)
        outputs = (
            getattr(self, self.reductions[state])(states[state]) if state in self.reductions else states[state]
            for state in self.table.outputs
        )
        return torch.cat(list(outputs), 1)
