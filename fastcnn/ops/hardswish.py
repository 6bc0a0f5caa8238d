"""h-swish: x * ReLU6(x + 3) / 6 (Howard et al. 2019, Searching for MobileNetV3, section 5.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcnn.ops import _activations, _checks, _library

_mode = _library.mode
# What torch.nn.functional.hardswish calls, without its own microseconds.
_torch, _torch_in_place = torch._C._nn.hardswish, torch._C._nn.hardswish_


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """Applies h-swish elementwise, as :func:`torch.nn.functional.hardswish`.

    The gradient is 0 up to and at -3 and 1 from and at +3; NaN and -inf give NaN. Deterministic.

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
    if _mode.name == "auto" and (inplace or _activations.torch_is_as_fast(input)):
        try:
            return _torch_in_place(input) if inplace else _torch(input)
        except (NotImplementedError, TypeError):
            _checks.floating("hardswish", input=input)
            raise
    _checks.floating("hardswish", input=input)
    if inplace:
        return input.copy_(_library.call(_op, input))
    return _library.call(_op, input)


def _reference(input: Tensor) -> Tensor:
    wide = input if input.dtype == torch.float64 else input.float()
    # Not clamp(), whose derivative at the knees is that of the slope between them.
    gate = torch.where(wide <= -3, 0, torch.where(wide >= 3, 1, (wide + 3) / 6))
    return torch.empty_like(input).copy_(wide * gate)


def _reference_backward(grad: Tensor, input: Tensor) -> Tensor:
    wide = input if input.dtype == torch.float64 else input.float()
    inner = grad * (wide / 3 + 0.5)
    result = torch.where(wide <= -3, torch.zeros_like(inner), torch.where(wide >= 3, grad.to(inner.dtype), inner))
    return torch.empty_like(input).copy_(result)


_op = _activations.define("hardswish", _reference, _reference_backward, triton="hardswish")
