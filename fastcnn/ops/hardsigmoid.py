"""Hard sigmoid: ReLU6(x + 3) / 6 (Howard et al. 2019, Searching for MobileNetV3, section 5.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcnn.ops import _activations, _checks, _library

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
    if _mode.name == "auto" and (inplace or _activations.torch_is_as_fast(input)):
        try:
            return _torch_in_place(input) if inplace else _torch(input)
        except (NotImplementedError, RuntimeError, TypeError):
            _checks.floating("hardsigmoid", input=input)
            raise
    _checks.floating("hardsigmoid", input=input)
    if inplace:
        return input.copy_(_library.call(_op, input))
    return _library.call(_op, input)


def _reference(input: Tensor) -> Tensor:
    wide = input if input.dtype == torch.float64 else input.float()
    # Not clamp() alone, whose derivative at the knees is that of the slope between them.
    gate = torch.where((wide > -3) & (wide < 3), (wide + 3) / 6, (wide.detach() + 3).clamp(0, 6) / 6)
    return torch.empty_like(input).copy_(gate)


def _reference_backward(grad: Tensor, input: Tensor) -> Tensor:
    inside = (input > -3) & (input < 3)
    return torch.empty_like(input).copy_(torch.where(inside, grad * (1 / 6), 0))


_op = _activations.define("hardsigmoid", _reference, _reference_backward)
