"""What this machine can do at best, in bytes copied and operations done, and the floor that sets for a call."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from fastcnn.testing.timing import clock_for, measure

# Bytes read and written, on a CPU from a second-level cache to memory. On a GPU no call finds its input in a cache, so
# that only memory counts.
SIZES = {"cpu": tuple(1 << power for power in range(17, 29, 2)), "cuda": (1 << 32,)}
# Of the matrices, by dtype; on a CPU 16-bit operations are done in float32.
SIDES = {"cpu": {"float32": 2048}, "cuda": {"float32": 4096, "bfloat16": 8192}}


def measure_roofline(device: str = "cpu", budget: float = 0.2) -> dict[str, Any]:
    """Measures copies of several sizes, since what a cache holds is moved faster, and matrix products.

    Args:
        device: what to measure, with the threads torch uses.
        budget: seconds for each of the measurements.

    Returns:
        ``copy``, bytes read and written in a second by bytes moved, ``flops``, operations in a second in float32, and
        on a GPU ``flops_bfloat16``.
    """
    clock = clock_for(device)
    kind = torch.device(device).type

    def best(call: Any) -> float:
        return min(measure({"call": call}, clock=clock, budget=budget)["call"])

    copy, flops = {}, {}
    for size in SIZES[kind]:
        source, target = (torch.zeros(size // 2, dtype=torch.uint8, device=device) for _ in range(2))
        copy[str(size)] = size / best(lambda a=target, b=source: a.copy_(b))
    for name, side in SIDES[kind].items():
        # Not of zeros, which a GPU multiplies at higher clocks.
        a, b, c = (torch.randn(side, side, device=device).to(getattr(torch, name)) for _ in range(3))
        key = "flops" if name == "float32" else f"flops_{name}"
        flops[key] = 2 * side**3 / best(lambda a=a, b=b, c=c: torch.mm(a, b, out=c))
    return {"copy": copy, **flops}


def floor_seconds(roofline: Mapping[str, Any], work: Mapping[str, Any], dtype: str = "float32") -> float | None:
    """The least a call of ``bytes`` and ``flops`` can take; None where they were not recorded."""
    if not work.get("bytes"):
        return None
    size = min(roofline["copy"], key=lambda text: abs(math.log(int(text) / work["bytes"])))
    rate = roofline["flops"] if dtype == "float32" else roofline.get("flops_bfloat16", roofline["flops"])
    return max(work["bytes"] / roofline["copy"][size], work.get("flops", 0) / rate)
