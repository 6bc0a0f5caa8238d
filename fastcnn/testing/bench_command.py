"""``fastcnn bench``: a selection of benches with a progress bar, a table, a JSON report."""

from __future__ import annotations

import argparse
import collections
import re
import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastcnn._progress import progress
from fastcnn.testing import accuracy, pages, photo, reports
from fastcnn.testing.benches import (
    DIRECTIONS,
    DTYPES,
    HALVES,
    LAYOUTS,
    SELECTIONS,
    USUAL,
    Bench,
    half_benches,
    list_benches,
    quick_benches,
)
from fastcnn.testing.environment import environment
from fastcnn.testing.roofline import measure_roofline

# --quick promises under three minutes on two cores; compiling a network and exporting it take the longest, so they are
# left out once this many seconds are gone.
QUICK_COMPILES_UNTIL = 100.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``fastcnn bench``."""
    select = parser.add_argument_group("what to time (each option may be given several values)")
    select.add_argument("--quick", action="store_true", help="three ops and two networks, in under 3 minutes")
    select.add_argument("--halves", action="store_true", help="ops in 16-bit dtypes, against themselves in float32")
    select.add_argument("--op", nargs="+", metavar="NAME", help="ops")
    select.add_argument(
        "--model", nargs="+", metavar="NAME", help=f"networks, or some by one name: {', '.join(SELECTIONS)}"
    )
    select.add_argument("--layer", nargs="+", metavar="TEXT", help="layers in whose 'op, layer' this is")
    select.add_argument("--dtype", nargs="+", choices=DTYPES, help="default: float32, or with --halves both others")
    select.add_argument("--layout", nargs="+", choices=LAYOUTS, help="of an op's input; default: both")
    select.add_argument("--direction", nargs="+", choices=DIRECTIONS, help="default: the first two")
    select.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")
    select.add_argument("--list", action="store_true", help="only list the selection")
    how = parser.add_argument_group("how")
    how.add_argument("--threads", type=_positive(int), metavar="N", help="CPU threads; default: PyTorch's")
    how.add_argument("--budget", type=_positive(float), metavar="SECONDS", help="to time each case; default: 2")
    how.add_argument(
        "--within", type=_positive(float), metavar="SECONDS", help="begin no case after that long; ops in turn"
    )
    how.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    how.add_argument("--no-runtimes", action="store_true", help="leave ONNX Runtime and OpenVINO out")
    how.add_argument(
        "--max-autotune", action="store_true", help="torch.compile of ops also in that mode; compiles for long"
    )
    how.add_argument(
        "--image", metavar="FILE", help="networks' input; default: a photograph of scikit-image; 'noise': none at hand"
    )
    how.add_argument(
        "--weights",
        nargs="+",
        default=[],
        type=_weights,
        metavar="NAME=FILE",
        help="networks' weights; without, they are untrained, seeded",
    )
    out = parser.add_argument_group("output")
    out.add_argument("--json", metavar="FILE", type=Path, help="also write the report, samples included")
    out.add_argument("--plain", action="store_true", help="no progress bar (needs no extra)")
    out.add_argument("--render", nargs="+", metavar="FILE", help="print docs/benchmarks.md from reports; time nothing")
    out.add_argument(
        "--plot", nargs="+", metavar="FILE", help="write an SVG file and print docs/accuracy.md from reports after it"
    )


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"expected a positive number, got {text!r}")
        return value

    return parse


def _weights(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"expected NAME=FILE, got {text!r}")
    return name, path


def bench(options: argparse.Namespace) -> int:
    """Runs ``fastcnn bench``; returns its exit status, 1 where a result differs.

    Raises:
        ValueError: a selection that is empty or not there, or a bad file.
        ImportError: an extra that is missing.
        OSError: a file that is missing or cannot be written.
    """
    if options.render:
        print(pages.page({name: reports.read_report(name) for name in options.render}), end="")
        return 0
    if options.plot:
        accuracy.plot(*options.plot)
        return 0
    benches = select(options)
    if options.list:
        print("\n".join(b.group for b in benches))
        return 0
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.device.startswith("cuda:"):
        torch.cuda.set_device(options.device)
    torch.backends.cudnn.benchmark = True  # What a person who wants speed sets, for all rows alike.
    if options.json:  # Better to know before than after that it cannot be written.
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.open("a").close()
    image, described = open_image(options.image) if _has_network(benches) else (photo.noise(), "seeded tensors")
    results, interrupted = _run_all(benches, image, options)
    report = {
        "command": shlex.join(["fastcnn", *reports.shared(options.arguments)]),
        "image": described,
        "environment": environment(),
        "roofline": measure_roofline(options.device),
        "results": results,
        "left_out": [b.group for b in benches[len(results) :]],
    }
    reports.print_report(report)
    if options.json and (not interrupted or (results and not options.json.stat().st_size)):
        options.json.write_text(reports.to_json(report))  # What was interrupted replaces no earlier report.
    elif options.json and options.json.stat().st_size == 0:
        options.json.unlink()
    if interrupted:
        raise KeyboardInterrupt
    return int(any("failed" in result for result in results))


def select(options: argparse.Namespace) -> list[Bench]:
    """The benches that the options name.

    Raises:
        ValueError: an op or network there is not, a device there is not, or nothing left.
        FileNotFoundError: weights there are not.
    """
    here = {"cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))}
    if options.device not in (here | {"cuda"} if len(here) > 1 else here):
        raise ValueError(f"torch {torch.__version__} has no device {options.device!r} here that can be timed")
    every = quick_benches if options.quick else half_benches if options.halves else list_benches
    everything = every(options.device)
    models = [name for given in options.model or () for name in SELECTIONS.get(given, (given,))]
    for kind, names in (("op", options.op), ("network", models)):
        known = sorted({b.subject for b in everything if (b.kind == "op") == (kind == "op")})
        for name in names or ():
            if name not in known:
                raise ValueError(f"no {kind} is called {name!r}; there are {', '.join(known)}")
    subjects = [*(options.op or ()), *models]
    chosen = [
        b
        for b in everything
        if (not subjects or b.subject in subjects)
        and (not options.layer or any(_has(text, b) for text in options.layer))
        and b.dtype in (options.dtype or (HALVES if options.halves else ("float32",)))
        and (not options.layout or b.layout in ("", *options.layout))
        and b.direction in (options.direction or USUAL)
    ]
    for name, path in options.weights:
        if name not in {b.subject for b in chosen if b.kind != "op"}:
            raise ValueError(f"no network that is called {name!r}, as in --weights, is to be timed")
        if not Path(path).is_file():
            raise FileNotFoundError(f"no weights file {path!r}")
    if not chosen:
        raise ValueError("no bench is in all of these options' selections; --list shows what there is")
    return _in_turn(chosen) if options.within else chosen


def _has(text: str, b: Bench) -> bool:
    """Whether it is in a bench's op and layer, where a number at its end is not the beginning of another."""
    return bool(re.search(re.escape(text) + r"(?!\d)", f"{b.subject}, {b.layer}"))


def _in_turn(benches: Sequence[Bench]) -> list[Bench]:
    """The first of every subject, then the second of every one, and so on: the last may find no time."""
    seen: collections.Counter[str] = collections.Counter()
    turns = []
    for b in benches:
        turns.append(seen[b.subject])
        seen[b.subject] += 1
    return [benches[i] for i in sorted(range(len(benches)), key=turns.__getitem__)]


def open_image(name: str | None) -> tuple[Tensor, str]:
    """Pixels for networks, and what they are, in words."""
    if name == "noise":
        return photo.noise(), "seeded noise (no photograph at hand)"
    if name is not None:
        return photo.read_image(name), f"the image {Path(name).name}"
    return photo.photograph(), f"the photograph {photo.PHOTOGRAPH} (a cat, by Stefan van der Walt, CC0)"


def _has_network(benches: Iterable[Bench]) -> bool:
    return any(b.kind != "op" for b in benches)


def _run_all(benches: Sequence[Bench], image: Tensor, options: argparse.Namespace) -> tuple[list[dict[str, Any]], bool]:
    from fastcnn.testing.runner import run

    results: list[dict[str, Any]] = []
    start = time.perf_counter()
    budget = options.budget or 2.0
    try:
        with progress(len(benches), options.plain) as advance:
            for b in benches:
                elapsed = time.perf_counter() - start
                if options.within and elapsed > options.within:
                    break
                advance(b.group)
                late = options.quick and elapsed > QUICK_COMPILES_UNTIL
                how = {
                    "compile": not (options.no_compile or late),
                    "runtimes": not (options.no_runtimes or late),
                    "autotune": options.max_autotune,
                    "weights": dict(options.weights),
                }
                result = run(b, image, **how, budget=budget)
                if late and not options.no_compile:
                    result["missing"]["compile"] = "left out, to stay under 3 minutes"
                results.append(result)
    except KeyboardInterrupt:
        return results, True
    return results, False
