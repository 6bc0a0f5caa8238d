"""Receptive fields, followed through the operators that a network runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from fastcnn.models import ConvNet
from fastcnn.ops._library import kernel_mode
from fastcnn.visualize._layers import check, path_of, watch

aten, ours = torch.ops.aten, torch.ops.fastcnn


class Axis(NamedTuple):
    """Cell ``i`` along an axis depends on the pixels from ``i * stride + first`` to ``i * stride + last``."""

    stride: int = 1
    first: float = 0
    last: float = 0

    def window(self, kernel: int, stride: int, padding: int, dilation: int = 1) -> Axis:
        first = self.first - self.stride * padding
        return Axis(self.stride * stride, first, self.last + self.stride * (dilation * (kernel - 1) - padding))

    def shifted(self, cells: int, step: int = 1) -> Axis:
        """Of the cells from ``cells`` on, each ``step``-th."""
        move = self.stride * cells
        return Axis(self.stride * step, self.first + move, self.last + move)


EVERYTHING = Axis(1, -math.inf, math.inf)


class ReceptiveField(NamedTuple):
    """Of the cells of a map: :class:`Axis` down and across."""

    down: Axis
    across: Axis

    @property
    def size(self) -> tuple[float, float]:
        """Height and width in pixels, before borders cut any off; infinite where cells see the whole image."""
        return self.down.last - self.down.first + 1, self.across.last - self.across.first + 1

    def box(self, row: int, column: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """The corners (x1, y1, x2, y2) of a cell's field, the last pixel excluded, cut off at an image of ``size``."""
        (top, bottom), (left, right) = (
            (max(at * axis.stride + axis.first, 0), min(at * axis.stride + axis.last + 1, limit))
            for at, axis, limit in zip((row, column), (self.down, self.across), size, strict=True)
        )
        return int(left), int(top), int(right), int(bottom)


def receptive_field(net: ConvNet, layer: str | None = None, size: tuple[int, int] | None = None) -> ReceptiveField:
    """What the cells of a layer's map can depend on, exactly, whatever the weights are: of all paths the widest. One
    that leads through a mean of the whole map, as in squeeze-and-excitation, sees everything.

    Args:
        net: in eval mode and not fused.
        layer: a feature's name or a module's path; None is the last feature.
        size: height and width of the input that is run; None is the size of ``net.preprocess``.

    Raises:
        ValueError: training mode, a fused network, an unknown layer, or an operator whose field is not known.
    """
    check(net)
    if net.is_fused:
        raise ValueError("receptive fields are of networks that are not fused")
    path, side = path_of(net, layer), net.preprocess.input_size
    parameter = next(net.parameters())
    input = parameter.new_zeros(1, net.in_channels, *(size or (side, side)))

    def see(output: Tensor) -> None:
        raise _Reached(follow.of(output))  # What comes after may not take the size, or have no field.

    try:  # In any other mode a reference would run in an op's place, whose steps are not all known below.
        with torch.no_grad(), kernel_mode(), watch(net.get_submodule(path), see), _Follow(input) as follow:
            net(input)
    except _Reached as reached:
        return reached.field
    raise ValueError(f"{path} is not run by this {type(net).__name__}")


class _Reached(Exception):
    def __init__(self, field: ReceptiveField) -> None:
        self.field = field


class _Follow(TorchDispatchMode):
    """Knows the field of every tensor that comes from ``input``."""

    def __init__(self, input: Tensor) -> None:
        super().__init__()
        self.fields = WeakTensorKeyDictionary({input: ReceptiveField(Axis(), Axis())})

    def of(self, output: Tensor) -> ReceptiveField:
        if output not in self.fields:
            raise ValueError("a layer whose map does not come from the input has no receptive field")
        return self.fields[output]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [t for a in (*args, *kwargs.values()) for t in (a if isinstance(a, list | tuple) else [a])]
        sources = [t for t in tensors if isinstance(t, Tensor) and t in self.fields]
        output = func(*args, **kwargs)
        if sources:
            first = output[0] if isinstance(output, list | tuple) else output
            field = _union([self.fields[t] for t in sources], func)
            self.fields[first] = _after(func, args, field, sources[0], first)
            for other in output[1:] if isinstance(output, list | tuple) else ():
                if isinstance(other, Tensor):
                    self.fields[other] = self.fields[first]
        return output


def _union(fields: Sequence[ReceptiveField], func: Any) -> ReceptiveField:
    axes = []
    for each in zip(*fields, strict=True):
        finite = [axis for axis in each if axis != EVERYTHING]
        if len(finite) < len(each):
            axes.append(EVERYTHING)
        elif len({axis.stride for axis in finite}) > 1:
            raise ValueError(f"the receptive field through {func} of maps of other strides is not known")
        else:
            axes.append(Axis(finite[0].stride, min(a.first for a in finite), max(a.last for a in finite)))
    return ReceptiveField(*axes)


def _two(values: Any, otherwise: Sequence[int] = (1, 1)) -> Sequence[int]:
    values = [values] if isinstance(values, int) else list(values)
    return values * 2 if len(values) == 1 else values or list(otherwise)


def _windows(args: Sequence[Any], kernel: Sequence[int], start: int, field: ReceptiveField) -> ReceptiveField:
    """Of an operator whose stride, padding and dilation begin at argument ``start``."""
    given = args[start : start + 3]
    given = (*given, *([], 0, 1)[len(given) :])
    stride, padding, dilation = _two(given[0], kernel), _two(given[1]), _two(given[2])
    windows = zip(field, kernel, stride, padding, dilation, strict=True)
    return ReceptiveField(*(axis.window(*numbers) for axis, *numbers in windows))


def _after(func: Any, args: Any, field: ReceptiveField, source: Tensor, output: Tensor) -> ReceptiveField:
    kind = func.overloadpacket
    if (kind == aten.convolution and not args[6]) or kind == ours.grouped_conv2d_shuffle:
        return _windows(args, args[1].shape[2:], 3, field)
    if kind == ours.depthwise_conv2d:
        above, _, left, _ = args[4]
        return _windows((*args[:4], (above, left), args[5]), args[1].shape[2:], 3, field)
    if kind in (ours.squeeze_excite, ours.channel_means):
        return ReceptiveField(EVERYTHING, EVERYTHING)
    if kind in (aten.max_pool2d_with_indices, aten.max_pool2d):
        return _windows(args, _two(args[1]), 2, field)
    if kind == aten.avg_pool2d:
        return _windows(args[:4], _two(args[1]), 2, field)
    if kind == aten.constant_pad_nd:
        left, _, top, _ = [*args[1], 0, 0, 0, 0][:4]
        return ReceptiveField(field.down.shifted(-top), field.across.shifted(-left))
    if kind == aten.slice and args[1] % source.dim() >= source.dim() - 2:
        start, step = (args[2] or 0) if len(args) > 2 else 0, args[4] if len(args) > 4 else 1
        moved = [axis.shifted(start % source.size(args[1]) if start < 0 else start, step) for axis in field]
        is_down = args[1] % source.dim() == source.dim() - 2
        return ReceptiveField(moved[0], field.across) if is_down else ReceptiveField(field.down, moved[1])
    if kind in (aten.mean, aten._adaptive_avg_pool2d, aten.adaptive_max_pool2d, aten.amax):
        if output.shape[-2:] == (1, 1) or output.dim() < 4:
            return ReceptiveField(EVERYTHING, EVERYTHING)
    elif output.shape[-2:] == source.shape[-2:] or field == (EVERYTHING, EVERYTHING):
        return field
    raise ValueError(f"the receptive field through {func} is not known")
