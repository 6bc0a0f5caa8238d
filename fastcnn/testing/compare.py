"""How far a result may be from the float64 one, from its dtype and from how many products it sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# How far apart results may be, by their norm, that were rounded after every step, through many layers too.
APART = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1.5e-1}

_ROUNDING = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 5e-4, torch.bfloat16: 4e-3}


def assert_close_to(actual: Tensor, exact: Tensor, *, reduction: int = 1, what: str = "result") -> None:
    """Raises AssertionError unless `actual` is `exact` (float64) up to rounding in its own dtype.

    Errors of a sum grow with the square root of its length, and are measured against the largest value around, since
    terms may cancel. 16-bit results are rounded once, from float32.
    """
    assert actual.shape == exact.shape, f"{what}: shape {tuple(actual.shape)}, expected {tuple(exact.shape)}"
    if actual.numel() == 0:
        return
    rounded = exact.to(actual.dtype).double()
    exact = torch.where(rounded.isinf(), rounded, exact)  # What overflows in the dtype is infinite there.
    unit = _ROUNDING[actual.dtype]
    accumulate = _ROUNDING[torch.float32] if unit > _ROUNDING[torch.float32] else unit
    scale = exact[exact.isfinite()].abs().max().item() if exact.isfinite().any() else 1.0
    torch.testing.assert_close(
        actual.double(),
        exact,
        rtol=unit,
        atol=accumulate * max(scale, 1.0) * reduction**0.5 + unit * scale * 1e-3,
        equal_nan=True,
        msg=lambda text: f"{what}: {text}",
    )


def assert_near(actual: Tensor, wanted: Tensor, most: float, *, what: str = "result", whose: str = "exact") -> None:
    """Raises AssertionError unless the norm of the difference is at most `most` times that of what is `wanted`."""
    assert actual.shape == wanted.shape, f"{what}: shape {tuple(actual.shape)}, expected {tuple(wanted.shape)}"
    apart = ((actual.double() - wanted.double()).norm() / wanted.double().norm()).item()
    assert apart <= most, f"{what} {apart:.1e} from {whose}, expected at most {most:.0e}"


def value_and_grad(function: Callable[..., Tensor], x: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """``function(x, ...)`` and the gradient of its sum in `x`, which is copied."""
    leaf = x.detach().clone().requires_grad_()
    out = function(leaf, *args, **kwargs)
    return out.detach(), torch.autograd.grad(out.sum(), leaf)[0]
