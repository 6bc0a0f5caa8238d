"""Checks of arguments: one line that names the op and shows the offending shape, dtype or value."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def floating(op: str, **arguments: Any) -> None:
    for name, value in arguments.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{op}: expected {name} to be a tensor, got {type(value).__name__}")
        if value.dtype not in FLOATING:
            raise TypeError(f"{op}: expected {name} of a floating-point dtype, got {value.dtype}")


def same_device(op: str, **arguments: Tensor) -> None:
    first, *others = arguments.values()
    if any(other.device != first.device for other in others):
        listed = ", ".join(f"{name} on {value.device}" for name, value in arguments.items())
        raise ValueError(f"{op}: expected all tensors on one device, got {listed}")


def number(op: str, **arguments: Any) -> None:
    for name, value in arguments.items():
        if isinstance(value, bool) or not isinstance(value, (Real, torch.SymInt, torch.SymFloat)):
            raise TypeError(f"{op}: expected {name} to be a number, got {type(value).__name__} {value!r}")


def integer(op: str, **arguments: Any) -> None:
    for name, value in arguments.items():
        if isinstance(value, bool) or not isinstance(value, (Integral, torch.SymInt)):
            raise TypeError(f"{op}: expected {name} to be an int, got {type(value).__name__} {value!r}")
