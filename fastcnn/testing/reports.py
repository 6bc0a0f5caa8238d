"""Reports of ``fastcnn bench``: printed, written and read."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastcnn.testing import pages, tables
from fastcnn.testing.network_tables import rival_means

NO_TORCHVISION = "torchvision does not import here: what is compared with fastcnn's PyTorch reference is {}"


def print_report(report: dict[str, Any]) -> None:
    """The table, what it was measured on, and what the networks saw."""
    results = report["results"]
    print(pages.about(report["environment"]))
    alone = dict.fromkeys(r["subject"] for r in results if "reference" in (*r["rows"], *r["missing"]))
    if alone and not report["environment"]["torchvision"]:
        print(NO_TORCHVISION.format(" and ".join(alone)))
    print()
    print(tables.terminal(results, colour=sys.stdout.isatty(), roofline=report.get("roofline")))
    print()
    for text in summaries(results):
        print(text, end="\n\n")
    print(tables.count(results) or "nothing was timed")
    if report["left_out"]:
        print(f"{len(report['left_out'])} cases were left out, for want of time")
    for line in pages.top5(report):
        print(line)


def summaries(results: Sequence[tables.Result]) -> list[str]:
    """Tables of means, of ops and of networks; without those that would only repeat the cases."""
    ops, networks = ([r for r in results if (r["kind"] == "op") is is_op] for is_op in (True, False))
    found = [list(tables.means(ops)), list(rival_means(networks))]
    return [tables.plain(rows) for rows in found if any(int(row[1]) > 1 for row in rows[1:])]


def shared(arguments: Sequence[str]) -> list[str]:
    """The command line for others to repeat: without the folders of this machine."""
    return [str(Path(a).name) if Path(a).is_absolute() else a for a in arguments]


def to_json(report: dict[str, Any]) -> str:
    """The report as text, each row's samples on a line of their own: long, but a diff can be read."""
    text = json.dumps(report, indent=1)
    return re.sub(r'("samples": )\[([^]]*)\]', lambda m: m[1] + "[" + " ".join(m[2].split()) + "]", text) + "\n"


def read_report(path: str | Path) -> dict[str, Any]:
    """A report that ``--json`` wrote.

    Raises:
        ValueError: not such a file.
    """
    try:
        report = json.loads(Path(path).read_text())
    except ValueError:
        report = None
    if not isinstance(report, dict) or not {"command", "image", "environment", "results", "left_out"} <= set(report):
        raise ValueError(f"{path} is no report of fastcnn bench --json")
    return report
