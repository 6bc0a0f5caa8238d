"""Benchmark results as tables: the cells of a case, means, what they look like in a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from statistics import geometric_mean
from typing import Any

from fastcnn.testing.roofline import floor_seconds

# A smaller ratio is a loss: what a person would gain by not using this library.
LOSS = 0.95
HEAD = ("case", "fastcnn", "of its floor", "fastest rival", "rival / fastcnn [95 %]", "", "all other rivals")
ON_GPU = ("as a CUDA graph", "to launch")
Result = Mapping[str, Any]


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
    lines = aligned(filled([head(results), *(cells(result, said, roofline) for result in results)]))
    marks = {"LOSS": "\033[31m{}\033[0m", "FAILED": "\033[1;31m{}\033[0m", "win": "\033[32m{}\033[0m"}
    table = [f"all: {', '.join(said)}"] if said else []
    table += [lines[0].rstrip(), "-" * max(len(line.rstrip()) for line in lines)]
    for result, line in zip(results, lines[1:], strict=True):
        mark = marks.get(verdict(result), "{}") if colour else "{}"
        table.append(mark.format(line.rstrip()))
    return "\n".join(table)


def plain(rows: Sequence[Sequence[str]]) -> str:
    """Rows as text in columns, for a terminal."""
    return "\n".join(line.rstrip() for line in aligned([[cell.replace("**", "") for cell in row] for row in rows]))


def filled(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The rows, each as long as the first."""
    return [row + ("",) * (len(rows[0]) - len(row)) for row in rows]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(f"{cell:{'>' if i == 1 else '<'}{widths[i]}}" for i, cell in enumerate(row)) for row in rows]


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


def markdown(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for i, row in enumerate(rows):
        yield "| " + " | ".join(_bold(cell).replace("|", "\\|") for cell in row) + " |"
        if i == 0:
            yield "| " + " | ".join("---" for _ in row) + " |"


def _bold(cell: str) -> str:
    return f"**{cell}**" if cell in ("LOSS", "FAILED") else cell
