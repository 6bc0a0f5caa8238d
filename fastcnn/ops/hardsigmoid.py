"""Hard sigmoid: ReLU6(x + 3) / 6 (Howard et al. 2019, Searching for MobileNetV3, section 5.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcnn.ops import _checks, _library

_SMALL = 1 << 19  # Elements below which what a call of ours costs more than PyTorch's is not won back.
_HALF = torch.float16
_mode = _library.mode
# What torch.nn.functional.hardsigmoid calls, without its own microseconds.
_torch, _torch_in_place = torch._C._nn.hardsigmoid, torch._C._nn.hardsigmoid_


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """Applies the hard sigmoid elementwise, as :func:`torch.nn.functional.hardsigmoid`.

    The gradient is 1/6 between -3 and 3 and 0 elsewhere, at both knees and for NaN too; NaN gives NaN. Deterministic.

    Args:
        input: any shape and strides; float64, float32, bfloat16 or float16 (16-bit types are computed in float32).
        inplace: overwrite `input`; PyTorch's own kernel does it.

    Returns:
        A tensor of the shape, dtype and dense layout of `input`.

    Raises:
        TypeError: `input` is not a floating-point tensor.

    PyTorch's kernel is at the speed of memory for most inputs, and where ours is not faster this function calls it: see
    ``fastcnn.report()``.
    """
    if _mode.name == "auto" and (inplace or _torch_is_as_fast(input)):
        try:
            return _torch_in_place(input) if inplace else _torch(input)
        except (NotImplementedError, RuntimeError, TypeError):
            _checks.floating("hardsigmoid", input=input)
            raise
    _checks.floating("hardsigmoid", input=input)
    if inplace:
        return input.copy_(_library.call(_op, input))
    return _library.call(_op, input)


def _torch_is_as_fast(input: Tensor) -> bool:
    # The dtype first: it settles most calls, and every tenth of a microsecond here is on top of PyTorch's time.
    if getattr(input, "dtype", None) is not _HALF or input.numel() < _SMALL or input.device.type != "cpu":
        return True
    # What is won in the forward pass is lost again to the bookkeeping of autograd.
    return input.requires_grad and torch.is_grad_enabled()


def _reference(input: Tensor) -> Tensor:
    wide = input if input.dtype == torch.float64 else input.float()
    # Not clamp() alone, whose derivative at the knees is that of the slope between them.
    gate = torch.where((wide > -3) & (wide < 3), (wide + 3) / 6, (wide.detach() + 3).clamp(0, 6) / 6)
    return torch.empty_like(input).copy_(gate)


def _reference_backward(grad: Tensor, input: Tensor) -> Tensor:
    inside = (input > -3) & (input < 3)
    return torch.empty_like(input).copy_(torch.where(inside, grad * (1 / 6), 0))


_TORCH_RULE = {
    "CPU": "PyTorch's own kernel but for large float16 inference",
    "CUDA": "PyTorch's own kernel, which is at the speed of memory",
}

_op = _library.define(
    "hardsigmoid(Tensor input) -> Tensor",
    reference=_reference,
    fake=torch.empty_like,
    torch_rule=_TORCH_RULE,
)
_backward_op = _library.define(
    "hardsigmoid_backward(Tensor grad, Tensor input) -> Tensor",
    reference=_reference_backward,
    fake=lambda grad, input: torch.empty_like(input),
    torch_rule=_TORCH_RULE,
)


def _setup_context(ctx, inputs, output):
    ctx.save_for_backward(inputs[0])


def _backward(ctx, grad):
    return _library.call_backward(_backward_op, grad, ctx.saved_tensors[0])


_library.autograd(_op, _backward, _setup_context)
