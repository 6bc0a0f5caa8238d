"""``fastcnn segment``: the class of each pixel of image files."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastcnn.data.draw import draw_segmentation, label_name
from fastcnn.data.images import fit_channels, read_image, write_image
from fastcnn.image_command import add_image_options, make_folders, open_network, output_files
from fastcnn.models import ConvNet


def add_options(parser: argparse.ArgumentParser) -> None:
    add_image_options(
        parser,
        out="draw into this file, or one for each image here",
        network="segmentation network; default: the one that the weights name",
        weights="default: the newest published",
    )
    parser.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="shorter side of what the network is given; default: the image's own",
    )


def segment(options: argparse.Namespace) -> int:
    """Runs the command; every error is a ValueError, TypeError, OSError or ImportError of one line."""
    if options.size is not None and options.size < 1:
        raise ValueError(f"--size must be at least 1, got {options.size}")
    outputs = output_files(options.images, options.out)
    make_folders(outputs)
    images = (read_image(path, upright=True) for path in options.images)
    image = next(images)  # Before a network is built, which takes longer.
    net = open_network(options, ("segmentation",), "segmentation network")
    for path, output in zip(options.images, outputs, strict=True):
        labels = segment_image(net, image, options.size)
        print(f"{path}:")
        values, counts = labels.unique(return_counts=True)
        for index in counts.argsort(descending=True, stable=True).tolist():
            name = label_name(int(values[index]), net.classes)
            print(f"  {name}  {100 * counts[index].item() / labels.numel():.2f} %")
        if output is not None:
            write_image(output, draw_segmentation(image, labels, net.classes))
        image = next(images, image)
    return 0


@torch.inference_mode()
def segment_image(net: ConvNet, image: Tensor, size: int | None = None) -> Tensor:
    """The class of each pixel: uint8 RGB (3, H, W) to int64 (H, W), on the CPU.

    Where ``size`` is given the network sees the image with a shorter side of so many pixels (bilinear, antialiased) and
    its logits are resized (bilinear). Pixels are normalised as the network's ``preprocess`` says; a network of one
    channel is given luminance. ``net`` is in eval mode. Deterministic.

    Raises:
        ValueError: a network of volumes, or of other than 1 or 3 channels.
    """
    if net.dims != 2 or net.in_channels not in (1, 3):
        raise ValueError(f"a {type(net).__name__} of inputs {net.input_layout} takes no pictures")
    sides = image.shape[1:]
    pixels = image.to(next(net.parameters()).device).float()[None] / 255
    pixels = fit_channels(pixels, net.in_channels)
    if size is not None:
        resized = [max(round(side * size / min(sides)), 1) for side in sides]
        pixels = F.interpolate(pixels, resized, mode="bilinear", align_corners=False, antialias=True)
    pixels = net.preprocess.normalize(pixels).to(next(net.parameters()).dtype)
    # Networks whose maps are smaller than the image have a way to one of its size.
    run: Any = getattr(net, "predict", net)
    logits = run(pixels)
    if size is not None:
        logits = F.interpolate(logits, tuple(sides), mode="bilinear", align_corners=False)
    return logits[0].argmax(0).cpu()  # type: ignore[no-any-return]
