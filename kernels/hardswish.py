"""h-swish and its gradient: one flat pass over memory, whatever the layout."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcnn.kernels import _math
from fastcnn.kernels._configs import ELEMENTWISE
from fastcnn.kernels._launch import laid_out_as


# Aligned or not, or 1, makes no difference to the code: `n` needs no variants.
@triton.jit(do_not_specialize=["n"])
def _forward_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * BLOCK
    offsets = tl.arange(0, BLOCK)
    wide: tl.constexpr = tl.float64 if x_ptr.dtype.element_ty == tl.float64 else tl.float32
    # A mask whose bound is not a multiple of 16 would split every load into elements: only the last program has one.
    if start + BLOCK <= n:
        x = tl.load(x_ptr + start + offsets).to(wide)
        tl.store(out_ptr + start + offsets, _math.hardswish(x).to(out_ptr.dtype.element_ty))
    else:
        mask = offsets < n - start
        x = tl.load(x_ptr + start + offsets, mask=mask, other=0).to(wide)
        tl.store(out_ptr + start + offsets, _math.hardswish(x).to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["n"])
def _backward_kernel(grad_ptr, x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * BLOCK
    offsets = tl.arange(0, BLOCK)
    wide: tl.constexpr = tl.float64 if x_ptr.dtype.element_ty == tl.float64 else tl.float32
    if start + BLOCK <= n:
        grad = tl.load(grad_ptr + start + offsets).to(wide)
        x = tl.load(x_ptr + start + offsets).to(wide)
        tl.store(out_ptr + start + offsets, _math.times_hardswish_grad(grad, x).to(out_ptr.dtype.element_ty))
    else:
        mask = offsets < n - start
        grad = tl.load(grad_ptr + start + offsets, mask=mask, other=0).to(wide)
        x = tl.load(x_ptr + start + offsets, mask=mask, other=0).to(wide)
        result = _math.times_hardswish_grad(grad, x).to(out_ptr.dtype.element_ty)
        tl.store(out_ptr + start + offsets, result, mask=mask)


def hardswish(input: Tensor) -> Tensor:
    """h-swish of a CUDA tensor of any strides: float64, float32, bfloat16 or float16, computed in float32 or wider.

    The result is laid out as `torch.empty_like` does it. Deterministic.
    """
    out = torch.empty_like(input)
    _launch(_forward_kernel, (laid_out_as(input, out), out))
    return out


def hardswish_backward(grad: Tensor, input: Tensor) -> Tensor:
    """The gradient of :func:`hardswish` with respect to `input`, of its dtype, given that of the result."""
    out = torch.empty_like(input)
    _launch(_backward_kernel, (laid_out_as(grad, out), laid_out_as(input, out), out))
    return out


def _launch(kernel: triton.JITFunction, tensors: tuple[Tensor, ...]) -> None:
    out = tensors[-1]
    n = out.numel()
    if n == 0:
        return
    config = ELEMENTWISE[out.element_size()]
    # Triton launches on the current device, whatever that of the tensors.
    with torch.cuda.device_of(out):
        kernel[(-(-n // config.block),)](
            *tensors, n, BLOCK=config.block, num_warps=config.num_warps, enable_fp_fusion=False
        )
