"""What elementwise activations share: PyTorch's kernels run at the speed of memory, ours where they are faster."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastcnn.ops import _library

_SMALL = 1 << 19  # Elements below which what a call of ours costs more than PyTorch's is not won back.
_HALVES = (torch.float16, torch.bfloat16)
_TORCH_RULE = {
    "CPU": "PyTorch's own kernel but for large inference in 16-bit types",
    "CUDA": "PyTorch's own kernel, which is at the speed of memory",
}


def torch_is_as_fast(input: Tensor) -> bool:
    # The dtype first: it settles most calls, and every tenth of a microsecond here is on top of PyTorch's time.
    if getattr(input, "dtype", None) not in _HALVES or input.numel() < _SMALL or input.device.type != "cpu":
        return True
    # What is won in the forward pass is lost again to the bookkeeping of autograd.
    return input.requires_grad and torch.is_grad_enabled()


def define(
    name: str,
    reference: Callable[[Tensor], Tensor],
    reference_backward: Callable[[Tensor, Tensor], Tensor],
    triton: str | None = None,
) -> _library.Op:
    """Defines ``fastcnn::<name>`` of one tensor and, as its gradient, ``<name>_backward`` of the gradient and it."""
    op = _library.define(
        f"{name}(Tensor input) -> Tensor",
        reference=reference,
        fake=torch.empty_like,
        triton=triton,
        torch_rule=_TORCH_RULE,
    )
    backward_op = _library.define(
        f"{name}_backward(Tensor grad, Tensor input) -> Tensor",
        reference=reference_backward,
        fake=lambda grad, input: torch.empty_like(input),
        triton=triton,
        torch_rule=_TORCH_RULE,
    )

    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])

    def backward(ctx, grad):
        return _library.call_backward(backward_op, grad, ctx.saved_tensors[0])

    _library.autograd(op, backward, setup_context)
    return op
