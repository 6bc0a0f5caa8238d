"""Runs commands one after the other, each within its own time, whatever became of those before."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Step:
    """A command.

    Attributes:
        name: what it does, for people.
        arguments: of this Python interpreter.
        seconds: how long it may take.
        variables: of its environment, beside those of this process.
    """

    name: str
    arguments: Sequence[str]
    seconds: float
    variables: Mapping[str, str] = field(default_factory=dict)


def run_step(step: Step, directory: Path) -> dict[str, Any]:
    """Runs a step in `directory`, its output going where this process's goes; kills it when its time is up.

    Returns:
        ``name``, ``status`` ("ok", "exit status N" or "out of time") and ``seconds`` taken.
    """
    print(f"\n=== {step.name} (at most {step.seconds:g} s)", flush=True)
    start = time.monotonic()
    # A session of its own, so that compilers and other children end with it.
    process = subprocess.Popen(
        [sys.executable, *step.arguments],
        cwd=directory,
        env={**os.environ, **step.variables},
        start_new_session=True,
    )
    try:
        code = process.wait(timeout=step.seconds)
        status = "ok" if code == 0 else f"exit status {code}"
    except subprocess.TimeoutExpired:
        status = "out of time"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return {"name": step.name, "status": status, "seconds": round(time.monotonic() - start, 1)}


def run_steps(steps: Sequence[Step], directory: Path) -> list[dict[str, Any]]:
    """Runs all steps and prints what became of them; what :func:`run_step` returns, in order."""
    outcomes = [run_step(step, directory) for step in steps]
    print("\n=== summary")
    for outcome in outcomes:
        print(f"{outcome['seconds']:7.1f} s  {outcome['status']:<15}  {outcome['name']}", flush=True)
    return outcomes
