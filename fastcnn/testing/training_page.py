"""Results of trainings as docs/training.md and its plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastcnn.testing import plots
from fastcnn.testing.pages import about
from fastcnn.testing.tables import markdown

PAGE = """\
# Training

Each family of detectors learns {classes} classes of shapes from generated scenes (`fastcnn.data.Scenes`), from random
weights, and is tested on other scenes. mAP@0.5 is VOC's average precision over all points of the curve at an IoU of
0.5; AP is COCO's over IoUs of 0.5 to 0.95, of boxes and of masks. Minutes are of the whole command: drawing the
scenes, learning, and every test on the way.

{table}

![mAP@0.5 on held-out scenes, and loss, over minutes]({image})

{environments}

Commands:

{commands}

This page and the plot are made by `fastcnn train --render {plot} {files}`.
"""
HEAD = ("recipe", "network", "parameters", "steps", "batch", "minutes", "mAP@0.5", "AP", "AP of masks")


def render(plot: str, names: Sequence[str]) -> str:
    """Writes the plot, an .svg file, and returns the page.

    Raises:
        ValueError: another kind of file, or one that is no result of a training.
        ImportError: without matplotlib, of the extra ``plots``.
        OSError: a file that is missing or cannot be written.
    """
    if Path(plot).suffix != ".svg" or not names:
        raise ValueError(f"--render takes an .svg file and results to make it of, got {' '.join((plot, *names))}")
    results = {name: read_result(name) for name in names}
    Path(plot).write_text(plot_svg(list(results.values())))
    return page(plot, results)


def read_result(name: str) -> dict[str, Any]:
    """A file that ``fastcnn train`` wrote.

    Raises:
        ValueError: not such a file.
    """
    try:
        result = json.loads(Path(name).read_text())
        result["recipe"]["network"], result["metrics"]["mAP"], result["history"][0], result["command"]
    except (ValueError, KeyError, TypeError, IndexError):
        raise ValueError(f"{Path(name).name} is no result of fastcnn train") from None
    return dict(result)


def page(plot: str, results: Mapping[str, Mapping[str, Any]]) -> str:
    """The page of results by the names of their files, beside the plot."""
    made_on = dict.fromkeys(about(result["environment"]) for result in results.values())
    return PAGE.format(
        classes=len(next(iter(results.values()))["classes"]),
        table="\n".join(markdown([HEAD, *map(_row, results.values())])),
        plot=plot,
        image=Path(plot).name,
        environments="\n\n".join(made_on),
        commands="\n".join(f"    {result['command']}" for result in results.values()),
        files=" ".join(results),
    )


def _name(result: Mapping[str, Any]) -> str:
    return str(result["command"].split()[2])


def _row(result: Mapping[str, Any]) -> tuple[str, ...]:
    recipe, metrics = result["recipe"], result["metrics"]
    figures = [metrics[kind]["AP"] if kind in metrics else None for kind in ("bbox", "segm")]
    return (
        _name(result),
        f"`{recipe['network']}`",
        f"{result['parameters'] / 1e6:.2f} M",
        str(recipe["steps"]),
        str(recipe["batch_size"]),
        f"{result['seconds'] / 60:.1f}",
        f"{metrics['mAP']:.3f}",
        *("" if value is None else f"{value:.3f}" for value in figures),
    )


def plot_svg(results: Sequence[Mapping[str, Any]]) -> str:
    """Held-out mAP and loss over minutes, a line a result; the same results, the same text.

    Raises:
        ImportError: without matplotlib.
    """

    def draw(figure: Any) -> None:
        figure.set_layout_engine("constrained")
        precision, loss = figure.subplots(1, 2)
        for result in results:
            for axes, entries, key, mark in (
                (precision, result["checks"], "mAP", "o-"),
                (loss, result["history"], "loss", "-"),
            ):
                minutes = [entry["seconds"] / 60 for entry in entries]
                values = [entry[key] for entry in entries]
                # As shares of where they begin, for the families' losses are not of one kind.
                shares = [value / values[0] for value in values] if key == "loss" else values
                axes.plot(minutes, shares, mark, linewidth=0.9, markersize=3, label=_name(result))
        precision.set(xlabel="minutes", ylabel="mAP@0.5 on held-out scenes", ylim=(0, 1))
        loss.set(xlabel="minutes", ylabel="loss, of what it was at first", yscale="log")
        for axes in (precision, loss):
            axes.grid(True, which="both", linewidth=0.3, color="#dddddd")
        precision.legend()

    return plots.plot((10, 4), 8, draw)
