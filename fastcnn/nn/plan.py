"""How a row of layers runs for inference: what one op computes at once, found once and not at every call."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from fastcnn.nn.fused import FusedConv2d, bias_of, call, is_hooked, is_map, out_size, paddings, takes
from fastcnn.nn.grouped import FusedGroupedConv2d
from fastcnn.nn.layers import DepthwiseConv2d
from fastcnn.nn.norms import norm_act_at_start
from fastcnn.ops._convolutions import ACTIVATIONS
from fastcnn.ops._inverted_residual import op
from fastcnn.ops.pointwise_conv2d import pack

# The module; in the package its name is that of the function.
depthwise = importlib.import_module("fastcnn.ops.depthwise_conv2d")

Step = Callable[[Tensor, Tensor | None], Tensor]
_KERNELS, _STRIDES = ((3, 3), (5, 5), (7, 7)), ((1, 1), (2, 2))


class Plan:
    """The steps of a row of layers, some of which are rows too (``is_row``); for as long as it ``holds``.

    Layers are looked at when they run: only which they are is kept.
    """

    def __init__(self, row: nn.Module, is_row: Callable[[Any], bool]) -> None:
        self._rows: list[tuple[dict[str, Any], tuple[Any, ...]]] = []
        self._hooks: list[dict[int, Any]] = []
        self._attributes: list[dict[str, Any]] = []
        layers = list(self._leaves(row, is_row))
        self._steps: list[Step] = []
        while layers:
            # Whoever hooks a layer wants it called.
            hooked = self._is_hooked()
            count = 0 if hooked else _length_of_block(layers)
            step: Step | None = _Block(layers[:count]) if count else None
            if step is None and not hooked:
                norm_act, count = norm_act_at_start(layers)
                step = None if norm_act is None else _plus_residual(norm_act)
            self._steps.append(_step(layers[0]) if step is None else step)
            del layers[: count or 1]

    def _leaves(self, row: nn.Module, is_row: Callable[[Any], bool]) -> Iterator[nn.Module]:
        """The layers, those of rows within too, but not those that have been folded."""
        self._rows.append((row._modules, tuple(row._modules.values())))
        for layer in row._modules.values():
            if layer is None:
                continue
            self._hooks += (layer._forward_hooks, layer._forward_pre_hooks)
            self._attributes.append(layer.__dict__)
            if type(layer) is nn.Identity and not is_hooked(layer):
                continue
            if is_row(layer):
                yield from self._leaves(layer, is_row)
            else:
                yield layer

    def holds(self, row: nn.Module) -> bool:
        """Whether the row is that one, its layers those that they were, and nobody wants to hear of their calls."""
        return (
            self._rows[0][0] is row._modules  # A replica of nn.DataParallel's gets the attributes of the original.
            and not self._is_hooked()
            and all(tuple(modules.values()) == layers for modules, layers in self._rows)
        )

    def _is_hooked(self) -> bool:
        return any(self._hooks) or any("forward" in attributes for attributes in self._attributes)

    def run(self, input: Tensor, residual: Tensor | None) -> Tensor:
        """The result of the row, plus a residual if there is one."""
        for step in self._steps[:-1]:
            input = step(input, None)
        if self._steps:
            return self._steps[-1](input, residual)
        return input if residual is None else input + residual


def _plus_residual(step: Callable[[Tensor], Tensor]) -> Step:
    def run(input: Tensor, residual: Tensor | None) -> Tensor:
        result = step(input)
        return result if residual is None else result + residual

    return run


def _step(layer: nn.Module) -> Step:
    direct = None if is_hooked(layer) else _DIRECT.get(type(layer))

    def run(input: Tensor, residual: Tensor | None) -> Tensor:
        result = None if direct is None else direct(layer, input)
        if result is None:
            result = layer(input)
        return result if residual is None else result + residual

    if not isinstance(layer, FusedConv2d | FusedGroupedConv2d):
        return run

    def run_fused(input: Tensor, residual: Tensor | None) -> Tensor:
        if (residual is not None and layer.activation is not None) or not takes(input, 4, layer.in_channels):
            return run(input, residual)
        return layer.run(input, residual)

    return run if is_hooked(layer) else run_fused


def _is_pointwise(layer: nn.Module) -> bool:
    return isinstance(layer, FusedConv2d) and layer.is_pointwise()


def _is_depthwise(layer: nn.Module) -> bool:
    return (
        isinstance(layer, DepthwiseConv2d)
        and layer.stride in _STRIDES
        and layer.kernel_size in _KERNELS
        and layer.dilation == (1, 1)
        and layer.in_channels == layer.out_channels
        and layer.padding_mode == "zeros"
        and type(layer.padding) is tuple
    )


def _length_of_block(layers: Sequence[nn.Module]) -> int:
    """Of a 1x1, a depthwise and a 1x1 convolution, or two of them, with which the layers begin; else 0."""
    middle = int(_is_pointwise(layers[0]))
    if len(layers) <= middle or not _is_depthwise(layers[middle]):
        return 0
    end = middle + 1 + (len(layers) > middle + 1 and _is_pointwise(layers[middle + 1]))
    return end if end > 1 else 0


def _depthwise(layer: Any, input: Tensor) -> Tensor | None:
    """What the public function would come to, without its other questions; None where they are to be asked."""
    if not (_is_depthwise(layer) and takes(input, 4, layer.in_channels)):
        return None
    weight, bias, kind = layer.weight, layer.bias, ACTIVATIONS.index(layer.activation)
    if weight.dtype != input.dtype or min(out_size(input, weight, layer)[2:]) < 1:
        return None
    if depthwise.torch_is_faster(input, weight, bias, weight.shape, [*layer.stride], [1, 1], kind):
        return None
    return call(depthwise._op, input, weight, bias, layer.stride, paddings(layer), (1, 1), kind)


_DIRECT: dict[type, Callable[[Any, Tensor], Tensor | None]] = {
    DepthwiseConv2d: _depthwise,
}


class _Block:
    """A depthwise convolution with the 1x1 convolutions beside it."""

    def __init__(self, layers: Sequence[Any]) -> None:
        self.layers = list(layers)
        self.expand = layers[0] if isinstance(layers[0], FusedConv2d) else None
        self.project = layers[-1] if isinstance(layers[-1], FusedConv2d) else None
        self.middle = layers[self.expand is not None]

    def __call__(self, input: Tensor, residual: Tensor | None) -> Tensor:
        middle, expand, project = self.middle, self.expand, self.project
        first = expand or middle
        weight = middle._parameters.get("weight")  # None where it is parametrised.
        if weight is not None and takes(input, 4, first.in_channels) and _is_depthwise(middle):
            before, after, size = _dense(expand), _dense(project), out_size(input, weight, middle)
            if before is not None and after is not None and weight.dtype == input.dtype and min(size[2:]) > 0:
                absorbs = (
                    residual is not None
                    and project is not None
                    and project.activation is None
                    and is_map(residual, (size[0], project.weight.size(0), *size[2:]))
                )
                filters = weight.contiguous(), bias_of(middle), middle.stride, paddings(middle)
                kind = ACTIVATIONS.index(middle.activation)
                result = call(op, input, *before, *filters, kind, *after, residual if absorbs else None)
                return result if absorbs or residual is None else result + residual
        for layer in self.layers:
            input = layer(input)
        return input if residual is None else input + residual


def _dense(conv: FusedConv2d | None) -> tuple[Any, ...] | None:
    """A 1x1 convolution as the op takes it; None if it cannot."""
    if conv is None:
        return None, None, None, 0
    kind, slope = conv.activates()
    packed = conv.packed(pack) if conv.is_pointwise() and not slope else None
    if packed is None:
        return None
    return conv._parameters["weight"], packed, bias_of(conv), kind
