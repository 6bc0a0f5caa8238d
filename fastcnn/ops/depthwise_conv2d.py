"""Depthwise convolution: every channel has filters of its own (Howard et al. 2017, MobileNets, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcnn.ops import _checks, _library
from fastcnn.ops._convolutions import (
    ACTIVATIONS,
    FROM_RESULT,
    FUNCTIONS,
    activation_backward,
    conv2d_size,
    empty,
    in_float32,
    laid_out,
    wide,
)

_MAX_STRIDE = 64  # As kMaxStride of the kernels.
_SMALL_PLANE = 14 * 14  # Pixels.
_SMALL_INPUT, _IN_L2, _IN_L3 = 1 << 18, 1 << 20, 1 << 22  # Elements; the latter two of inputs these caches hold.


def depthwise_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    activation: str | None = None,
) -> Tensor:
    """Convolves every channel with its own filters: :func:`torch.nn.functional.conv2d` with one group a channel.

    Args:
        input: ``[N, C, H, W]`` or ``[C, H, W]``; float64, float32, bfloat16 or float16 (16-bit types are summed in
            float32). channels_last is taken as it lies and gives a channels_last result.
        weight: ``[C * M, 1, height, width]`` of the dtype of `input`; output channel ``c * M + m`` reads channel ``c``.
        bias: ``[C * M]``, or None.
        stride: one number, or two for height and width.
        padding: zeros around the map, one number, or two for height and width, or four: above, below, left and right;
            or "valid" (none), or "same" (stride 1: as large a result).
        dilation: distance between the pixels that a filter reads, one number or two.
        activation: None, "relu", "relu6", "hardswish" or "silu", applied to the result.

    Returns:
        ``[N, C * M, H', W']`` of the dtype of `input`.

    Raises:
        TypeError: a tensor that is not floating-point, two dtypes, or an argument of the wrong type.
        ValueError: shapes that do not fit, a kernel larger than the padded input, a bad stride, padding, dilation or
            activation, or two devices.

    Differentiable in input, weight and bias, any number of times. Every gradient is summed in a fixed order:
    deterministic, whatever the number of threads. Autocast casts as for a convolution.
    """
    _check_tensors(input, weight, bias)
    device = input.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        input, weight, bias = _library.autocast(input, weight, bias)  # type: ignore[assignment]
    unbatched = input.dim() == 3
    if unbatched:
        input = input.unsqueeze(0)
    shape, kernel = _check_shapes(input, weight, bias)
    strides, dilations = _pair("stride", stride, 1), _pair("dilation", dilation, 1)
    top, bottom, left, right = paddings = _padding(padding, kernel, strides, dilations)
    if (
        shape[2] + top + bottom < dilations[0] * (kernel[2] - 1) + 1
        or shape[3] + left + right < dilations[1] * (kernel[3] - 1) + 1
        or 0 in shape[2:]
    ):
        raise ValueError(
            f"depthwise_conv2d: expected a padded input at least as large as the kernel, got input of shape "
            f"{tuple(shape)}, weight of shape {tuple(kernel)}, padding {padding!r}, dilation {dilation!r}"
        )
    if activation not in ACTIVATIONS:
        raise ValueError(f"depthwise_conv2d: expected activation to be one of {ACTIVATIONS}, got {activation!r}")
    kind = ACTIVATIONS.index(activation)
    if _library.mode.name == "auto" and torch_is_faster(input, weight, bias, kernel, strides, dilations, kind):
        if isinstance(padding, str):
            low: Any = [top, left] if [top, left] == [bottom, right] else padding
        else:
            input, low = _symmetric(input, paddings)
        result = FUNCTIONS[kind](F.conv2d(input, weight, bias, strides, low, dilations, shape[1]))
    elif max(strides) > _MAX_STRIDE:
        result = _reference(input, weight, bias, strides, paddings, dilations, kind)
    else:
        result = _library.call(_op, input, weight, bias, strides, paddings, dilations, kind)
    return result.squeeze(0) if unbatched else result


def torch_is_faster(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel: Sequence[int],
    stride: list[int],
    dilation: list[int],
    activation: int,
) -> bool:
    """Whether it measured so, on a CPU: see the rule in the op's definition."""
    if input.dtype is not torch.float32 or dilation != [1, 1] or input.device.type != "cpu":
        return False
    training = torch.is_grad_enabled() and (
        input.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    )
    size, step = kernel[2], stride[0]
    contiguous = input.is_contiguous()
    if (
        kernel[3] == size
        and size in (3, 5, 7)
        and stride[1] == step
        and step <= (1 if contiguous and size == 7 else 2)
        and kernel[0] == input.size(1)
    ):
        inference = not training and not activation
        return inference and not contiguous and size == 3 and step == 2 and _IN_L2 <= input.numel() < _IN_L3
    size = max(size, kernel[3])
    if training and size > 3:
        return False
    if contiguous:
        return size == 7 or (size < 7 and input.size(2) * input.size(3) <= _SMALL_PLANE)
    return input.numel() >= _SMALL_INPUT and (not training or input.numel() < _IN_L3)


def _check_tensors(input: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    try:
        same = input.dtype is weight.dtype and (bias is None or input.dtype is bias.dtype)
    except AttributeError:
        same = False
    if same and input.dtype in _checks.FLOATING:
        return
    _checks.floating("depthwise_conv2d", input=input, weight=weight)
    if bias is not None:
        _checks.floating("depthwise_conv2d", bias=bias)
    if not torch.is_autocast_enabled(input.device.type):
        listed = f"input {input.dtype}, weight {weight.dtype}" + (f", bias {bias.dtype}" if bias is not None else "")
        raise TypeError(f"depthwise_conv2d: expected one dtype, got {listed}")


def _check_shapes(input: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[torch.Size, torch.Size]:
    shape, kernel = input.shape, weight.shape
    if len(shape) != 4 or len(kernel) != 4:
        listed = f"input of shape {tuple(shape)} and weight of shape {tuple(kernel)}"
        raise ValueError(f"depthwise_conv2d: expected input [N, C, H, W] and weight [C * M, 1, h, w], got {listed}")
    channels, filters = shape[1], kernel[0]
    if kernel[1] != 1 or channels == 0 or filters == 0 or filters % channels or kernel[2] == 0 or kernel[3] == 0:
        listed = f"input of shape {tuple(shape)} and weight of shape {tuple(kernel)}"
        raise ValueError(f"depthwise_conv2d: expected weight [C * M, 1, h, w] for C channels, got {listed}")
    if bias is None:
        if weight.device != input.device:
            _checks.same_device("depthwise_conv2d", input=input, weight=weight)
    else:
        if bias.dim() != 1 or bias.size(0) != filters:
            raise ValueError(f"depthwise_conv2d: expected bias of shape ({filters},), got {tuple(bias.shape)}")
        if not input.device == weight.device == bias.device:
            _checks.same_device("depthwise_conv2d", input=input, weight=weight, bias=bias)
    return shape, kernel


def _pair(name: str, value: int | Sequence[int], least: int) -> list[int]:
    if type(value) is int and value >= least:
        return [value, value]
    pair = list(value) if isinstance(value, (Sequence, torch.Size)) and not isinstance(value, str) else [value] * 2
    if len(pair) == 1:
        pair *= 2
    if len(pair) != 2:
        raise ValueError(f"depthwise_conv2d: expected {name} of one or two numbers, got {value!r}")
    if type(pair[0]) is not int or type(pair[1]) is not int:
        _checks.integer("depthwise_conv2d", **{name: pair[0], f"{name} (width)": pair[1]})
        pair = [n if isinstance(n, torch.SymInt) else int(n) for n in pair]  # type: ignore[misc]
    if pair[0] < least or pair[1] < least:
        raise ValueError(f"depthwise_conv2d: expected {name} of at least {least}, got {value!r}")
    return pair  # type: ignore[return-value]


def _padding(
    padding: int | Sequence[int] | str, kernel: torch.Size, stride: list[int], dilation: list[int]
) -> list[int]:
    """Top, bottom, left and right."""
    if isinstance(padding, str):
        if padding == "valid":
            return [0, 0, 0, 0]
        if padding != "same":
            raise ValueError(f"depthwise_conv2d: expected padding to be 'same' or 'valid', got {padding!r}")
        if stride != [1, 1]:
            raise ValueError(f"depthwise_conv2d: padding='same' needs a stride of 1, got {tuple(stride)}")
        total = [d * (k - 1) for d, k in zip(dilation, kernel[2:], strict=True)]
        return [total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2]
    if not isinstance(padding, int) and len(padding) == 4:
        above, below = _pair("padding", padding[:2], 0)
        left, right = _pair("padding", padding[2:], 0)
        return [above, below, left, right]
    height, width = _pair("padding", padding, 0)
    return [height, height, width, width]


def _symmetric(input: Tensor, padding: Sequence[int]) -> tuple[Tensor, list[int]]:
    """What conv2d can pad: the input, padded where the two sides differ, and what is left for both."""
    top, bottom, left, right = padding
    extra = (max(left - right, 0), max(right - left, 0), max(top - bottom, 0), max(bottom - top, 0))
    return (F.pad(input, extra) if any(extra) else input), [min(top, bottom), min(left, right)]


def _reference(input, weight, bias, stride, padding, dilation, activation):
    x, w, b = wide(input, weight, bias)
    x, both = _symmetric(x, padding)
    result = F.conv2d(x, w, b, stride, both, dilation, input.size(1))
    return laid_out(FUNCTIONS[activation](result), input)


def _reference_backward(grad, input, weight, stride, padding, dilation, need_input, need_weight, need_bias):
    g, x, w = wide(grad, input, weight)
    x, both = _symmetric(x, padding)
    mask = [need_input, need_weight, need_bias]
    grads = torch.ops.aten.convolution_backward(
        g, x, w, [weight.size(0)], stride, both, dilation, False, [0, 0], input.size(1), mask
    )
    none = input.new_empty(0)
    grad_input = grads[0]
    if need_input:
        top, bottom, left, right = padding
        y, z = max(top - bottom, 0), max(left - right, 0)
        grad_input = grad_input[:, :, y : y + input.size(2), z : z + input.size(3)]
        grad_input = empty(input.shape, input).copy_(grad_input)
    return (
        grad_input if need_input else none,
        grads[1].to(input.dtype).contiguous() if need_weight else none.clone(),
        grads[2].to(input.dtype) if need_bias else none.clone(),
    )


def _fake(input, weight, bias, stride, padding, dilation, activation):
    return empty(conv2d_size(input, weight, stride, padding, dilation), input)


def _fake_backward(grad, input, weight, stride, padding, dilation, need_input, need_weight, need_bias):
    return (
        empty(input.shape, input) if need_input else input.new_empty(0),
        weight.new_empty(weight.shape) if need_weight else input.new_empty(0),
        weight.new_empty(weight.size(0)) if need_bias else input.new_empty(0),
    )


_op = _library.define(
    "depthwise_conv2d(Tensor input, Tensor weight, Tensor? bias, int[2] stride, SymInt[4] padding, int[2] dilation, "
    "int activation) -> Tensor",
    reference=_reference,
    fake=_fake,
    triton="depthwise_conv2d",
    torch_rule={
        "CPU": "PyTorch's reference for strides over 64; in float32 without dilation its own kernel for channels_last "
        "inference of 3x3 at stride 2 with no activation on inputs of 4 to 16 MB; and, but for square kernels of 3, 5 "
        "or 7 at strides 1 and 2 and multiplier 1, for up to 3x3 on NCHW planes up to 14x14 and channels_last inputs "
        "of 1 to 16 MB, in inference also up to 5x5 on such planes, 7 on NCHW, and all channels_last inputs from 1 MB",
        "CUDA": "PyTorch's reference for float64, kernels over 11 and strides over 4",
    },
    flops=lambda input, weight, *_, out_shape=None, **__: (
        2 * out_shape[0] * out_shape[1] * out_shape[2] * out_shape[3] * weight[2] * weight[3]
    ),
)
_backward_op = _library.define(
    "depthwise_conv2d_backward(Tensor grad, Tensor input, Tensor weight, int[2] stride, SymInt[4] padding, "
    "int[2] dilation, bool need_input, bool need_weight, bool need_bias) -> (Tensor, Tensor, Tensor)",
    reference=_reference_backward,
    fake=_fake_backward,
    triton="depthwise_conv2d",
    flops=lambda grad, input, weight, stride, padding, dilation, need_input, need_weight, *_, out_shape=None, **__: (
        2 * (need_input + need_weight) * grad[0] * grad[1] * grad[2] * grad[3] * weight[2] * weight[3]
    ),
)


def _setup_context(ctx, inputs, output):
    input, weight, bias, stride, padding, dilation, activation = inputs
    # What came out tells where a ReLU let the gradient through; before other activations it is computed again.
    ctx.save_for_backward(input, weight, bias, output if activation in FROM_RESULT[1:] else None)
    ctx.args = (stride, padding, dilation)
    ctx.activation = activation


def _backward(ctx, grad):
    input, weight, bias, output = ctx.saved_tensors
    if ctx.activation not in FROM_RESULT:
        # In float32, as in the forward pass nothing was rounded before the activation.
        grad, input, weight, bias = in_float32(grad, input, weight, bias)
        output = _library.call_backward(_op, input, weight, bias, *ctx.args, 0)
    grad = activation_backward(ctx.activation, grad, output)
    need = [bool(needed) for needed in ctx.needs_input_grad[:3]]
    grads = _library.call_backward(_backward_op, grad, input, weight, *ctx.args, *need)
    dtype = ctx.saved_tensors[0].dtype
    return *(g.to(dtype) if needed else None for g, needed in zip(grads, need, strict=True)), None, None, None, None


def _setup_backward_context(ctx, inputs, output):
    grad, input, weight, stride, padding, dilation, *need = inputs
    ctx.save_for_backward(grad, input, weight)
    ctx.args = (stride, padding, dilation)
    ctx.need = need


def _double_backward(ctx, grad_of_input, grad_of_weight, grad_of_bias):
    """The backward op is linear in each of grad, input and weight, so its adjoints are the two ops themselves."""
    grad, input, weight = ctx.saved_tensors
    needs_grad, needs_input, needs_weight = ctx.needs_input_grad[:3]
    has_input, has_weight, has_bias = ctx.need
    result = [None, None, None]
    if needs_grad:
        parts = []
        if has_input:
            parts.append(_library.call_backward(_op, grad_of_input, weight, None, *ctx.args, 0))
        if has_weight:
            parts.append(_library.call_backward(_op, input, grad_of_weight, None, *ctx.args, 0))
        if has_bias:
            parts.append(grad_of_bias[:, None, None].expand_as(grad))
        result[0] = sum(parts[1:], parts[0])
    if needs_input and has_weight:
        grads = _library.call_backward(_backward_op, grad, input, grad_of_weight, *ctx.args, True, False, False)
        result[1] = grads[0]
    if needs_weight and has_input:
        grads = _library.call_backward(_backward_op, grad, grad_of_input, weight, *ctx.args, False, True, False)
        result[2] = grads[1]
    return *result, *[None] * 6


_library.autograd(_op, _backward, _setup_context)
_library.autograd(_backward_op, _double_backward, _setup_backward_context)
