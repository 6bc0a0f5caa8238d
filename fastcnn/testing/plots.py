"""Plots in docs as SVG text that depends on nothing but what is drawn."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any


def plot(size: tuple[float, float], font: float, draw: Callable[[Any], None]) -> str:
    """What ``draw`` does with a matplotlib figure of that size in inches, its text in points of ``font``.

    Raises:
        ImportError: without matplotlib, of the extra ``plots``.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("the plot needs matplotlib: pip install 'fastcnn[plots]'") from None
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"svg.hashsalt": "fastcnn", "svg.fonttype": "none", "font.size": font})
        figure = Figure(figsize=size)
        draw(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"
