"""``fastcnn upscale``: image files through a network whose output is an image."""

from __future__ import annotations

import argparse
from typing import Any

import torch

from fastcnn.data.images import read_image, write_image
from fastcnn.image_command import add_image_options, make_folders, open_network, output_files


def add_options(parser: argparse.ArgumentParser) -> None:
    add_image_options(
        parser,
        out="the larger image, or a folder for one of each",
        network="super-resolution or enhancement network; default: the one that the weights name",
        weights="default: the newest published",
        required=True,
    )
    parser.add_argument(
        "--scale", type=int, metavar="N", help="times as long sides; default: the network's; for those that take any"
    )


def upscale(options: argparse.Namespace) -> int:
    """Runs the command; every error is a ValueError, TypeError, OSError or ImportError of one line."""
    outputs = output_files(options.images, options.out)
    make_folders(outputs)
    images = (read_image(path, upright=True) for path in options.images)
    image = next(images)  # Before a network is built, which takes longer.
    changes: dict[str, Any] = {} if options.scale is None else {"scale": options.scale}
    net: Any = open_network(options, ("super_resolution", "enhancement"), "network from images to images", **changes)
    run = net.enhance if net.row.task == "enhancement" else net.upscale
    for path, output in zip(options.images, outputs, strict=True):
        found = run(image.float() / 255)
        assert output is not None
        write_image(output, (found * 255).round().clamp(0, 255).to(torch.uint8))
        before, after = (f"{each.shape[2]}x{each.shape[1]}" for each in (image, found))
        print(f"{path}: {before} to {after}, {output}")
        image = next(images, image)
    return 0
