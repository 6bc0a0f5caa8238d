"""Batch normalisation with the activation that follows it (Ioffe and Szegedy 2015, Algorithms 1 and 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._prims_common import suggest_memory_format

from fastcnn.ops import _checks, _library
from fastcnn.ops._convolutions import ACTIVATIONS, FUNCTIONS, activation_backward, in_float32

_VECTORS = ("running_mean", "running_var", "weight", "bias")


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str | None = None,
) -> Tensor:
    """``activation(F.batch_norm(...))`` with the arguments of :func:`torch.nn.functional.batch_norm`, in one op.

    Args:
        input: ``[N, C, *]``; float64, float32, bfloat16 or float16, computed in float32 (float64 for float64). NCHW and
            channels_last are taken as they lie, and kept; other layouts give a contiguous result.
        running_mean, running_var: ``[C]``, both or neither. Without `training` they normalise; with it they are
            updated in place, the latter with the unbiased variance.
        weight, bias: ``[C]`` or None.
        training: whether mean and variance are the batch's.
        momentum: share of the batch in what the running ones become.
        eps: added to the variance.
        activation: None, "relu", "relu6", "hardswish" or "silu".

    Returns:
        A tensor of the shape and dtype of `input`.

    Raises:
        TypeError: a tensor that is not floating-point; the vectors not of one dtype, which is that of `input` or, for
            16-bit input, float32.
        ValueError: shapes that do not fit, one value per channel in training, running statistics that are missing, an
            unknown activation, or tensors on two devices.

    Differentiable in input, weight and bias, twice. Of the activations only `input` is kept for the backward pass. Sums
    are of distances from a number near the mean, in a fixed order: deterministic, on the CPU whatever the number of
    threads. Under autocast the result keeps the dtype of `input`.

    Where PyTorch is faster (see ``fastcnn.report()``) this function calls that.
    """
    _check(input, (running_mean, running_var, weight, bias), training)
    if activation not in ACTIVATIONS:
        raise ValueError(f"batch_norm: expected activation to be one of {ACTIVATIONS}, got {activation!r}")
    kind = ACTIVATIONS.index(activation)
    if _library.mode.name == "auto" and _torch_is_faster(input, training, kind):
        return FUNCTIONS[kind](F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps))
    if not training:
        result, _ = _library.call(_op, input, running_mean, running_var, weight, bias, False, eps, kind)
        return result  # type: ignore[no-any-return]
    result, saved = _library.call(_op, input, None, None, weight, bias, True, eps, kind)
    if running_mean is not None and input.numel() > 0:
        mean, _, variance = (
            saved.unbind() if saved.dtype == running_mean.dtype else saved.to(running_mean.dtype).unbind()
        )
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(variance, momentum)  # type: ignore[union-attr]
    return result  # type: ignore[no-any-return]


def _torch_is_faster(input: Tensor, training: bool, kind: int) -> bool:
    return input.device.type == "cuda"


def _check(input: Tensor, vectors: tuple[Tensor | None, ...], training: bool) -> None:
    given = {name: t for name, t in zip(_VECTORS, vectors, strict=True) if t is not None}
    _checks.floating("batch_norm", input=input, **given)
    if input.dim() < 2:
        raise ValueError(f"batch_norm: expected input of shape [N, C, *], got {tuple(input.shape)}")
    shape, device = input.shape, input.device
    channels = shape[1]
    dtypes = {t.dtype for t in given.values()}
    if len(dtypes) > 1 or not dtypes <= {input.dtype, _wide(input.dtype)}:
        listed = ", ".join(f"{name} {t.dtype}" for name, t in {"input": input, **given}.items())
        raise TypeError(f"batch_norm: expected vectors of the dtype of input, or float32 for 16 bits, got {listed}")
    for name, t in given.items():
        if t.shape != (channels,):
            raise ValueError(f"batch_norm: expected {name} of shape ({channels},), got {tuple(t.shape)}")
        if t.device != device:
            _checks.same_device("batch_norm", input=input, **given)
    if ("running_mean" in given) != ("running_var" in given):
        raise ValueError(f"batch_norm: expected both running statistics or neither, got only {next(iter(given))}")
    if not training and "running_mean" not in given:
        raise ValueError("batch_norm: expected running_mean and running_var when not training, got None")
    if training and input.numel() == channels:
        raise ValueError(
            f"batch_norm: expected more than 1 value per channel when training, got input of shape {tuple(shape)}"
        )


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _like(input: Tensor) -> Tensor:
    layout = suggest_memory_format(input) if input.dim() == 4 else torch.contiguous_format
    return torch.empty_like(input, memory_format=layout)


def _column(vector: Tensor, like: Tensor) -> Tensor:
    return vector.view(-1, *[1] * (like.dim() - 2))


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of every channel; 0 where there is nothing."""
    if x.numel() == 0:
        return x.new_zeros(x.size(1)), x.new_zeros(x.size(1))
    variance, mean = torch.var_mean(x, [d for d in range(x.dim()) if d != 1], correction=0)
    return mean, variance


def _line(x, mean, invstd, weight, bias):
    """What the activation is applied to."""
    result = (x - _column(mean, x)) * _column(invstd, x)
    if weight is not None:
        result = result * _column(weight, x)
    return result if bias is None else result + _column(bias, x)


def _reference(input, running_mean, running_var, weight, bias, training, eps, activation):
    x, mean, variance, weight, bias = in_float32(input, running_mean, running_var, weight, bias)
    unbiased = variance
    if training:
        mean, variance = _statistics(x)
        n = input.numel() // max(input.size(1), 1)
        unbiased = variance * (n / max(n - 1, 1))
    invstd = (variance + eps).rsqrt()
    result = FUNCTIONS[activation](_line(x, mean, invstd, weight, bias))
    return _like(input).copy_(result), torch.stack([mean, invstd, unbiased]).detach()


def _reference_backward(grad, input, saved, weight, bias, training, activation, needs_input, needs_parameters):
    grad, x, weight, bias = in_float32(grad, input, weight, bias)
    mean, invstd, _ = saved
    g = activation_backward(activation, grad, _line(x, mean, invstd, weight, bias))
    normal = (x - _column(mean, x)) * _column(invstd, x)
    every = [d for d in range(x.dim()) if d != 1]
    of_weight, of_bias = (g * normal).sum(every), g.sum(every)
    if training and input.numel() > 0:
        n = input.numel() // input.size(1)
        g = g - (_column(of_bias, x) + normal * _column(of_weight, x)) / n
    g = g * _column(invstd if weight is None else invstd * weight, x)
    nothing = saved.new_empty(0)
    return (
        _like(input).copy_(g) if needs_input else input.new_empty(0),
        of_weight if needs_parameters else nothing,
        of_bias if needs_parameters else nothing.clone(),
    )


def _fake(input, *_):
    return _like(input), input.new_empty((3, input.size(1)), dtype=_wide(input.dtype))


def _fake_backward(grad, input, saved, weight, bias, training, activation, needs_input, needs_parameters):
    size = input.size(1) if needs_parameters else 0
    return _like(input) if needs_input else input.new_empty(0), saved.new_empty(size), saved.new_empty(size)


def _numel(shape):
    n = 1
    for size in shape:
        n *= size
    return n


_TORCH_RULE = {"CUDA": "PyTorch's batch norm, always"}
_op = _library.define(
    # The second result is, of every channel, the mean, 1 / deviation and unbiased variance.
    "batch_norm(Tensor input, Tensor? running_mean, Tensor? running_var, Tensor? weight, Tensor? bias, bool training, "
    "float eps, int activation) -> (Tensor, Tensor)",
    reference=_reference,
    fake=_fake,
    torch_rule=_TORCH_RULE,
    flops=lambda input, *_, out_shape=None, **__: 5 * _numel(input),
)
_backward_op = _library.define(
    "batch_norm_backward(Tensor grad, Tensor input, Tensor saved, Tensor? weight, Tensor? bias, bool training, "
    "int activation, bool needs_input, bool needs_parameters) -> (Tensor, Tensor, Tensor)",
    reference=_reference_backward,
    fake=_fake_backward,
    torch_rule=_TORCH_RULE,
    flops=lambda grad, *_, out_shape=None, **__: 9 * _numel(grad),
)


def _setup_context(ctx, inputs, output):
    input, _, _, weight, bias, *ctx.args = inputs
    saved = output[1]
    ctx.mark_non_differentiable(saved)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(input, saved, weight, bias)


def _backward(ctx, grad, _):
    if grad is None:
        return (None,) * 8
    input, saved, weight, bias = ctx.saved_tensors
    training, eps, activation = ctx.args
    needed = ctx.needs_input_grad
    of_input, of_weight, of_bias = needed[0], needed[3], needed[4]
    if torch.is_grad_enabled():
        grads = iter(_differentiable_backward(ctx, grad))
        of_input, of_weight, of_bias = (next(grads) if wanted else None for wanted in (of_input, of_weight, of_bias))
    else:
        args = grad, input, saved, weight, bias, training, activation, of_input, of_weight or of_bias
        grads = _library.call_backward(_backward_op, *args)
        of_input, of_weight, of_bias = (
            g if wanted else None for g, wanted in zip(grads, (of_input, of_weight, of_bias))
        )
        if of_weight is not None and of_weight.dtype != weight.dtype:
            of_weight = of_weight.to(weight.dtype)
        if of_bias is not None and of_bias.dtype != bias.dtype:
            of_bias = of_bias.to(bias.dtype)
    return of_input, None, None, of_weight, of_bias, None, None, None


def _differentiable_backward(ctx, grad):
    """The gradients that are needed, by differentiating the forward pass once more."""
    input, saved, weight, bias = ctx.saved_tensors
    training, eps, activation = ctx.args
    x, scale, shift = in_float32(input, weight, bias)
    mean, invstd, _ = saved
    if training:
        mean, variance = _statistics(x)
        invstd = (variance + eps).rsqrt()
    result = FUNCTIONS[activation](_line(x, mean, invstd, scale, shift)).to(input.dtype)
    needed = ctx.needs_input_grad
    inputs = [t for t, wanted in zip((input, weight, bias), (needed[0], needed[3], needed[4]), strict=True) if wanted]
    return torch.autograd.grad(result, inputs, grad, create_graph=True)


_library.autograd(_op, _backward, _setup_context)
