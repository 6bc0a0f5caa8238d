"""What commands on image files share: options, the files that are written, the network, the device."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from fastcnn.data.images import image_suffixes
from fastcnn.models import ConvNet, create, create_from, find_entry


def add_image_options(
    parser: argparse.ArgumentParser, *, out: str, network: str, weights: str, required: bool = False
) -> None:
    """``out``, ``network`` and ``weights`` are what the helps of --out, --model and --weights say.

    Where ``required``, --out has to be given.
    """
    parser.add_argument("images", nargs="+", metavar="IMAGE", type=Path)
    parser.add_argument("--out", type=Path, metavar="OUT.png|DIR", required=required, help=out)
    parser.add_argument("--model", metavar="NAME", help=network)
    parser.add_argument("--weights", metavar="FILE|TAG", help=weights)
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")


def output_files(images: Sequence[Path], out: Path | None) -> list[Path | None]:
    """The file that each image's result is written into; None where ``out`` is.

    Raises:
        ValueError: one file for several images, a suffix of no image, or a file that is an image itself.
    """
    if out is None:
        return [None] * len(images)
    if not out.suffix or out.is_dir():
        files = [out / f"{image.stem}.png" for image in images]
    elif len(images) > 1:
        raise ValueError(f"--out must be a folder for {len(images)} images, got {str(out)!r}")
    elif out.suffix.lower() not in image_suffixes():
        raise ValueError(f"--out must be a folder or an image file such as out.png, got {str(out)!r}")
    else:
        files = [out]
    if len(set(files)) < len(files):
        twice = next(file for file in files if files.count(file) > 1)
        raise ValueError(f"two images would be drawn into {str(twice)!r}")
    inputs = {image.resolve() for image in images}
    for file in files:
        if file.resolve() in inputs:
            raise ValueError(f"--out would write over the image {str(file)!r}")
    return list(files)


def make_folders(files: Iterable[Path | None]) -> None:
    for folder in {path.parent for path in files if path is not None}:
        folder.mkdir(parents=True, exist_ok=True)


def open_network(
    options: argparse.Namespace, tasks: Sequence[str], noun: str, packaged: bool = False, **overrides: Any
) -> ConvNet:
    """The network of --model and --weights in eval mode on its --device; ``overrides`` as of :func:`create`.

    Without both it is the one in the package where ``packaged``.

    Raises:
        OSError: published weights cannot be fetched.
        ValueError: neither given, a network of another task, no such device; and what :func:`create` raises.
    """
    if not packaged and options.model is None and options.weights is None:
        raise ValueError("needs --weights of a network, or --model NAME with published ones")
    device = find_device(options.device)
    try:
        if options.model is None:
            net = create_from(options.weights, **overrides)
        elif find_entry(options.model).row.task in tasks:
            net = create(options.model, weights=options.weights or "DEFAULT", **overrides)
        else:
            raise ValueError(f"{options.model} is no {noun}")
    except RuntimeError as error:  # Published weights that cannot be fetched.
        raise OSError(str(error)) from None
    if net.row.task not in tasks:
        raise ValueError(f"{Path(options.weights).name} is of no {noun}")
    return net.to(device).eval()


def find_device(name: str) -> torch.device:
    here = {"cpu", "cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))}
    if name not in here or (name == "cuda" and not torch.cuda.is_available()):
        raise ValueError(f"torch {torch.__version__} has no device {name!r} here")
    return torch.device(name)
