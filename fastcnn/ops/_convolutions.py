"""What ops that are convolutions with an activation share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._prims_common import suggest_memory_format

from fastcnn.kernels._shapes import conv2d_size as conv2d_size  # For layers too, which kernels are not for.

ACTIVATIONS = (None, "relu", "relu6", "hardswish", "silu")  # Numbered as in the kernels.
FUNCTIONS = (lambda x: x, F.relu, F.relu6, F.hardswish, F.silu)
RELU = 1  # Which is the leaky ReLU where it has a slope.
FROM_RESULT = (0, 1, 2)  # Activations whose gradient can be told from their result.

# Whether PyTorch's bfloat16 convolutions have instructions of their own, which our kernels do not use.
HAS_BF16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()


def in_float32(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    return tuple(t if t is None or t.dtype == torch.float64 else t.float() for t in tensors)


def wide(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    # PyTorch's 16-bit convolutions on a CPU round in between; on a GPU they are what there is to run.
    first = next(t for t in tensors if t is not None)
    return in_float32(*tensors) if first.device.type in ("cpu", "meta") else tensors


def activate(activation: int, x: Tensor, slope: float = 0.0) -> Tensor:
    """The activation of that number; ReLU with a slope is the leaky one."""
    return F.leaky_relu(x, slope) if slope else FUNCTIONS[activation](x)


def activation_backward(activation: int, grad: Tensor, at: Tensor | None, slope: float = 0.0) -> Tensor:
    """The gradient before the activation; `at` is its result if that tells (FROM_RESULT), else its input."""
    if slope:
        return torch.ops.aten.leaky_relu_backward(grad, at, slope, True)
    if activation == RELU:
        return torch.ops.aten.threshold_backward(grad, at, 0)
    if activation == 2:
        return torch.ops.aten.hardtanh_backward(grad, at, 0, 6)
    if activation == 3:
        return torch.ops.aten.hardswish_backward(grad, at)
    if activation == 4:
        assert at is not None
        gate = at.sigmoid()
        return grad * gate * (1 + at * (1 - gate))
    return grad


def empty(size: Sequence[int], like: Tensor) -> Tensor:
    layout = suggest_memory_format(like)
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=layout)


def laid_out(result: Tensor, like: Tensor) -> Tensor:
    if suggest_memory_format(result) == suggest_memory_format(like) and result.dtype == like.dtype:
        return result
    return empty(result.shape, like).copy_(result)
