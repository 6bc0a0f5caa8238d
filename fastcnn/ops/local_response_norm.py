"""Local response normalisation across channels (AlexNet: Krizhevsky et al. 2012, section 3.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._prims_common import suggest_memory_format

from fastcnn.ops import _checks, _library

_TORCH_RULE = {"CUDA": "PyTorch's reference for float64 and windows of more than 9 channels"}


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """Divides by ``(k + alpha / size * sum of squares) ** beta``, as :func:`torch.nn.functional.local_response_norm`.

    The sum goes over `size` channels around each: ``size // 2`` before it and ``(size - 1) // 2`` after it, as far as
    they exist. The paper's alpha is not divided by the size.

    Args:
        input: ``[N, C, *]``, 3 dimensions or more; float64, float32, bfloat16 or float16 (16-bit types are computed
            in float32). NCHW and channels_last are taken as they lie, and kept; other layouts give a contiguous result.
        size: channels in a window.
        alpha: factor on the mean square, once divided by the size.
        beta: exponent. 0.75, 0.5 and 1 are computed by roots, which is faster.
        k: added to the mean square.

    Returns:
        A tensor of the shape and dtype of `input`.

    Raises:
        ValueError: fewer than 3 dimensions, or a size below 1.
        TypeError: `input` is not a floating-point tensor, or an argument not a number.

    Differentiable in `input`, once. Deterministic, for any number of threads. Under autocast the result keeps
    the dtype of `input`.
    """
    _checks.floating("local_response_norm", input=input)
    if input.dim() < 3:
        raise ValueError(f"local_response_norm: expected input with 3 or more dimensions, got {tuple(input.shape)}")
    if type(size) is not int:
        _checks.integer("local_response_norm", size=size)
    if not type(alpha) is type(beta) is type(k) is float:
        _checks.number("local_response_norm", alpha=alpha, beta=beta, k=k)
    if size < 1:
        raise ValueError(f"local_response_norm: expected a positive size, got {size}")
    return _library.call(_op, input, int(size), float(alpha), float(beta), float(k))


def _like(input: Tensor) -> Tensor:
    layout = suggest_memory_format(input) if input.dim() == 4 else torch.contiguous_format
    return torch.empty_like(input, memory_format=layout)


def _window_sum(x: Tensor, before: int, after: int) -> Tensor:
    """Of ``[N, C, *]``, over the channels from `before` before to `after` after each."""
    rows = F.pad(x.flatten(2), (0, 0, before, after))
    return rows.unfold(1, before + after + 1, 1).sum(-1).view(x.shape)


def _reference(input, size, alpha, beta, k):
    wide = input if input.dtype == torch.float64 else input.float()
    if input.numel() == 0:
        return _like(input).copy_(wide)
    reach = input.size(1) - 1
    squares = _window_sum(wide * wide, min(size // 2, reach), min((size - 1) // 2, reach))
    return _like(input).copy_(wide * (k + alpha / size * squares).pow(-beta))


def _reference_backward(grad, input, size, alpha, beta, k):
    if input.numel() == 0:
        return _like(input)
    wide = input if input.dtype == torch.float64 else input.float()
    reach = input.size(1) - 1
    before, after = min(size // 2, reach), min((size - 1) // 2, reach)
    scale = alpha / size
    base = k + scale * _window_sum(wide * wide, before, after)
    # A channel is in the windows of those from `after` before it to `before` after it.
    through = _window_sum(grad * wide * base.pow(-beta - 1), after, before)
    return _like(input).copy_(grad * base.pow(-beta) - 2 * scale * beta * wide * through)


def _flops(input, size, *_, out_shape=None, **__):
    elements = 1
    for n in input:
        elements *= n
    return elements * (size + 4)


_op = _library.define(
    "local_response_norm(Tensor input, int size, float alpha, float beta, float k) -> Tensor",
    reference=_reference,
    fake=lambda input, *_: _like(input),
    triton="local_response_norm",
    torch_rule=_TORCH_RULE,
    flops=_flops,
)
_backward_op = _library.define(
    "local_response_norm_backward(Tensor grad, Tensor input, int size, float alpha, float beta, float k) -> Tensor",
    reference=_reference_backward,
    fake=lambda grad, input, *_: _like(input),
    triton="local_response_norm",
    torch_rule=_TORCH_RULE,
    flops=lambda grad, input, size, *_, out_shape=None, **__: 2 * _flops(input, size),
)


def _setup_context(ctx, inputs, output):
    ctx.save_for_backward(inputs[0])
    ctx.args = inputs[1:]


def _backward(ctx, grad):
    return _library.call_backward(_backward_op, grad, ctx.saved_tensors[0], *ctx.args), None, None, None, None


_library.autograd(_op, _backward, _setup_context)
