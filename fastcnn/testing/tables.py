"""Benchmark reports as tables: in a terminal, and in docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from statistics import geometric_mean
from typing import Any

from fastcnn.testing.roofline import floor_seconds
from fastcnn.testing.timing import SLOW_ROUNDS, SLOW_SECONDS, SLOW_TIMES

# A smaller ratio is a loss: what a person would gain by not using this library.
LOSS = 0.95
HEAD = ("case", "fastcnn", "of its floor", "fastest rival", "rival / fastcnn [95 %]", "", "all other rivals")
ON_GPU = ("as a CUDA graph", "to launch")
Result = Mapping[str, Any]

PAGE = """\
# Benchmarks

Every line compares fastcnn with the fastest way to do the same in PyTorch or torchvision that ran there, in one
process, rounds interleaved, each sample after a call untimed, results compared before. The ratio is of median times:
above 1 fastcnn is faster; the interval is a bootstrap over rounds. **LOSS** marks a ratio under {loss} whose interval
stays below 1; "even" is what is neither that nor above 1 with its interval. A rival called "reference" is fastcnn's
own plain-PyTorch reference: it shows that there was nothing to compare with, not a win. "via float32" is a rival that
does not take the dtype, between two casts. Against "fastcnn float32" the op is its own rival, on the same values in
float32. What takes over {slow:g} s a call and {times:g} times as long as the fastest is timed at most {rounds} times.

"Of its floor" is how many times the least possible time a call takes: the bytes it must move, each tensor once a pass,
at the speed of a copy of as many bytes, or its operations at the speed of a float32 matrix product, both measured in
the same run.

{gpu}

Networks: fastcnn runs channels_last, for inference with norms folded (`model.fuse()`); "eager" and "compile" are the
same network of `torch.nn` layers in the same mode.

This page is the output of `fastcnn bench --render {files}`.

{sections}
"""


NOT_MEASURED = """\
**On a GPU: not yet measured.** The kernels have not run on one; `make gpu-check` on a machine that has one makes the
reports this page would show."""
MEASURED = """\
On a GPU every call finds its input in memory, not in a cache: calls go through copies of it. "As a CUDA graph" is the
time per call of a recorded graph, what share of the least possible time's speed that is, and the fastest rival's time
over ours; "to launch" is how long the host takes for a call, the GPU's work not waited for. cuDNN chooses the fastest
of its algorithms (`cudnn.benchmark`) and computes float32 as such in ops, in networks as TF32."""


def verdict(result: Result) -> str:
    """FAILED, LOSS, even or win; "reference" and "alone" where there is no rival to speak of."""
    if "failed" in result:
        return "FAILED"
    if result["ratio"] is None:
        return "alone"
    if result["rival"] == "reference":
        return "reference"
    if result["ratio"]["value"] < LOSS and result["ratio"]["high"] < 1:
        return "LOSS"
    return "win" if result["ratio"]["low"] > 1 else "even"


def duration(seconds: float) -> str:
    """Three digits in the unit that fits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size or unit == "us":
            value = seconds / size
            return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"
    raise AssertionError("unreachable")


def common(results: Sequence[Result]) -> tuple[str, ...]:
    """Dtype and direction, where all results agree: said once, not in every line."""
    keys = ("dtype", "direction")
    return tuple(results[0][key] for key in keys if results and len({result[key] for result in results}) == 1)


def case(result: Result, said: Collection[str] = ()) -> str:
    parts = (result[key] for key in ("subject", "layer", "dtype", "layout", "direction"))
    return ", ".join(part for part in parts if part and part not in said)


def head(results: Iterable[Result]) -> tuple[str, ...]:
    """The first row; with ON_GPU if any of the results was timed on one."""
    return HEAD + ON_GPU if any("graph" in result for result in results) else HEAD


def cells(result: Result, said: Collection[str] = (), roofline: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """A result as the cells under HEAD and, where it has them, ON_GPU, but for what was said before."""
    if "failed" in result:
        return case(result, said), "", "", "", "", verdict(result), result["failed"]
    medians = {name: row["median"] for name, row in result["rows"].items()}
    ours = medians.pop("fastcnn")
    others = [f"{name} {medians[name] / ours:.2f}x" for name in medians if name != result["rival"]]
    others += [f"no {name}: {reason}" for name, reason in result["missing"].items()]
    others += [f"{name} gives another result" for name in result["notes"].get("inexact", ())]
    rival = ratio = ""
    if result["ratio"] is not None:
        rival = f"{result['rival']} {duration(medians[result['rival']])}"
        ratio = "{value:.2f}x [{low:.2f}, {high:.2f}]".format(**result["ratio"])
    least = floor_seconds(roofline, result["notes"], result["dtype"]) if roofline else None
    floor = f"{ours / least:.1f}x of {duration(least)}" if least else ""
    usual = case(result, said), duration(ours), floor, rival, ratio, verdict(result), "; ".join(others)
    return usual + _on_gpu(result, least) if "graph" in result else usual


def _on_gpu(result: Result, least: float | None) -> tuple[str, str]:
    graph = result["graph"]
    if "rows" not in graph:
        return f"none: {graph['missing'].get('fastcnn', 'not recorded')}", ""
    share = f"{least / graph['rows']['fastcnn']['median']:.0%} of the roofline" if least else ""
    return _apart(graph, share), _apart(result["host"])


def _apart(part: Mapping[str, Any], more: str = "") -> str:
    rival = f"{part['rival']} {part['ratio']['value']:.2f}x" if part["ratio"] else ""
    return ", ".join(filter(None, (duration(part["rows"]["fastcnn"]["median"]), more, rival)))


def terminal(results: Sequence[Result], *, colour: bool = False, roofline: Mapping[str, Any] | None = None) -> str:
    """One table of all results; losses and failures stand out."""
    said = common(results)
    lines = _aligned(_filled([head(results), *(cells(result, said, roofline) for result in results)]))
    marks = {"LOSS": "\033[31m{}\033[0m", "FAILED": "\033[1;31m{}\033[0m", "win": "\033[32m{}\033[0m"}
    table = [f"all: {', '.join(said)}"] if said else []
    table += [lines[0].rstrip(), "-" * max(len(line.rstrip()) for line in lines)]
    for result, line in zip(results, lines[1:], strict=True):
        mark = marks.get(verdict(result), "{}") if colour else "{}"
        table.append(mark.format(line.rstrip()))
    return "\n".join(table)


def _filled(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The rows, each as long as the first."""
    return [row + ("",) * (len(rows[0]) - len(row)) for row in rows]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(f"{cell:{'>' if i == 1 else '<'}{widths[i]}}" for i, cell in enumerate(row)) for row in rows]


def summary(results: Iterable[Result]) -> str:
    """The table of :func:`means` for a terminal; empty where it would only repeat the cases."""
    rows = list(means(results))
    return "\n".join(line.rstrip() for line in _aligned(rows)) if any(int(row[1]) > 1 for row in rows[1:]) else ""


def count(results: Iterable[Result]) -> str:
    """How many won, lost, and so on, in one line."""
    verdicts = [verdict(result) for result in results]
    words = {
        "win": "faster than the fastest rival",
        "even": "even with it",
        "LOSS": f"slower (under {LOSS}x)",
        "reference": "with no rival but fastcnn's own reference",
        "alone": "with no rival",
        "FAILED": "whose results differ: not timed",
    }
    return ", ".join(f"{verdicts.count(key)} {text}" for key, text in words.items() if verdicts.count(key))


def means(results: Iterable[Result]) -> Iterator[tuple[str, ...]]:
    """Per subject, dtype and direction: cases, the geometric mean of their ratios, the least, and how many are losses.

    Cases whose only rival is the reference do not count.
    """
    yield "all cases of", "cases", "geometric mean", "least", "losses"
    groups: dict[str, list[Result]] = {}
    for result in results:
        if result.get("ratio") is not None and result["rival"] != "reference":
            name = ", ".join((result["subject"], result["dtype"], result["direction"]))
            groups.setdefault(name, []).append(result)
    for name, group in groups.items():
        ratios = [result["ratio"]["value"] for result in group]
        losses = sum(verdict(result) == "LOSS" for result in group)
        yield name, str(len(group)), f"{geometric_mean(ratios):.2f}x", f"{min(ratios):.2f}x", str(losses or "")


def top5(report: Mapping[str, Any]) -> Iterator[str]:
    """Per network and batch, in a line, what it sees on the image and whether plain PyTorch sees the same."""
    for result in report["results"]:
        seen = result["notes"].get("top5")
        if seen:
            ours, theirs = seen["fastcnn"], seen["PyTorch"]
            same = "the same as PyTorch's" if ours == theirs else f"PyTorch's are {theirs}"
            weights = result["notes"]["weights"]
            subject = f"{result['subject']}, {result['layer']}, weights {weights}"
            yield f"{subject}: top-5 classes of {report['image']} are {ours}, {same}"


def about(environment: Mapping[str, Any]) -> str:
    """What was measured on, in one line."""
    torchvision = environment["torchvision"]
    parts = [
        f"fastcnn {environment['fastcnn']}" + (f" ({environment['commit']})" if environment["commit"] else ""),
        f"torch {environment['torch']}",
        f"torchvision {torchvision}" if torchvision else "no torchvision",
        f"Python {environment['python']}",
        f"{environment['cpu'] or environment['system']}, {environment['threads']} threads",
        environment["kernels"]["cpu"] or "no compiled CPU kernels",
    ]
    if environment["gpu"]:
        triton = f"triton {environment['triton']}" if environment["triton"] else "no triton"
        cuda = environment["kernels"]["cuda"] or "no CUDA kernels"
        parts.append(f"{environment['gpu']}, driver {environment['driver']}, {triton}, {cuda}")
    return " · ".join(parts)


def page(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """docs/benchmarks.md, from reports by file name as it is to be typed."""
    sections = []
    for name, report in reports.items():
        results = report["results"]
        every = _filled([head(results), *(cells(result, roofline=report.get("roofline")) for result in results)])
        lines = [f"## `{name}`", "", about(report["environment"]), ""]
        left_out = f" {len(report['left_out'])} cases were left out, for want of time." if report["left_out"] else ""
        lines += [f"Made by `{report['command']}` on {report['image']}: {count(results)}.{left_out}", ""]
        lines += [*_markdown(means(results)), "", *_markdown(every)]
        sections.append("\n".join(lines))
    slow = {"slow": SLOW_SECONDS, "times": SLOW_TIMES, "rounds": SLOW_ROUNDS}
    gpu = MEASURED if any(report["environment"]["gpu"] for report in reports.values()) else NOT_MEASURED
    return PAGE.format(loss=LOSS, gpu=gpu, **slow, files=" ".join(reports), sections="\n\n".join(sections))


def _markdown(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for i, row in enumerate(rows):
        yield "| " + " | ".join(_bold(cell).replace("|", "\\|") for cell in row) + " |"
        if i == 0:
            yield "| " + " | ".join("---" for _ in row) + " |"


def _bold(cell: str) -> str:
    return f"**{cell}**" if cell in ("LOSS", "FAILED") else cell
