"""Runs benches: prepares, compares, times, and gives what a JSON file keeps."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from fastcnn.testing.benches import Bench, Prepared
from fastcnn.testing.detector_rows import prepare_detector
from fastcnn.testing.graphs import measure_apart
from fastcnn.testing.network_rows import prepare_network
from fastcnn.testing.op_rows import prepare_op
from fastcnn.testing.timing import clock_for, measure, ratio_of_medians


def prepare(
    bench: Bench,
    image: Tensor,
    *,
    compile: bool = True,
    runtimes: bool = True,
    autotune: bool = False,
    weights: Mapping[str, str | PathLike[str]] | None = None,
) -> Prepared:
    """The calls of any bench; arguments and errors of ``prepare_op``, ``prepare_network`` and ``prepare_detector``."""
    torch.compiler.reset()  # Else the second shape of a function compiles to something slower.
    if bench.kind == "op":
        return prepare_op(bench, compile=compile, autotune=autotune)
    if bench.kind == "detector":
        return prepare_detector(bench, image, weights=weights)
    return prepare_network(bench, image, compile=compile, runtimes=runtimes, weights=weights)


def run(
    bench: Bench,
    image: Tensor,
    *,
    compile: bool = True,
    runtimes: bool = True,
    autotune: bool = False,
    weights: Mapping[str, str | PathLike[str]] | None = None,
    budget: float = 2.0,
) -> dict[str, Any]:
    """Times a bench for about `budget` seconds; the result is one entry of a report's ``results``.

    A result that differs is not timed: the entry then has ``failed``, the reason, and no rows. On a GPU the entry also
    has ``graph``, the same calls recorded as CUDA graphs, and ``host``, how long the host takes to launch them.
    """
    entry: dict[str, Any] = dataclasses.asdict(bench)
    try:
        how = {"compile": compile, "runtimes": runtimes, "autotune": autotune}
        prepared = prepare(bench, image, **how, weights=weights)
    except AssertionError as error:
        return {**entry, "failed": str(error), "rows": {}, "missing": {}, "notes": {}}
    with prepared.context():
        samples = measure(prepared.calls, clock=clock_for(bench.device), budget=budget, pause=prepared.pause)
        entry.update(summarise(samples), missing=prepared.missing, notes=prepared.notes)
        if torch.device(bench.device).type == "cuda":
            entry.update(_apart(prepared, entry["rows"], budget))
    return entry


def _apart(prepared: Prepared, rows: Mapping[str, Mapping[str, Any]], budget: float) -> dict[str, Any]:
    seconds = {name: row["median"] for name, row in rows.items()}
    graph, host, missing = measure_apart(prepared.calls, seconds, prepared.copies, budget)
    if "fastcnn" not in graph:
        return {"graph": {"missing": missing}}
    return {"graph": {**summarise(graph), "missing": missing}, "host": summarise(host)}


def summarise(samples: Mapping[str, list[float]]) -> dict[str, Any]:
    """Medians and quartiles of every row, and the ratio of the fastest rival to ours; seconds.

    The reference is a rival only where there is no other.
    """
    rows = {name: _row(values) for name, values in samples.items()}
    rivals = [name for name in rows if name not in ("fastcnn", "reference")]
    rivals = rivals or [name for name in rows if name != "fastcnn"]
    summary: dict[str, Any] = {"rows": rows, "rival": None, "ratio": None}
    if rivals:
        rival = min(rivals, key=lambda name: rows[name]["median"])
        ratio = ratio_of_medians(samples[rival], samples["fastcnn"])
        summary.update(rival=rival, ratio=dataclasses.asdict(ratio))
    return summary


def _row(values: list[float]) -> dict[str, Any]:
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return {
        "median": statistics.median(values),
        "quartiles": [low, high],
        "samples": [float(f"{v:.5g}") for v in values],
    }
