"""``fastcnn detect``: a detector on image files."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastcnn.data.draw import draw_detections, label_name
from fastcnn.data.images import read_image, write_image
from fastcnn.image_command import add_image_options, make_folders, open_network, output_files
from fastcnn.models import ConvNet

BATCH = 8  # Images that a network gets at once.
THRESHOLDS = ("score_threshold", "score_thresh")  # The names that rows have for it.


def add_options(parser: argparse.ArgumentParser) -> None:
    add_image_options(
        parser,
        out="draw into this file, or one for each image here",
        network="detector; default: the one in the weights or in the package",
        weights="default: the newest published; also Darknet's .weights",
    )
    parser.add_argument(
        "--threshold", type=_share, default=0.5, metavar="SCORE", help="detections have one above; default: 0.5"
    )
    parser.add_argument("--json", metavar="FILE|-", help="also write the detections; - prints them alone")


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a score from 0 to 1, got {text!r}")
    return value


def detect(options: argparse.Namespace) -> int:
    """Runs the command; every error is a ValueError, TypeError, OSError or ImportError of one line."""
    outputs = output_files(options.images, options.out)
    report = None if options.json in (None, "-") else Path(options.json)
    if report is not None and report.is_dir():
        raise ValueError(f"--json {options.json} is a directory")
    make_folders((*outputs, report))
    first = read_image(options.images[0], upright=True)  # Before a network is built, which takes longer.
    net = _network(options)
    found = []
    for start in range(0, len(options.images), BATCH):
        paths = options.images[start : start + BATCH]
        images = [read_image(path, upright=True) if path is not options.images[0] else first for path in paths]
        for path, image, detections, output in zip(
            paths, images, _detections(net, images), outputs[start:], strict=False
        ):
            found.append(_entry(path, image, detections, net.classes))
            if options.json != "-":
                _print(found[-1])
            if output is not None:
                write_image(output, draw_detections(image, detections, net.classes))
    if options.json is not None:
        text = json.dumps(found, indent=1) + "\n"
        sys.stdout.write(text) if report is None else report.write_text(text)
    return 0


def _network(options: argparse.Namespace) -> ConvNet:
    """In eval mode on its device; its detections have a score above the threshold."""
    net = open_network(options, ("detection",), "detector", packaged=True)
    # The row's own would hide what is asked for, or have masks pasted that are not.
    changes: dict[str, Any] = {field: options.threshold for field in THRESHOLDS if hasattr(net.row, field)}
    net.row = dataclasses.replace(net.row, **changes)
    return net


def _detections(net: Any, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    device = next(net.parameters()).device
    with torch.inference_mode():
        found = net([image.to(device).float() / 255 for image in images])
    return [{key: value.cpu() for key, value in each.items()} for each in found]


def _entry(path: Path, image: Tensor, detections: dict[str, Tensor], classes: Sequence[str]) -> dict[str, Any]:
    each = zip(*(detections[key].tolist() for key in ("labels", "scores", "boxes")), strict=True)
    return {
        "image": str(path),
        "width": image.size(2),
        "height": image.size(1),
        "detections": [
            {"label": label, "name": label_name(label, classes), "score": score, "box": box}
            for label, score, box in each
        ],
    }


def _print(entry: dict[str, Any]) -> None:
    print(f"{entry['image']}: {len(entry['detections'])} found")
    for found in entry["detections"]:
        print(f"  {found['name']}  {found['score']:.3f}  {' '.join(f'{side:.1f}' for side in found['box'])}")
