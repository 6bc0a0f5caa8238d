"""Dense layers for inference: weights packed once, the activation and a residual taken along."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.nn.layers import DepthwiseConv2d
from fastcnn.ops import _library
from fastcnn.ops._convolutions import ACTIVATIONS, FUNCTIONS
from fastcnn.ops._inverted_residual import op as _block_op
from fastcnn.ops.pointwise_conv2d import _op as _pointwise_op
from fastcnn.ops.pointwise_conv2d import fits, pack

# oneDNN's names of activations. Its ReLUs make 0 of NaN, so that we run those.
_ONEDNN_ACTIVATIONS = {"hardswish": "hardswish", "silu": "swish"}
_MOST = 1 << 22  # Weights of a linear layer that are packed; a larger one takes as long as they take to read.


def _onednn(name: str) -> Any:
    """An operator that torch.compile's frozen networks run on; None in a PyTorch that has no such one."""
    try:
        return getattr(torch.ops.mkldnn, name).default if torch.backends.mkldnn.is_available() else None
    except AttributeError:
        return None


_onednn_conv2d, _onednn_pack = _onednn("_convolution_pointwise"), _onednn("_reorder_convolution_weight")


class _Packs:
    """Keeps what was made of a layer's weight until the weight changes; not in copies, not in files."""

    weight: Tensor

    def packed(self, make: Callable[[Tensor], Tensor]) -> Tensor:
        weight = self.weight.detach()
        key = weight.data_ptr(), None if weight.is_inference() else weight._version
        kept = self.__dict__.get("_kept")
        if kept is None or kept[0] != key:
            with torch.no_grad():
                kept = self.__dict__["_kept"] = key, make(weight)
        return kept[1]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}

    def runs_packed(self, input: Tensor, dim: int, channels: int) -> bool:
        weight = self.weight
        return (
            # First, as the compiler cannot trace the rest; it fuses what it sees.
            not torch.compiler.is_compiling()
            and type(input) is Tensor
            and input.dim() == dim
            and input.dtype is weight.dtype is torch.float32
            and input.device.type == weight.device.type == "cpu"
            and input.size(1) == channels
            and input.numel() > 0
            and not (torch.is_grad_enabled() and (input.requires_grad or weight.requires_grad))
            and _library.mode.name != "reference"
            and not torch.jit.is_tracing()
            and not torch.is_autocast_enabled("cpu")
            and not torch._C._are_functorch_transforms_active()
        )


class FusedConv2d(_Packs, nn.Conv2d):
    """:class:`torch.nn.Conv2d` of one group, with its activation: what ``fuse()`` makes of it.

    ``forward(input, residual=None)`` is ``activation(conv2d(input) + residual)``, (N, C, H, W) to
    (N, out_channels, H', W'). On a CPU, in float32 and where no gradient is asked for, a 1x1 convolution runs
    :func:`fastcnn.ops.pointwise_conv2d` and any other oneDNN's, channels_last whatever the layout of the input, with a
    second copy of the weights, packed at the first call and again after a change of them. Else it runs PyTorch's
    functions. Deterministic.

    Attributes:
        activation: None, "relu", "relu6", "hardswish" or "silu".
    """

    activation: str | None = None

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        activation = self.activation
        if not self.runs_packed(input, 4, self.in_channels):
            result = super().forward(input)
        else:
            if input.is_contiguous():
                input = input.contiguous(memory_format=torch.channels_last)
            if self.is_pointwise():
                arguments = (input, self.weight, self.bias, residual, ACTIVATIONS.index(activation))
                return _library.call(_pointwise_op, *arguments, self.packed(pack))
            if _onednn_conv2d is None or isinstance(self.padding, str):
                result = super().forward(input)
            else:
                window = self.padding, self.stride, self.dilation, 1
                weight = self.packed(lambda w: _onednn_pack(w, *window, list(input.shape)))
                name = _ONEDNN_ACTIVATIONS.get(activation or "") if residual is None else None
                result = _onednn_conv2d(input, weight, self.bias, *window, name or "none", [], "")
                if name:
                    return result
        if residual is not None:
            result = result + residual
        return FUNCTIONS[ACTIVATIONS.index(activation)](result)

    def is_pointwise(self) -> bool:
        return self.kernel_size == self.stride == (1, 1) and self.padding == (0, 0) and fits(self.weight)

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", activation={self.activation}" if self.activation else "")


class FusedLinear(_Packs, nn.Linear):
    """:class:`torch.nn.Linear` for few inputs at a time: what ``fuse()`` makes of it.

    (N, in_features) in float32 on a CPU without a gradient runs :func:`fastcnn.ops.pointwise_conv2d` with a second copy
    of up to 16 MB of weights, packed; all else PyTorch's function. Deterministic.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.weight.numel() > _MOST or not fits(self.weight) or not self.runs_packed(input, 2, self.in_features):
            return super().forward(input)
        pixels, filters = input[:, :, None, None], self.weight[:, :, None, None]
        return _library.call(_pointwise_op, pixels, filters, self.bias, None, 0, self.packed(pack)).flatten(1)


def is_hooked(module: nn.Module) -> bool:
    """Whether somebody wants this module called."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def run_in_row(layers: Sequence[nn.Module], input: Tensor, residual: Tensor | None) -> Tensor:
    """The layers one after the other, then a residual if there is one; those that one op computes at once.

    For inference: nothing here has a gradient.
    """
    at = 0
    while at < len(layers):
        block = _block(layers[at : at + 3])
        dense = next((layer for layer in block if isinstance(layer, FusedConv2d)), None)
        if dense is not None and dense.runs_packed(input, 4, block[0].in_channels):
            at += len(block)
            last = at == len(layers) and isinstance(block[-1], FusedConv2d) and block[-1].activation is None
            input = _run_block(block, input, residual if last else None)
            residual = None if last else residual
            continue
        layer = layers[at]
        at += 1
        if residual is not None and at == len(layers) and isinstance(layer, FusedConv2d) and layer.activation is None:
            return layer(input, residual)
        input = layer(input)
    return input if residual is None else input + residual


def _is_pointwise(layer: nn.Module) -> bool:
    return isinstance(layer, FusedConv2d) and layer.is_pointwise() and not is_hooked(layer)


def _is_depthwise(layer: nn.Module) -> bool:
    return (
        isinstance(layer, DepthwiseConv2d)
        and layer.kernel_size in ((3, 3), (5, 5), (7, 7))
        and layer.stride in ((1, 1), (2, 2))
        and layer.dilation == (1, 1)
        and layer.in_channels == layer.out_channels
        and layer.padding_mode == "zeros"
        and isinstance(layer.padding, tuple)
        and not is_hooked(layer)
    )


def _block(layers: Sequence[nn.Module]) -> Sequence[Any]:
    """A 1x1, a depthwise and a 1x1 convolution, or two of them, with which the layers begin; else nothing."""
    middle = int(_is_pointwise(layers[0]))
    if len(layers) <= middle or not _is_depthwise(layers[middle]):
        return ()
    return layers[: middle + 1 + (len(layers) > middle + 1 and _is_pointwise(layers[middle + 1]))]


def _run_block(block: Sequence[Any], input: Tensor, residual: Tensor | None) -> Tensor:
    first, last = isinstance(block[0], FusedConv2d), isinstance(block[-1], FusedConv2d)
    depthwise = block[int(first)]
    height, width = depthwise.padding
    return _library.call(
        _block_op,
        input,
        *_dense(block[0] if first else None),
        depthwise.weight,
        depthwise.bias,
        depthwise.stride,
        (height, height, width, width),
        ACTIVATIONS.index(depthwise.activation),
        *_dense(block[-1] if last else None),
        residual,
    )


def _dense(conv: FusedConv2d | None) -> tuple[Any, ...]:
    if conv is None:
        return None, None, None, 0
    return conv.weight, conv.packed(pack), conv.bias, ACTIVATIONS.index(conv.activation)
