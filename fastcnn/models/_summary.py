"""Counts parameters and multiply-adds of a network, and traces its shapes, on ``meta``."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from fastcnn.models._net import ConvNet
from fastcnn.models._registry import create
from fastcnn.ops import _library

InputSize = int | Sequence[int]

# A multiply-add is two FLOPs in these; the FLOPs of any other op that has a formula are not multiply-adds.
MAC_OPS = {"convolution", "_convolution", "mm", "addmm", "bmm", "baddbmm"}
MAC_OPS |= {"depthwise_conv2d", "grouped_conv2d_shuffle"}


@dataclass(frozen=True)
class Layer:
    """One call of a leaf module; its parameters are 0 where it is called again."""

    path: str
    type: str
    output_shape: tuple[int, ...]
    params: int
    macs: int


@dataclass(frozen=True)
class Summary:
    """What :func:`summary` found; ``print`` it for a table.

    Attributes:
        name: of the network.
        input_shape: (1, C, H, W), or (1, C, D, H, W) of volumes, that the counts are for.
        layers: the leaf modules in the order they ran.
        params: weights, biases and norm parameters.
        params_with_bn_stats: ``params`` plus batch norms' running means and variances.
        weights_only: weights of convolutions and linear layers, no biases, no norms.
        macs: multiply-adds of convolutions and linear layers.
        flops: every FLOP that PyTorch's counter has a formula for, our ops included.
    """

    name: str
    input_shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    params: int
    params_with_bn_stats: int
    weights_only: int
    macs: int
    flops: int

    def __str__(self) -> str:
        head = ("layer", "type", "output", "params", "MACs")
        rows = [
            (x.path, x.type, "x".join(map(str, x.output_shape)), f"{x.params:,}", f"{x.macs:,}") for x in self.layers
        ]
        widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
        align = "<<>>>"
        lines = [
            "  ".join(f"{cell:{a}{w}}" for cell, a, w in zip(row, align, widths, strict=True)).rstrip()
            for row in (head, *rows)
        ]
        shape = "x".join(map(str, self.input_shape))
        totals = [
            f"{self.name}, input {shape}",
            f"parameters {self.params:,} (with batch-norm statistics {self.params_with_bn_stats:,}, "
            f"weights only {self.weights_only:,})",
            f"multiply-adds {self.macs:,}",
        ]
        return "\n".join([*lines, "", *totals])


def count_params(model: nn.Module, trainable: bool = True, include_bn_stats: bool = False) -> int:
    """Number of parameters: those that require a gradient, or all where ``trainable`` is False.

    ``include_bn_stats`` adds batch norms' running means and variances, as Keras' tables do.
    """
    params = sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)
    if include_bn_stats:
        norms = (m for m in model.modules() if isinstance(m, _BatchNorm))
        params += sum(s.numel() for m in norms for s in (m.running_mean, m.running_var) if s is not None)
    return params


def count_weights_only(model: nn.Module) -> int:
    """Number of weights of convolutions and linear layers: no biases, no norms."""
    weights = {m.weight for m in model.modules() if isinstance(m, _ConvNd | nn.Linear)}
    return sum(weight.numel() for weight in weights)


def count_macs(model: str | nn.Module, input_size: InputSize | None = None) -> int:
    """Multiply-adds of one image in convolutions and linear layers; arguments of :func:`summary`."""
    return summary(model, input_size).macs


def trace_shapes(model: str | nn.Module, input_size: InputSize | None = None) -> list[tuple[str, tuple[int, ...]]]:
    """(path, output shape) of every leaf module in the order they run; arguments of :func:`summary`."""
    return [(layer.path, layer.output_shape) for layer in summary(model, input_size).layers]


def summary(model: str | nn.Module, input_size: InputSize | None = None) -> Summary:
    """Layers, shapes, parameters and multiply-adds of a network, for one image, in eval mode.

    Args:
        model: a name for :func:`fastcnn.models.create`, or any module that takes one tensor; it is not
            changed.
        input_size: side of a square image, (height, width), or (channels, height, width), of volumes with the depth
            before the height; a network of this library knows its own.

    Raises:
        ValueError: an unknown name; a module that does not say its input size; a size that is not positive.
    """
    name = model if isinstance(model, str) else type(model).__name__
    net = create(model, device="meta").eval() if isinstance(model, str) else on_meta(model)
    shape = _input_shape(net, input_size)
    dtype = next((p.dtype for p in net.parameters()), torch.float32)
    layers: list[Layer] = []
    seen: set[nn.Module] = set()
    counter = _library.flop_counter()
    macs_before = 0

    def enter(module: nn.Module, args: Any) -> None:
        nonlocal macs_before
        macs_before = _macs(counter)

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        params = 0 if module in seen else sum(p.numel() for p in module.parameters())
        seen.add(module)
        output_shape = tuple(output.shape) if isinstance(output, Tensor) else ()
        macs = _macs(counter) - macs_before
        layers.append(Layer(paths[module], type(module).__name__, output_shape, params, macs))

    paths = {module: path for path, module in net.named_modules() if not any(module.children())}
    for module in paths:
        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)
    run: Any = net
    if isinstance(net, ConvNet):
        run = net.forward_layers
        # On meta PyTorch makes ten operators of one, which take most of the time and count for nothing.
        norms: list[Any] = [module for module in net.modules() if type(module) in (nn.BatchNorm2d, nn.BatchNorm3d)]
        for norm in norms:
            norm.forward = torch.empty_like
    with torch.no_grad(), counter:
        run(torch.empty(shape, dtype=dtype, device="meta"))
    return Summary(
        name=name,
        input_shape=shape,
        layers=tuple(layers),
        params=count_params(net, trainable=False),
        params_with_bn_stats=count_params(net, trainable=False, include_bn_stats=True),
        weights_only=count_weights_only(net),
        macs=_macs(counter),
        flops=counter.get_total_flops(),
    )


def on_meta(model: nn.Module) -> nn.Module:
    """A copy in eval mode whose tensors are on meta."""
    # Mapping every tensor in the memo makes deepcopy take the meta twin, so no weight is copied.
    memo: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in model.parameters()
    }
    memo.update((id(b), torch.empty_like(b, device="meta")) for b in model.buffers())
    return copy.deepcopy(model, memo).eval()


def _input_shape(model: nn.Module, size: InputSize | None) -> tuple[int, ...]:
    if size is None:
        if not isinstance(model, ConvNet):
            raise ValueError(f"summary of a {type(model).__name__} needs input_size=(channels, height, width)")
        size = model.input_sides
    dims = model.dims if isinstance(model, ConvNet) else 2
    sides = (size,) * dims if isinstance(size, int) else tuple(size)
    if len(sides) == dims and isinstance(model, ConvNet):
        sides = (model.in_channels, *sides)
    if len(sides) <= dims or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f"input_size must be (channels, height, width), positive ints, got {size!r}")
    return (1, *sides)


def _macs(counter: Any) -> int:
    counts = counter.flop_counts.get("Global", {})  # get_flop_counts() copies those of every module.
    return sum(flops for op, flops in counts.items() if op.__name__ in MAC_OPS) // 2
