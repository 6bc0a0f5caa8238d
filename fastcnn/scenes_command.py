"""``fastcnn scenes``: generated scenes as files, in the layouts that ``fastcnn train`` reads."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from fastcnn.data.coco import encode_masks
from fastcnn.data.images import write_image, write_mask
from fastcnn.data.scenes import Scenes
from fastcnn.data.targets import Target

LARGEST = 10_000  # Pixels of a side.


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="made if it is not there; it must be empty")
    parser.add_argument("--count", type=_number(1), default=8, metavar="N", help="of pictures; default: 8")
    parser.add_argument("--size", type=_number(16), default=160, metavar="PIXELS", help="of a side; default: 160")
    parser.add_argument("--seed", type=_number(0), default=0, metavar="N", help="another gives other pictures")


def _number(least: int) -> Any:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a number from {least}, got {text!r}")
        return int(text)

    return number


def scenes(options: argparse.Namespace) -> int:
    """Writes ``images/*.png``, ``masks/*.png`` (class indices, 0 for the background), ``classes.txt``, a name for each
    class from 0, and ``annotations.json`` (COCO's instances).

    Raises:
        ValueError: a folder with something in it, or sides over 10,000 pixels.
        ImportError: without Pillow and pycocotools, of the extra ``detection``.
    """
    folder: Path = options.folder
    if options.size > LARGEST:
        raise ValueError(f"--size must be at most {LARGEST}, got {options.size}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there already, and no empty folder")
    data = Scenes(options.count, options.size, options.seed)
    maps = Scenes(options.count, options.size, options.seed, semantic=True)
    digits = max(4, len(str(options.count - 1)))
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    encode_masks(torch.zeros(1, 1, 1))  # Says that pycocotools is not there before a folder is made.
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for index in range(options.count):
        (image, target), (_, classes) = data[index], maps[index]
        name = f"{index:0{digits}}.png"
        write_image(folder / "images" / name, (image * 255).round().to(torch.uint8))
        write_mask(folder / "masks" / name, classes)
        images.append({"id": index, "file_name": name, "width": options.size, "height": options.size})
        objects += _objects(target, len(objects) + 1)
    names = ["background", *data.classes]
    (folder / "classes.txt").write_text("\n".join(names) + "\n")
    categories = [{"id": label, "name": name} for label, name in enumerate(names) if label]
    content = {"images": images, "categories": categories, "annotations": objects}
    (folder / "annotations.json").write_text(json.dumps(content) + "\n")
    print(f"{options.count} scenes, {len(objects)} objects: {folder}")
    return 0


def _objects(target: Target, first: int) -> list[dict[str, Any]]:
    """COCO's annotations of a picture, numbered from ``first``."""
    x1, y1, x2, y2 = target["boxes"].unbind(1)
    boxes = torch.stack((x1, y1, x2 - x1, y2 - y1), 1).tolist()
    each = zip(boxes, target["labels"].tolist(), target["area"].tolist(), encode_masks(target["masks"]), strict=True)
    return [
        {
            "id": number,
            "image_id": int(target["image_id"]),
            "category_id": label,
            "bbox": box,
            "area": area,
            "iscrowd": 0,
            "segmentation": runs | {"counts": runs["counts"].decode()},
        }
        for number, (box, label, area, runs) in enumerate(each, first)
    ]
