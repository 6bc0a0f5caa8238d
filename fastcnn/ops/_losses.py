"""What the losses share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastcnn.ops import _checks, _library

NONE, MEAN, SUM = range(3)  # As at::Reduction.
_REDUCTIONS = {"none": NONE, "mean": MEAN, "sum": SUM}


def reduction_code(op: str, reduction: Any) -> int:
    if not isinstance(reduction, str) or reduction not in _REDUCTIONS:
        raise ValueError(f"{op}: expected reduction 'none', 'mean' or 'sum', got {reduction!r}")
    return _REDUCTIONS[reduction]


def check_gamma(op: str, gamma: Any) -> None:
    _checks.number(op, gamma=gamma)
    if not 0 <= gamma < math.inf:
        raise ValueError(f"{op}: expected a finite gamma of at least 0, got {gamma}")


def is_index(targets: Tensor) -> bool:
    return not targets.is_floating_point() and not targets.is_complex() and targets.dtype != torch.bool


def wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def check_indices(op: str, targets: Tensor, ignore_index: int, classes: int, lowest: int | None = None) -> None:
    """Raises for the first index that is no class, where looking costs no wait."""
    if targets.device.type != "cpu":
        return
    wrong = targets >= classes
    if lowest is not None:
        wrong = wrong | (targets < lowest)
    wrong = (wrong & (targets != ignore_index)).flatten()
    if bool(wrong.any()):
        at = int(wrong.nonzero()[0])
        index = int(targets.flatten()[at])
        raise IndexError(f"{op}: target {index} at position {at} is none of the {classes} classes")


def differentiable(
    op: _library.Op, backward_op: _library.Op, reference_backward: Callable[..., Tensor], tensors: int
) -> None:
    """Wires the gradient in the input of a loss whose first `tensors` arguments are tensors."""

    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[:tensors])
        ctx.args = inputs[tensors:]

    def backward(ctx, grad):
        # Asked for a gradient that has one itself: the reference's formula has.
        if torch.is_grad_enabled():
            result = reference_backward(grad, *ctx.saved_tensors, *ctx.args)
        else:
            result = _library.call_backward(backward_op, grad, *ctx.saved_tensors, *ctx.args)
        return result, *[None] * (tensors - 1 + len(ctx.args))

    _library.autograd(op, backward, setup_context)
