"""Pointwise convolution: 1x1, every pixel by itself (Howard et al. 2017, MobileNets, section 3.1)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._prims_common import suggest_memory_format

from fastcnn.ops import _checks, _library
from fastcnn.ops._convolutions import (
    ACTIVATIONS,
    FROM_RESULT,
    HAS_BF16,
    RELU,
    activate,
    activation_backward,
    empty,
    in_float32,
    laid_out,
    wide,
)
from fastcnn.ops.grouped_conv2d_shuffle import _backward_input_op, _backward_weight_op

_NAME = "pointwise_conv2d"
_LEAST = 16  # Channels of the result that the kernel needs, as kGemmLanes.


def pointwise_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    residual: Tensor | None = None,
    *,
    packed: Tensor | None = None,
    negative_slope: float = 0.01,
) -> Tensor:
    """``activation(conv2d(input, weight, bias) + residual)`` for a 1x1 kernel, in one pass.

    Args:
        input: ``[N, C, H, W]``; float64, float32, bfloat16 or float16, summed in float32 (float64 for float64).
            The kernel is made for channels_last, which is kept.
        weight: ``[out, C, 1, 1]`` of the dtype of `input`.
        bias: ``[out]`` or None.
        activation: None, "relu", "relu6", "hardswish", "silu" or "leaky_relu".
        residual: ``[N, out, H, W]`` to add before the activation, or None.
        packed: what :func:`pack` gave for these weights, to be spared packing them at every call. Where another kernel
            runs it is not looked at.
        negative_slope: of the leaky ReLU, 0 to 1.

    Returns:
        ``[N, out, H, W]`` of the dtype and memory format of `input`.

    Raises:
        TypeError: a tensor that is not floating-point, or tensors of different dtypes.
        ValueError: shapes that do not fit, an unknown activation, another slope, or tensors on two devices.

    Differentiable in input, weight, bias and residual. Sums are in a fixed order: deterministic,
    on the CPU whatever the number of threads. Autocast casts as for a convolution.

    Where PyTorch's convolution is faster (contiguous input, ...: see ``fastcnn.report()``) this function calls that.
    """
    tensors = {"input": input, "weight": weight, "bias": bias, "residual": residual}
    given: dict[str, Any] = {name: t for name, t in tensors.items() if t is not None or name in ("input", "weight")}
    _checks.floating(_NAME, **given)
    _checks.same_device(_NAME, **given)
    _check_shapes(input, weight, bias, residual, packed)
    kind, slope = number_of(activation, negative_slope)
    dtype = input.dtype
    input, weight, bias, residual = _library.autocast(input, weight, bias, residual)  # type: ignore[assignment]
    if any(t.dtype != input.dtype for t in (weight, bias, residual) if t is not None):
        listed = ", ".join(f"{name} {t.dtype}" for name, t in given.items())
        raise TypeError(f"{_NAME}: expected tensors of one dtype, got {listed}")
    if not fits(weight) or (_library.mode.name == "auto" and _torch_is_faster(input)):
        return _composed(input, weight, bias, residual, kind, slope)
    return _library.call(_op, input, weight, bias, residual, kind, packed if input.dtype == dtype else None, slope)


def number_of(activation: str | None, negative_slope: float = 0.01) -> tuple[int, float]:
    """What the op calls the activation: its number, and the slope of ReLU.

    Raises:
        ValueError: an unknown activation or another slope.
    """
    known = (*ACTIVATIONS, "leaky_relu")
    if activation not in known:
        raise ValueError(f"{_NAME}: expected activation to be one of {known}, got {activation!r}")
    if not 0 <= negative_slope <= 1:
        raise ValueError(f"{_NAME}: expected negative_slope to be between 0 and 1, got {negative_slope}")
    return (RELU, negative_slope) if activation == "leaky_relu" else (ACTIVATIONS.index(activation), 0.0)


def pack(weight: Tensor) -> Tensor:
    """The weights ``[out, C, 1, 1]`` in the order the kernel reads them: ``[out * C]``, float32 (float64 for float64).

    Only the kernel knows that order. It does not follow what is done to the weights afterwards, and has no gradient.
    """
    return _pack_op.call(weight.detach())


def fits(weight: Tensor) -> bool:
    """Whether the kernel takes such weights."""
    return weight.size(0) >= _LEAST


def _torch_is_faster(input: Tensor) -> bool:
    if input.device.type == "cuda" or input.is_contiguous():
        return input.numel() > 0  # Of empty input PyTorch's convolution has strides of its own.
    return input.dtype == torch.bfloat16 and HAS_BF16


def _check_shapes(
    input: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, packed: Tensor | None
) -> None:
    if input.dim() != 4 or weight.dim() != 4:
        shapes = f"{tuple(input.shape)} and {tuple(weight.shape)}"
        raise ValueError(f"{_NAME}: expected input and weight with 4 dimensions, got shapes {shapes}")
    out, channels = weight.size(0), input.size(1)
    if weight.shape[1:] != (channels, 1, 1) or not out or not channels:
        raise ValueError(f"{_NAME}: expected weight of shape (out, {channels}, 1, 1), got {tuple(weight.shape)}")
    if bias is not None and tuple(bias.shape) != (out,):
        raise ValueError(f"{_NAME}: expected bias of shape ({out},), got {tuple(bias.shape)}")
    shape = (input.size(0), out, *input.shape[2:])
    if residual is not None and tuple(residual.shape) != shape:
        raise ValueError(f"{_NAME}: expected residual of shape {shape}, got {tuple(residual.shape)}")
    if packed is not None and tuple(packed.shape) != (out * channels,):
        raise ValueError(f"{_NAME}: expected {out * channels} packed weights, got shape {tuple(packed.shape)}")


def _composed(input, weight, bias, residual, activation, slope):
    result = F.conv2d(input, weight, bias)
    return activate(activation, result if residual is None else result + residual, slope)


def _reference(input, weight, bias, residual, activation, packed, slope=0.0):
    x, w, b, r = wide(input, weight, bias, residual)
    return laid_out(_composed(x, w, b, r, activation, slope), input)


def _fake(input, weight, bias, residual, activation, packed, slope=0.0):
    return empty((input.size(0), weight.size(0), input.size(2), input.size(3)), input)


_op = _library.define(
    "pointwise_conv2d(Tensor input, Tensor weight, Tensor? bias, Tensor? residual, int activation, Tensor? packed, "
    "float slope=0.0) -> Tensor",
    reference=_reference,
    fake=_fake,
    torch_rule={
        "CPU": "PyTorch's convolution for contiguous input, for fewer than 16 filters, and in bfloat16 where the CPU "
        "has instructions for it",
        "CUDA": "PyTorch's convolution, always",
    },
    flops=lambda input, weight, *_, out_shape=None, **__: (
        2 * out_shape[0] * out_shape[2] * out_shape[3] * weight[0] * weight[1]
    ),
)


def _packed_dtype(weight: Tensor) -> torch.dtype:
    return torch.promote_types(weight.dtype, torch.float32)


_pack_op = _library.define(
    "pointwise_conv2d_pack(Tensor weight) -> Tensor",
    # Where there is no kernel nobody reads it.
    reference=lambda weight: weight.flatten().to(_packed_dtype(weight), copy=True),
    fake=lambda weight: weight.new_empty(weight.numel(), dtype=_packed_dtype(weight)),
)


def _setup_context(ctx, inputs, output):
    input, weight, bias, residual, activation, _, ctx.slope = inputs
    # Without an activation nothing of the result is needed: what comes next may change it in place.
    rest = () if activation == 0 else (output,) if activation in FROM_RESULT else (bias, residual)
    ctx.save_for_backward(input, weight, *rest)
    ctx.activation = activation


def _backward(ctx, grad):
    input, weight, *rest = ctx.saved_tensors
    if ctx.activation not in FROM_RESULT:
        # In float32, as in the forward pass nothing was rounded before the activation.
        grad, input, weight, *rest = in_float32(grad, input, weight, *rest)
        rest = [_library.call_backward(_op, input, weight, *rest, 0, None)]
    if ctx.activation:
        grad = activation_backward(ctx.activation, grad, rest[0], ctx.slope)
    window, needs = ([1, 1], [0, 0], [1, 1], 1, 1), ctx.needs_input_grad
    last = suggest_memory_format(input) == torch.channels_last
    grads = (
        _library.call_backward(_backward_input_op, grad, weight, input.shape, *window, last) if needs[0] else None,
        _library.call_backward(_backward_weight_op, grad, input, weight.shape, *window) if needs[1] else None,
        grad.sum((0, 2, 3)) if needs[2] else None,
        grad if needs[3] else None,
    )
    dtype = ctx.saved_tensors[0].dtype
    return *(g if g is None else g.to(dtype) for g in grads), None, None, None


_library.autograd(_op, _backward, _setup_context)
