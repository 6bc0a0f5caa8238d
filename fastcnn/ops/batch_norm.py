"""Batch normalisation with the activation that follows it (Ioffe and Szegedy 2015, Algorithms 1 and 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._prims_common import suggest_memory_format

from fastcnn.ops import _checks, _library
from fastcnn.ops._convolutions import ACTIVATIONS, FUNCTIONS, activation_backward, in_float32

_SMALL = 1 << 18  # Elements.
_PLANE = 256  # Pixels.
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
    if _library.mode.name == "auto" and _torch_is_faster(input):
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


def _torch_is_faster(input: Tensor) -> bool:
    size, planes = input.numel(), input.size(0) * input.size(1)
    if input.device.type == "cuda" or (planes < size < _PLANE * planes and input.is_contiguous()):
        return True
    return 0 < size < _SMALL  # A pass over so few takes no longer than Python does.


def _check(input: Tensor, vectors: tuple[Tensor | None, ...], training: bool) -> None:
    given = [t for t in vectors if t is not None]
    if (
        not all(isinstance(t, Tensor) for t in (input, *given))
        or input.dim() < 2
        or input.dtype not in _checks.FLOATING
    ):
        _raise(input, vectors)
    shape, device = input.shape, input.device
    dtype = given[0].dtype if given else input.dtype
    if dtype != input.dtype and dtype != _wide(input.dtype):
        _raise(input, vectors)
    for t in given:
        if t.dtype != dtype or t.device != device or t.dim() != 1 or t.size(0) != shape[1]:
            _raise(input, vectors)
    mean, variance, *_ = vectors
    if (mean is None) != (variance is None):
        raise ValueError("batch_norm: expected both running statistics or neither, got only one")
    if not training and mean is None:
        raise ValueError("batch_norm: expected running_mean and running_var when not training, got None")
    if training and input.numel() == shape[1]:
        raise ValueError(
            f"batch_norm: expected more than 1 value per channel when training, got input of shape {tuple(shape)}"
        )


def _raise(input: Tensor, vectors: tuple[Tensor | None, ...]) -> None:
    """Says what is wrong with tensors of which something is."""
    given = {name: t for name, t in zip(_VECTORS, vectors, strict=True) if t is not None}
    _checks.floating("batch_norm", input=input, **given)
    if input.dim() < 2:
        raise ValueError(f"batch_norm: expected input of shape [N, C, *], got {tuple(input.shape)}")
    for name, t in given.items():
        if t.shape != input.shape[1:2]:
            raise ValueError(f"batch_norm: expected {name} of shape ({input.size(1)},), got {tuple(t.shape)}")
    _checks.same_device("batch_norm", input=input, **given)
    listed = ", ".join(f"{name} {t.dtype}" for name, t in {"input": input, **given}.items())
    raise TypeError(f"batch_norm: expected vectors of the dtype of input, or float32 for 16 bits, got {listed}")


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


_TORCH_RULE = {
    "CPU": "PyTorch's batch norm for NCHW of fewer than 256 pixels, and for less than 262,144 elements",
    "CUDA": "PyTorch's batch norm, always",
}
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
    needs = ctx.needs_input_grad
    wanted = needs[0], needs[3], needs[4]
    if torch.is_grad_enabled():
        # Differentiable in its turn: the gradients of the forward pass, done once more.
        inputs = [t for t, needed in zip((input, weight, bias), wanted, strict=True) if needed]
        result = _again(input, saved, weight, bias, training, eps, activation)
        given = iter(torch.autograd.grad(result, inputs, grad, create_graph=True))
        grads = [next(given) if needed else None for needed in wanted]
    else:
        args = grad, input, saved, weight, bias, training, activation, needs[0], needs[3] or needs[4]
        grads = [
            None if not needed else g if g.dtype == t.dtype else g.to(t.dtype)
            for g, t, needed in zip(
                _library.call_backward(_backward_op, *args), (input, weight, bias), wanted, strict=True
            )
        ]
    return grads[0], None, None, grads[1], grads[2], None, None, None


def _again(input, saved, weight, bias, training, eps, activation):
    x, scale, shift = in_float32(input, weight, bias)
    mean, invstd, _ = saved
    if training:
        mean, variance = _statistics(x)
        invstd = (variance + eps).rsqrt()
    return FUNCTIONS[activation](_line(x, mean, invstd, scale, shift)).to(input.dtype)


_library.autograd(_op, _backward, _setup_context)
