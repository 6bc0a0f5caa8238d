"""What this machine can do at best, in bytes copied and operations done, and the floor that sets for a call."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from fastcnn.testing.timing import clock_for, measure

SIZES = tuple(1 << power for power in range(17, 29, 2))  # Bytes read and written, from a second-level cache to memory.
SIDE = 2048


def measure_roofline(device: str = "cpu", budget: float = 0.2) -> dict[str, Any]:
    """Measures copies of several sizes, since what a cache holds is moved faster, and a float32 matrix product.

    Args:
        device: what to measure, with the threads torch uses.
        budget: seconds for each of the measurements.

    Returns:
        ``copy``, bytes read and written in a second by bytes moved, and ``flops``, operations in a second.
    """
    clock = clock_for(device)

    def best(call: Any) -> float:
        return min(measure({"call": call}, clock=clock, budget=budget)["call"])

    copy = {}
    for size in SIZES:
        source, target = (torch.zeros(size // 2, dtype=torch.uint8, device=device) for _ in range(2))
        copy[str(size)] = size / best(lambda a=target, b=source: a.copy_(b))
    a, b, c = (torch.zeros(SIDE, SIDE, device=device) for _ in range(3))
    return {"copy": copy, "flops": 2 * SIDE**3 / best(lambda: torch.mm(a, b, out=c))}


def floor_seconds(roofline: Mapping[str, Any], work: Mapping[str, Any]) -> float | None:
    """The least a call of ``bytes`` and ``flops`` can take; None where they were not recorded."""
    if not work.get("bytes"):
        return None
    size = min(roofline["copy"], key=lambda text: abs(math.log(int(text) / work["bytes"])))
    return max(work["bytes"] / roofline["copy"][size], work.get("flops", 0) / roofline["flops"])
