"""The ``fastcnn`` command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from fastcnn import __version__, report


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 0, 1 for a failed bench, 2 for bad usage, 130 for Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parse(arguments)
    try:
        return int(options.run(options))
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"fastcnn {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _parser()
    options, left = parser.parse_known_args(arguments, argparse.Namespace(arguments=arguments))
    if options.command == "train":
        # argparse looks for the recipe and its settings in one place, before the first option.
        named = [options.recipe, *options.settings, *(each for each in left if not each.startswith("-"))]
        options.recipe, *options.settings = [each for each in named if each is not None] or [None]
        left = [each for each in left if each.startswith("-")]
    if left:
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    return options


_Add = Callable[[argparse.ArgumentParser], None]
_Run = Callable[[argparse.Namespace], int]


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; the usage is for ``-h``."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} -h)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fastcnn", description="Fast, exact ops for convolutional networks.")
    parser.add_argument("--version", action="version", version=f"fastcnn {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    doctor = commands.add_parser("doctor", help="say which kernels run on which device here, and why not more")
    doctor.set_defaults(run=_doctor)

    models = commands.add_parser("models", help="list the networks, or summarise some of them layer by layer")
    models.add_argument("names", nargs="*", metavar="NAME", help="network to summarise")
    models.set_defaults(run=_models)

    from fastcnn import detect_command, scenes_command, segment_command, upscale_command, visualize_command
    from fastcnn.testing.bench_command import add_options, bench
    from fastcnn.train.command import add_options as add_training

    rows: list[tuple[str, str, str, _Add, _Run]] = [
        (
            "train",
            "train a network on generated scenes or on folders of images",
            "Trains a detector, a classifier, or a network for segmentation or super-resolution, tests it on images "
            "held out, and writes a checkpoint, its weights and the results. Under torchrun, on several processes.",
            add_training,
            _train,
        ),
        (
            "scenes",
            "write generated scenes as files, to train on or to look at",
            "Draws scenes of shapes and writes pictures, maps of classes, and boxes and masks as COCO's JSON: the same "
            "for the same seed.",
            scenes_command.add_options,
            scenes_command.scenes,
        ),
        (
            "detect",
            "find objects in pictures",
            "Finds objects in image files, prints a line for each (name, score, corners x1 y1 x2 y2 in pixels) and "
            "draws them. Without --model and --weights: the small network that comes with the package.",
            detect_command.add_options,
            detect_command.detect,
        ),
        (
            "segment",
            "name the class of each pixel of pictures",
            "Finds the class of each pixel of image files, prints the share of each class, and draws them.",
            segment_command.add_options,
            segment_command.segment,
        ),
        (
            "upscale",
            "enlarge or enhance pictures",
            "Writes image files with more pixels, or better ones, as a trained network makes them.",
            upscale_command.add_options,
            upscale_command.upscale,
        ),
        (
            "visualize",
            "show what a network sees",
            "Draws heat maps of a class on images (grad-cam), a network's first kernels (kernels), the patches of "
            "images that a channel answers most strongly (responses), or what in images it answers (deconvnet).",
            visualize_command.add_options,
            visualize_command.visualize,
        ),
        (
            "bench",
            "time ops and networks against PyTorch and torchvision",
            "Times ops and networks on real input against the fastest PyTorch or torchvision equivalents, after "
            "comparing their results, and prints one table of ratios. Without a selection: everything in float32.",
            add_options,
            bench,
        ),
    ]
    for name, short, long, add, run in rows:
        command = commands.add_parser(name, help=short, description=long)
        add(command)
        command.set_defaults(run=run)
    return parser


def _train(options: argparse.Namespace) -> int:
    from fastcnn.image_command import find_device
    from fastcnn.testing.environment import environment
    from fastcnn.testing.training_page import render
    from fastcnn.train.command import train

    find_device(options.device)
    if options.render:
        print(render(options.render[0], options.render[1:]), end="")
        return 0
    return train(options, environment)


def _doctor(options: argparse.Namespace) -> int:
    print(report())
    return 0


def _models(options: argparse.Namespace) -> int:
    from fastcnn.models import list_models, summary

    if options.names:
        print("\n\n".join(str(summary(name)) for name in options.names))
        return 0
    names = list_models()
    width = max(map(len, names))
    for name in names:
        counted = summary(name)
        shape = "x".join(map(str, counted.input_shape[1:]))
        print(f"{name:<{width}}  {counted.params / 1e6:6.1f} M params  {counted.macs / 1e9:6.2f} G MACs  {shape}")
    return 0
