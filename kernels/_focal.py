"""What the focal losses share: the focal factor, and sums in a fixed order."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcnn.kernels._configs import PARTIAL_SUMS
from fastcnn.kernels._launch import launch, require

NONE, MEAN, SUM = range(3)  # As at::Reduction.
OTHER = -1  # A gamma that kernels get as a number.


def power_of(gamma: float) -> int:
    """The gamma that a kernel is compiled for: everybody's is 2."""
    return int(gamma) if gamma in (0, 1, 2) else OTHER


@triton.jit
def modulation(miss, gamma, POWER: tl.constexpr):
    """miss^gamma, the factor that turns a cross-entropy into a focal loss (Lin et al. 2017, section 3.2)."""
    if POWER == 0:
        return miss * 0 + 1
    elif POWER == 1:
        return miss
    elif POWER == 2:
        return miss * miss
    else:
        return tl.exp(gamma * tl.log(miss))


@triton.jit
def load(ptr, offsets, mask, WHOLE: tl.constexpr):
    """Masks cost as much as a load where their bound is not a multiple of 16: only the last block has one."""
    return tl.load(ptr + offsets) if WHOLE else tl.load(ptr + offsets, mask=mask, other=0)


@triton.jit
def store(ptr, offsets, value, mask, WHOLE: tl.constexpr):
    value = value.to(ptr.dtype.element_ty)
    if WHOLE:
        tl.store(ptr + offsets, value)
    else:
        tl.store(ptr + offsets, value, mask=mask)


@triton.jit
def divisor_of(count_ptr, divisor, COUNTED: tl.constexpr):
    return tl.load(count_ptr).to(tl.float32) if COUNTED else divisor


@triton.jit(do_not_specialize=["partials"])
def _add_up_kernel(partial_ptr, count_ptr, out_ptr, partials, divisor, COUNTED: tl.constexpr, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    total = tl.sum(tl.load(partial_ptr + offsets, mask=offsets < partials, other=0).to(tl.float64))
    total = total.to(tl.float32) / divisor_of(count_ptr, divisor, COUNTED)
    tl.store(out_ptr, total.to(out_ptr.dtype.element_ty))


def add_up(partial: Tensor, like: Tensor, count: Tensor | None, divisor: float) -> Tensor:
    """The sum of `partial`, over `count` on the device or else over `divisor`, as a scalar of the dtype of `like`."""
    out = like.new_empty(())
    options = {"COUNTED": count is not None, "BLOCK": triton.next_power_of_2(partial.numel()), "num_warps": 4}
    args = (partial, partial if count is None else count, out, partial.numel(), divisor)
    launch(_add_up_kernel, 1, like, *args, **options, enable_fp_fusion=True)
    return out


def nothing(like: Tensor, reduction: int) -> Tensor:
    """The loss of no elements."""
    return like.new_full((), float("nan") if reduction == MEAN else 0.0)


def counted(target: Tensor, ignore_index: int) -> Tensor:
    """How many targets a mean is over; it stays on the device."""
    return (target != ignore_index).sum()


def has_numbers(name: str, grad: Tensor, reduction: int, losses: Tensor) -> bool:
    """Checks the gradient of a loss, one for each of `losses` before their reduction; whether it is several numbers.

    It is not if it was expanded from one, as that of a sum is.
    """
    fits = grad.shape == losses.shape if reduction == NONE else grad.numel() == 1
    require(fits, f"{name}: expected a gradient like the loss")
    return any(size > 1 and stride != 0 for size, stride in zip(grad.shape, grad.stride(), strict=True))


def empty_partials(blocks: int, like: Tensor) -> Tensor:
    return torch.empty(min(blocks, PARTIAL_SUMS), dtype=torch.float32, device=like.device)
