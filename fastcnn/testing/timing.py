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
# A call that takes more seconds, and more times as long as the fastest, gets few rounds: its ratio is clear.
SLOW_SECONDS, SLOW_TIMES, SLOW_ROUNDS, SLOW_BUDGET = 2.0, 5.0, 3, 10.0


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


class LaunchClock:
    """Wall-clock time until calls return, beginning with an idle GPU, whose work is waited for but not timed.

    For few calls at a time: the host waits for the GPU once a thousand launches are under way.
    """

    def time(self, call: Callable[[], Any], repeats: int) -> float:
        torch.cuda.synchronize()
        seconds = HostClock().time(call, repeats)
        torch.cuda.synchronize()
        return seconds


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


def slow_rounds(seconds: float) -> int:
    """How many rounds a slow call of `seconds` takes part in: one to SLOW_ROUNDS."""
    return min(max(int(SLOW_BUDGET / seconds), 1), SLOW_ROUNDS)


def measure(
    calls: Mapping[str, Callable[[], Any]], *, clock: Clock | None = None, budget: float = 2.0, pause: float = 0.0
) -> dict[str, list[float]]:
    """Times several ways to do the same, interleaved, so that a drifting clock or a busy neighbour hits all alike.

    Every call runs once to warm up and once more; the faster of both is an estimate. Then, round by round, each gives
    one sample, in an order that is shuffled (seeded) every round, after one call untimed: so that it meets caches and
    an allocator as its own calls leave them, not as a rival's do. A call that is slow (SLOW_SECONDS, SLOW_TIMES) takes
    part in the first few only, and its estimate is the first of them.

    Args:
        calls: by name; compare their results before, this only times.
        clock: of the device they run on; the host's by default.
        budget: seconds to measure for. At least MIN_ROUNDS rounds are made all the same, at most MAX_ROUNDS.
        pause: seconds to wait before every untimed call, for rivals with threads of their own, which spin for some time
            after their work is done.

    Returns:
        Seconds per call, one number a round, by name; entries of one index are of one round, and all lists are equally
        long but those of slow calls.
    """
    clock = clock or HostClock()
    seconds: dict[str, float] = {}
    for name, call in calls.items():
        # The lesser, since one that was disturbed could pass for slow, and be a sample of few.
        seconds[name] = min(clock.time(call, 1), clock.time(call, 1))
    limit = max(SLOW_SECONDS, SLOW_TIMES * min(seconds.values()))
    samples = {name: [estimate] if estimate > limit else [] for name, estimate in seconds.items()}
    repeats = {name: plan(estimate, budget).repeats for name, estimate in seconds.items()}
    round_seconds = sum(seconds[name] * repeats[name] for name in calls if not samples[name])
    rounds = min(max(int(budget / max(round_seconds, 1e-9)), MIN_ROUNDS), MAX_ROUNDS)
    wanted = {name: slow_rounds(seconds[name]) if samples[name] else rounds for name in calls}
    order = list(calls)
    # Shuffled, since whoever follows a row that fills the caches or the allocator's pool with its own would pay for it.
    shuffle = random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            if len(samples[name]) == wanted[name]:
                continue
            if seconds[name] <= limit:
                time.sleep(pause)
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

    Rounds are drawn in pairs, since what disturbs a round disturbs both, unless one had fewer of them, as a slow call
    has. The draws are seeded: the same samples always give the same interval.

    Args:
        slow, fast: seconds, entries of one index being of one round, as :func:`measure` gives them.
        resamples: how many draws the interval is taken from.

    Raises:
        ValueError: no samples of one.
    """
    if not slow or not fast:
        raise ValueError(f"ratio_of_medians: expected samples of both, got {len(slow)} and {len(fast)}")
    draw = random.Random(0)
    ratios = []
    for _ in range(resamples):
        first = draw.choices(range(len(slow)), k=len(slow))
        second = first if len(slow) == len(fast) else draw.choices(range(len(fast)), k=len(fast))
        ratios.append(statistics.median(slow[i] for i in first) / statistics.median(fast[i] for i in second))
    ratios.sort()
    tail = round(0.025 * (resamples - 1))
    value = statistics.median(slow) / statistics.median(fast)
    return Ratio(value, ratios[tail], ratios[-1 - tail])
