"""Sets the counts of the networks beside those that lectures print: docs/lectures.md."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastcnn.models import _lectures
from fastcnn.models._lectures import LECTURES, MACS, PARAMS, SIZE, STORED, Quote
from fastcnn.models._lectures_cells import CELL_NOTES, CELL_QUOTES
from fastcnn.models._lectures_mobile import MOBILE_NOTES, MOBILE_QUOTES
from fastcnn.models._lectures_yolo import YOLO_NOTES, YOLO_QUOTES
from fastcnn.models._registry import create, list_models
from fastcnn.models._summary import Summary, summary

QUOTES = (*_lectures.QUOTES, *MOBILE_QUOTES, *CELL_QUOTES, *YOLO_QUOTES)
NOTES = (*_lectures.NOTES, *MOBILE_NOTES, *CELL_NOTES, *YOLO_NOTES)

PAGE = """\
# What the lectures say

The figures of five lectures about the networks of [networks.md](networks.md), beside what these networks have.
This page is the output of `python -m fastcnn.models --lectures`.

{lectures}

k, M and G are 10^3, 10^6 and 10^9. A MAC is a multiply-add of a convolution or a linear layer: what the lectures call
FLOPs, mult-adds or operations. Sizes are those of float32, in MB of 2^20 bytes. A figure holds where ours rounds or
cuts off to it, or is within 1 %; a size within 2 MB, as a file has more than parameters; a figure printed to the last
unit where it is the same. Where it does not hold, the remark says why.

| network | count | lectures | print | ours | difference | remark |
|---|---|---|--:|--:|--:|---|
{quotes}

## Statements

| network | lectures | say | but |
|---|---|---|---|
{notes}
"""

UNITS = {"k": 1e3, "M": 1e6, "G": 1e9, "MB": 1.0}


@cache
def _summary(network: str, options: tuple[tuple[str, Any], ...], side: int | None) -> Summary:
    overrides: dict[str, Any] = dict(options)
    return summary(create(network, device="meta", **overrides), side)


def count(quote: Quote) -> float:
    """Our figure."""
    counted = _summary(quote.network, tuple(quote.options.items()), quote.side)
    return {
        PARAMS: counted.params,
        STORED: counted.params_with_bn_stats,
        MACS: counted.macs,
        SIZE: counted.params_with_bn_stats * 4 / 2**20,
    }[quote.kind]


def read(printed: str) -> tuple[float, float | None]:
    """A printed figure and the value of its last digit's unit, which is None where every unit is printed."""
    digits, _, unit = printed.replace(",", "").partition(" ")
    if not unit:
        return float(digits), None
    return float(digits) * UNITS[unit], UNITS[unit] / 10 ** len(digits.partition(".")[2])


def holds(quote: Quote, found: float) -> bool:
    """Whether the printed figure holds, by the rule on the page."""
    value, step = read(quote.printed)
    if step is None:
        return found == value
    if quote.kind == SIZE:
        return abs(found - value) <= 2
    return value - step / 2 <= found < value + step or abs(found - value) <= 0.01 * value


def lectures_page() -> str:
    """docs/lectures.md, of the networks that are registered."""
    names = set(list_models())
    quotes = [_row(quote) for quote in QUOTES if quote.network in names]
    notes = [
        f"| `{note.network}` | {_titles(note.lectures)} | {note.statement} | {note.holds} |"
        for note in NOTES
        if note.network in names
    ]
    lectures = "\n".join(f"- {key}: {title}" for key, title in LECTURES.items())
    return PAGE.format(lectures=lectures, quotes="\n".join(quotes), notes="\n".join(notes))


def _titles(lectures: str) -> str:
    return ", ".join(key for key in lectures.split() if key in LECTURES)


def _row(quote: Quote) -> str:
    found = count(quote)
    ours = f"{found:.1f} MB" if quote.kind == SIZE else f"{found:,}"
    options = [f"{key}={value}" for key, value in quote.options.items()]
    options += [f"{quote.side}x{quote.side}"] if quote.side else []
    network = " ".join([f"`{quote.network}`", ", ".join(options)]).strip()
    percent = round(100 * (found / read(quote.printed)[0] - 1), 1)
    difference = f"{percent:+.1f} %" if percent else "0.0 %"
    cells = (network, quote.kind, _titles(quote.lectures), quote.printed, ours, difference, quote.remark)
    return f"| {' | '.join(cells)} |".replace("  ", " ")
