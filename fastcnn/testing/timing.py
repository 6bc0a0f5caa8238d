"""The one timing harness: rivals timed in turn, medians, and a ratio of medians with its uncertainty."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch

# Long enough for a timer of 0.1 us and a scheduler that interrupts for less than 0.1 ms.
SAMPLE_SECONDS = 0.005
MIN_ROUNDS = 5
MAX_ROUNDS = 200


class Clock(Protocol):
    """How long work takes on one kind of device."""

    def time(self, call: Callable[[], Any], repeats: int) -> float:
        """Seconds that `repeats` calls take, all of their work on the device included."""


class HostClock:
    """Wall-clock time, for calls that return when their work is done."""

    def time(self, call: Callable[[], Any], repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        return time.perf_counter() - start


class CudaClock:
    """Time between two CUDA events around the calls, on the current stream."""

    def time(self, call: Callable[[], Any], repeats: int) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        for _ in range(repeats):
            call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3


def clock_for(device: str) -> Clock:
    return CudaClock() if torch.device(device).type == "cuda" else HostClock()


class Plan(NamedTuple):
    """How often to sample, and how many calls make a sample."""

    rounds: int
    repeats: int


def plan(seconds: float, budget: float) -> Plan:
    """For a call of `seconds`: samples of at least SAMPLE_SECONDS, as many as fit `budget` seconds, within limits."""
    repeats = max(1, math.ceil(SAMPLE_SECONDS / max(seconds, 1e-9)))
    rounds = int(budget / max(seconds * repeats, 1e-9))
    return Plan(min(max(rounds, MIN_ROUNDS), MAX_ROUNDS), repeats)


def measure(
    calls: Mapping[str, Callable[[], Any]], *, clock: Clock | None = None, budget: float = 2.0
) -> dict[str, list[float]]:
    """Times several ways to do the same, interleaved, so that a drifting clock or a busy neighbour hits all alike.

    Every call runs once to warm up and once for an estimate. Then, round by round, each gives one sample, in an
    order that is shuffled (seeded) every round. Before a sample the call runs once untimed, so that it meets caches
    and an allocator as its own calls leave them, not as a rival's do.

    Args:
        calls: by name; compare their results before, this only times.
        clock: of the device they run on; the host's by default.
        budget: seconds to measure for. At least MIN_ROUNDS rounds are made all the same, at most MAX_ROUNDS.

    Returns:
        Seconds per call, one number a round, by name; all lists are equally long, and entries of one index are of one
        round.
    """
    clock = clock or HostClock()
    repeats: dict[str, int] = {}
    round_seconds = 0.0
    for name, call in calls.items():
        clock.time(call, 1)
        seconds = clock.time(call, 1)
        repeats[name] = plan(seconds, budget).repeats
        round_seconds += seconds * repeats[name]
    rounds = min(max(int(budget / max(round_seconds, 1e-9)), MIN_ROUNDS), MAX_ROUNDS)
    samples: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    # Shuffled, since whoever follows a row that fills the caches or the allocator's pool with its own would pay for it.
    shuffle = random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            clock.time(calls[name], 1)
            samples[name].append(clock.time(calls[name], repeats[name]) / repeats[name])
    return samples


@dataclass(frozen=True)
class Ratio:
    """A ratio of medians and its 95 % interval; above 1 means that the first is slower."""

    value: float
    low: float
    high: float


def ratio_of_medians(slow: Sequence[float], fast: Sequence[float], resamples: int = 1000) -> Ratio:
    """``median(slow) / median(fast)`` with a bootstrap interval over rounds.

    Rounds are drawn in pairs, since what disturbs a round disturbs both. The draws are seeded: the same samples always
    give the same interval.

    Args:
        slow, fast: seconds, entries of one index being of one round, as :func:`measure` gives them.
        resamples: how many draws the interval is taken from.

    Raises:
        ValueError: no samples, or not equally many.
    """
    if not slow or len(slow) != len(fast):
        raise ValueError(f"ratio_of_medians: expected as many samples of both, got {len(slow)} and {len(fast)}")
    draw = random.Random(0)
    pairs = list(zip(slow, fast, strict=True))
    ratios = []
    for _ in range(resamples):
        first, second = zip(*draw.choices(pairs, k=len(pairs)), strict=True)
        ratios.append(statistics.median(first) / statistics.median(second))
    ratios.sort()
    tail = round(0.025 * (resamples - 1))
    value = statistics.median(slow) / statistics.median(fast)
    return Ratio(value, ratios[tail], ratios[-1 - tail])
