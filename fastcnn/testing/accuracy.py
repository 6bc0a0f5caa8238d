"""The accuracy that lectures print against measured latency and multiply-adds: docs/accuracy.md and its plot."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastcnn.models._accounting import count
from fastcnn.models._lectures import MACS, Quote
from fastcnn.models._lectures_accuracy import ACCURACIES, Accuracy
from fastcnn.testing import plots
from fastcnn.testing.benches import FORWARD
from fastcnn.testing.pages import about
from fastcnn.testing.reports import read_report
from fastcnn.testing.tables import duration, markdown

PAGE = """\
# Accuracy, cost and speed

What networks of [networks.md](networks.md) cost, against the accuracy that [the lectures](lectures.md) print: the
images of ImageNet whose likeliest class is right, in per cent, after trainings that are not ours. MACs are
multiply-adds of one image of the size that the accuracy is of; times are those of `fastcnn`, fused, on one image
in float32, where they were measured at that size.

![Accuracy against multiply-adds and against the time of one image]({plot})

{measured}

This page and the plot are made by `fastcnn bench --plot {files}`.

{table}
"""

# Of the plot, in points: panels one below the other, with a margin on the left and below.
_WIDTH, _HEIGHT, _MARGIN = 720.0, 560.0, 40.0
_FONT, _MARKER = 6.5, 3.0
_TOP1 = (48.0, 87.0)


@dataclass(frozen=True)
class Point:
    """A network at one size of image: accuracy in per cent, multiply-adds, and seconds where it was measured."""

    label: str
    top1: float
    macs: float
    seconds: float | None
    line: str


def points(reports: Sequence[Mapping[str, Any]]) -> list[Point]:
    """One for each accuracy that lectures print, from the least multiply-adds to the most.

    Raises:
        ValueError: no report times one of these networks on one image, forward, in float32.
    """
    seconds = {}
    for report in reports:
        for result in report["results"]:
            wanted = ("network", "batch 1", "float32", FORWARD)
            if tuple(result[key] for key in ("kind", "layer", "dtype", "direction")) == wanted and result["rows"]:
                seconds[result["subject"]] = result["rows"]["fastcnn"]["median"]
    found = [_point(accuracy, seconds) for accuracy in ACCURACIES]
    if not any(point.seconds for point in found):
        raise ValueError("no report times a network of the lectures on one image: --model quoted does")
    return sorted(found, key=lambda point: (point.macs, point.label))


def _point(accuracy: Accuracy, seconds: Mapping[str, float]) -> Point:
    name, top1, line, side = accuracy
    label = f"{name} {side}x{side}" if side else name
    macs = count(Quote(name, MACS, "", "", side=side))
    return Point(label, top1, macs, None if side else seconds.get(name), line)


def accuracy_page(plot: str, reports: Mapping[str, Mapping[str, Any]]) -> str:
    """docs/accuracy.md, beside the SVG file `plot`, from reports by file name as it is to be typed."""
    measured = "\n".join(f"- `{name}`: {about(report['environment'])}" for name, report in reports.items())
    table = "\n".join(markdown(_rows(points(list(reports.values())))))
    files = " ".join([plot, *reports])
    return PAGE.format(plot=plot.rpartition("/")[2], measured=measured, files=files, table=table)


def _rows(found: Sequence[Point]) -> Iterator[tuple[str, ...]]:
    yield "network", "top-1, %", "printed in lecture, line", "MACs", "one image"
    for point in found:
        lecture, _, line = point.line.partition(":")
        time = duration(point.seconds) if point.seconds else ""
        yield f"`{point.label}`", f"{point.top1:g}", f"{lecture}, {line}", f"{point.macs:,}", time


def plot(svg: str, *names: str) -> None:
    """Writes the plot of docs/accuracy.md and prints the page.

    Raises:
        ValueError: a file that is no .svg, no reports, or a bad one.
        ImportError: without matplotlib.
        OSError: a file that is missing or cannot be written.
    """
    if Path(svg).suffix != ".svg" or not names:
        raise ValueError(f"--plot takes an .svg file and reports to make it of, got {' '.join((svg, *names))}")
    found = {name: read_report(name) for name in names}
    text = plot_svg(list(found.values()))
    Path(svg).write_text(text)
    print(accuracy_page(svg, found), end="")


def plot_svg(reports: Sequence[Mapping[str, Any]]) -> str:
    """The plot as SVG text: a panel over multiply-adds, and one over measured time. The same reports, the same text.

    Raises:
        ImportError: without matplotlib, of the extra ``plots``.
        ValueError: as :func:`points`.
    """
    found = points(reports)
    timed = [point for point in found if point.seconds]
    cpu = reports[0]["environment"]["cpu"] or reports[0]["environment"]["system"]
    panels = (
        ("multiply-adds of one image, in millions", [(p.label, p.macs / 1e6, p.top1) for p in found]),
        (
            f"time of one image, in ms: fastcnn on {cpu}, {reports[0]['environment']['threads']} threads",
            [(p.label, (p.seconds or 0) * 1e3, p.top1) for p in timed],
        ),
    )
    width, height = _WIDTH + 2 * _MARGIN, len(panels) * (_HEIGHT + _MARGIN)

    def draw(figure: Any) -> None:
        for i, (title, values) in enumerate(panels):
            bottom = height - (i + 1) * (_HEIGHT + _MARGIN) + 0.9 * _MARGIN
            box = (_MARGIN / width, bottom / height, _WIDTH / width, _HEIGHT / height)
            _draw(figure.add_axes(box), title, values)

    return plots.plot((width / 72, height / 72), _FONT + 1, draw)


def _draw(axes: Any, title: str, values: Sequence[tuple[str, float, float]]) -> None:
    from matplotlib.ticker import LogLocator

    least, most = min(x for _, x, _ in values) / 1.3, max(x for _, x, _ in values) * 1.3
    axes.set(xscale="log", xlim=(least, most), ylim=_TOP1, xlabel=title, ylabel="top-1 accuracy as printed, %")
    axes.grid(True, which="both", linewidth=0.3, color="#dddddd")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=40))
    axes.xaxis.set_major_formatter(lambda x, position: f"{x:g}")
    axes.plot([x for _, x, _ in values], [y for *_, y in values], "o", markersize=_MARKER, color="#1f5fa8")
    scale = _WIDTH / math.log(most / least), _HEIGHT / (_TOP1[1] - _TOP1[0])
    places = [(math.log(x / least) * scale[0], (y - _TOP1[0]) * scale[1]) for _, x, y in values]
    for (label, x, y), (dx, dy) in zip(values, _offsets([label for label, *_ in values], places), strict=True):
        far = math.hypot(dx, dy) > 11
        line = {"arrowstyle": "-", "linewidth": 0.3, "color": "#888888", "shrinkA": 0, "shrinkB": 2}
        axes.annotate(
            label,
            (x, y),
            (dx, dy),
            textcoords="offset points",
            fontsize=_FONT,
            va="center",
            ha="left" if dx > 0 else "right",
            arrowprops=line if far else None,
        )


def _offsets(labels: Sequence[str], places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Where each label begins (dx > 0) or ends, from its point: the place that hides the least, nearest first.

    In points. By the size of text as it is on average, not as one machine's fonts have it.
    """
    steps = [(side * 5.0 * right, 8.0 * up) for right in range(1, 13) for up in range(-6, 7) for side in (1, -1)]
    taken = [(x - _MARKER, x + _MARKER, y - _MARKER, y + _MARKER) for x, y in places]
    chosen: list[tuple[float, float]] = []
    for label, (x, y) in zip(labels, places, strict=True):
        width = 0.62 * _FONT * len(label)

        def box(dx: float, dy: float) -> tuple[float, float, float, float]:
            left = x + dx if dx > 0 else x + dx - width  # noqa: B023
            return left, left + width, y + dy - 0.6 * _FONT, y + dy + 0.6 * _FONT  # noqa: B023

        def hidden(step: tuple[float, float]) -> float:
            left, right, low, high = box(*step)
            outside = max(0.0, -left) + max(0.0, right - _WIDTH) + max(0.0, -low) + max(0.0, high - _HEIGHT)
            overlaps = (
                max(0.0, min(right, b[1]) - max(left, b[0])) * max(0.0, min(high, b[3]) - max(low, b[2])) for b in taken
            )
            return sum(overlaps) + 100 * outside + math.hypot(*step)

        best = min(steps, key=hidden)
        taken.append(box(*best))
        chosen.append(best)
    return chosen
