"""Grouped convolution whose result is stored shuffled (ShuffleNet, Zhang et al. 2018, section 3.1).

Grouped convolution itself: AlexNet (Krizhevsky et al. 2012, section 3.5) and ResNeXt (Xie et al. 2017, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._prims_common import suggest_memory_format

from fastcnn.ops import _checks, _library
from fastcnn.ops._convolutions import HAS_BF16, conv2d_size
from fastcnn.ops.channel_shuffle import channel_shuffle, shuffled

_NAME = "grouped_conv2d_shuffle"
_mode = _library.mode
_WIDE_GROUP = 64  # Channels of a group from which a convolution is a matter of arithmetic, not of memory.


def grouped_conv2d_shuffle(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    shuffle_groups: int | None = None,
    activation: str | None = None,
) -> Tensor:
    """``channel_shuffle(activation(conv2d(...)), shuffle_groups)``, the shuffle being where the result is stored.

    Args:
        input: ``[N, C, H, W]``; float64, float32, bfloat16 or float16, summed in float32 (float64 for float64).
            channels_last is kept.
        weight: ``[out, C / groups, kernel height, kernel width]``.
        bias: ``[out]`` or None.
        stride, padding, dilation, groups: as of :func:`torch.nn.functional.conv2d`; one number or (height, width).
        shuffle_groups: groups of the shuffle, by default `groups`; 1 leaves the channels in order.
        activation: None or "relu".

    Returns:
        ``[N, out, H', W']`` of the dtype and memory format of `input`.

    Raises:
        ValueError: wrong ranks, channels that groups do not divide, a kernel larger than the padded input, an unknown
            activation, or tensors on two devices.
        TypeError: a tensor that is not floating-point, tensors of different dtypes, or an argument of the wrong type.

    Differentiable in input, weight and bias; only the gradients needed are computed. Sums are in a fixed order:
    deterministic, on the CPU whatever the number of threads. Under autocast the inputs are cast as a convolution's.

    Where storing the result shuffled saves less than PyTorch's faster convolution, this function calls that and then
    :func:`channel_shuffle`: see ``fastcnn.report()``.
    """
    tensors = {"input": input, "weight": weight} | ({} if bias is None else {"bias": bias})
    _checks.floating(_NAME, **tensors)
    _checks.same_device(_NAME, **tensors)
    if type(groups) is not int:
        _checks.integer(_NAME, groups=groups)
    if shuffle_groups is None:
        shuffle_groups = groups
    elif type(shuffle_groups) is not int:
        _checks.integer(_NAME, shuffle_groups=shuffle_groups)
    stride, padding, dilation = (
        _pair(name, value, least)
        for name, value, least in (("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1))
    )
    groups, shuffle_groups = int(groups), int(shuffle_groups)
    _check_shapes(input, weight, bias, padding, dilation, groups, shuffle_groups)
    if activation not in (None, "relu"):
        raise ValueError(f"{_NAME}: expected activation None or 'relu', got {activation!r}")
    input, weight, bias = _library.autocast(input, weight, bias)  # type: ignore[assignment]
    if not input.dtype == weight.dtype == (input if bias is None else bias).dtype:
        listed = ", ".join(f"{name} {t.dtype}" for name, t in tensors.items())
        raise TypeError(f"{_NAME}: expected tensors of one dtype, got {listed}")
    if _mode.name == "auto" and torch_is_as_fast(input, weight, stride, groups):
        result = F.conv2d(input, weight, bias, stride, padding, dilation, groups)
        if activation:
            result = result.relu_()
        return channel_shuffle(result, shuffle_groups) if shuffle_groups > 1 else result
    if weight.size(2) == weight.size(3) == 1 and padding == (0, 0) and stride != (1, 1) and input.device.type != "cuda":
        # Of a 1x1 convolution with a stride, the pixels in between do not matter. Kernels on a GPU step over them.
        layout = suggest_memory_format(input)
        input, stride = input[:, :, :: stride[0], :: stride[1]].contiguous(memory_format=layout), (1, 1)
    return _library.call(
        _op,
        input,
        weight,
        bias,
        stride,
        padding,
        dilation,
        groups,
        shuffle_groups,
        activation == "relu",
    )


def torch_is_as_fast(input: Tensor, weight: Tensor, stride: tuple[int, int], groups: int) -> bool:
    """On a CPU measured on AVX-512, over both memory formats and batches of 1 and 16; on a GPU not yet measured."""
    if input.device.type == "cuda":
        each = sorted((weight.size(1), weight.size(0) // groups))
        one = weight.size(1) == 1 and weight.size(2) * weight.size(3) > 1
        return one or groups == 1 or each[0] >= _WIDE_GROUP or input.dtype == torch.float64
    bfloat16 = input.dtype == torch.bfloat16
    if input.device.type != "cpu" or not (input.dtype == torch.float32 or (bfloat16 and HAS_BF16)):
        return False
    channels_last = not input.is_contiguous()
    few, many = sorted((weight.size(1), weight.size(0) // groups))
    if weight.size(2) * weight.size(3) > 1:
        return weight.size(1) == 1 or stride != (1, 1) or many > (4 if bfloat16 or channels_last else 8)
    return channels_last or few > 20 if bfloat16 else channels_last and groups == 1


def _pair(name: str, value: int | Sequence[int], least: int) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{_NAME}: expected {name} of one or two numbers, got {value!r}")
    if type(pair[0]) is not int or type(pair[1]) is not int:
        _checks.integer(_NAME, **{f"{name}[0]": pair[0], f"{name}[1]": pair[1]})
        pair = (int(pair[0]), int(pair[1]))
    if pair[0] < least or pair[1] < least:
        raise ValueError(f"{_NAME}: expected {name} of at least {least}, got {value!r}")
    return pair


def _check_shapes(input, weight, bias, padding, dilation, groups, shuffle_groups) -> None:
    if input.dim() != 4 or weight.dim() != 4:
        shapes = f"{tuple(input.shape)} and {tuple(weight.shape)}"
        raise ValueError(f"{_NAME}: expected input and weight with 4 dimensions, got shapes {shapes}")
    out, channels = weight.size(0), weight.size(1)
    if groups < 1 or input.size(1) != channels * groups or out % groups:
        raise ValueError(
            f"{_NAME}: {groups} groups do not fit input of shape {tuple(input.shape)} and weight of shape "
            f"{tuple(weight.shape)}"
        )
    if shuffle_groups < 1 or out % shuffle_groups:
        raise ValueError(f"{_NAME}: expected shuffle_groups that divide {out} channels, got {shuffle_groups}")
    if bias is not None and tuple(bias.shape) != (out,):
        raise ValueError(f"{_NAME}: expected bias of shape ({out},), got {tuple(bias.shape)}")
    for d in (0, 1):
        reach = (weight.size(2 + d) - 1) * dilation[d] + 1
        if weight.size(2 + d) < 1 or reach > input.size(2 + d) + 2 * padding[d]:
            raise ValueError(
                f"{_NAME}: a kernel of shape {tuple(weight.shape[2:])} does not fit input of shape {tuple(input.shape)}"
            )


def _empty(size, like: Tensor, channels_last: bool) -> Tensor:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=layout)


def _is_channels_last(x: Tensor) -> bool:
    return suggest_memory_format(x) == torch.channels_last


def _reference(input, weight, bias, stride, padding, dilation, groups, shuffle_groups, relu):
    result = F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    result = shuffled(result.relu() if relu else result, shuffle_groups)
    return _empty(result.shape, result, _is_channels_last(input)).copy_(result)


def _reference_backward(grad, input, weight, stride, padding, dilation, groups, shuffle_groups, mask):
    grad = shuffled(grad, grad.size(1) // shuffle_groups)
    args = (stride, padding, dilation, False, [0, 0], groups, mask)
    return torch.ops.aten.convolution_backward(grad, input, weight, None, *args)


def _reference_backward_input(
    grad, weight, input_size, stride, padding, dilation, groups, shuffle_groups, channels_last
):
    input = grad.new_empty(1).expand(input_size)
    mask = [True, False, False]
    result, _, _ = _reference_backward(grad, input, weight, stride, padding, dilation, groups, shuffle_groups, mask)
    return _empty(input_size, grad, channels_last).copy_(result)


def _reference_backward_weight(grad, input, weight_size, stride, padding, dilation, groups, shuffle_groups):
    weight = grad.new_empty(1).expand(weight_size)
    mask = [False, True, False]
    _, result, _ = _reference_backward(grad, input, weight, stride, padding, dilation, groups, shuffle_groups, mask)
    return _empty(weight_size, grad, False).copy_(result)


def _fake(input, weight, bias, stride, padding, dilation, groups, shuffle_groups, relu):
    sides = [padding[0]] * 2 + [padding[1]] * 2
    return _empty(conv2d_size(input, weight, stride, sides, dilation), input, _is_channels_last(input))


def _fake_backward_input(grad, weight, input_size, stride, padding, dilation, groups, shuffle_groups, channels_last):
    return _empty(input_size, grad, channels_last)


def _fake_backward_weight(grad, input, weight_size, stride, padding, dilation, groups, shuffle_groups):
    return _empty(weight_size, grad, False)


def _products(output, weight) -> int:
    return 2 * output[0] * output[2] * output[3] * weight[0] * weight[1] * weight[2] * weight[3]


_CPU_RULE = (
    "PyTorch's convolution for channels_last input in one group, for kernels larger than 1x1 with a stride, with one "
    "or with more than 8 (channels_last: 4) channels to a group, in float32; in bfloat16 where the CPU has "
    "instructions for it, but for contiguous input with at most 20 (larger kernels: 4) channels to a group"
)
_CUDA_RULE = (
    "PyTorch's convolution for one group, for groups of 64 or more channels in and out, for one channel to a group "
    "with kernels larger than 1x1, and for float64"
)
_WINDOW = "SymInt[] stride, SymInt[] padding, SymInt[] dilation, SymInt groups, SymInt shuffle_groups"
_op = _library.define(
    f"grouped_conv2d_shuffle(Tensor input, Tensor weight, Tensor? bias, {_WINDOW}, bool relu) -> Tensor",
    reference=_reference,
    fake=_fake,
    triton="grouped_conv2d_shuffle",
    torch_rule={"CPU": _CPU_RULE, "CUDA": _CUDA_RULE},
    flops=lambda input, weight, *_, out_shape=None, **__: _products(out_shape, weight),
)
_backward_input_op = _library.define(
    f"grouped_conv2d_shuffle_backward_input(Tensor grad, Tensor weight, SymInt[] input_size, {_WINDOW}, "
    "bool channels_last) -> Tensor",
    reference=_reference_backward_input,
    fake=_fake_backward_input,
    triton="grouped_conv2d_shuffle",
    flops=lambda grad, weight, *_, **__: _products(grad, weight),
)
_backward_weight_op = _library.define(
    f"grouped_conv2d_shuffle_backward_weight(Tensor grad, Tensor input, SymInt[] weight_size, {_WINDOW}) -> Tensor",
    reference=_reference_backward_weight,
    fake=_fake_backward_weight,
    triton="grouped_conv2d_shuffle",
    flops=lambda grad, input, weight_size, *_, **__: _products(grad, weight_size),
)


def _setup_context(ctx, inputs, output):
    input, weight, _, *window, relu = inputs
    ctx.window, ctx.relu = window, relu
    ctx.save_for_backward(input, weight, *([output] if relu else []))


def _backward(ctx, grad):
    input, weight, *output = ctx.saved_tensors
    if ctx.relu:
        grad = torch.ops.aten.threshold_backward(grad, output[0], 0)
    grad_input = grad_weight = grad_bias = None
    if ctx.needs_input_grad[0]:
        grad_input = _library.call_backward(
            _backward_input_op, grad, weight, input.shape, *ctx.window, _is_channels_last(input)
        )
    if ctx.needs_input_grad[1]:
        grad_weight = _library.call_backward(_backward_weight_op, grad, input, weight.shape, *ctx.window)
    if ctx.needs_input_grad[2]:
        shuffle_groups = ctx.window[-1]
        grad_bias = grad.sum((0, 2, 3)).view(-1, shuffle_groups).t().reshape(-1)
    return grad_input, grad_weight, grad_bias, *[None] * 6


_library.autograd(_op, _backward, _setup_context)
