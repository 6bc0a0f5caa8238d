"""``fastcnn train``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastcnn._progress import progress
from fastcnn.models import save_weights
from fastcnn.train.processes import Processes
from fastcnn.train.recipes import change
from fastcnn.train.rows import RECIPES, find_recipe
from fastcnn.train.scalars import Scalars
from fastcnn.train.trainer import AMP, CHECKPOINT, Trainer, Write

RESULT, WEIGHTS, EVENTS = "result.json", "model.safetensors", "tensorboard"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    names = f"one of {', '.join(RECIPES)}; or the name of a network"
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help=names)
    parser.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="a setting of the recipe, as steps=500")
    parser.add_argument("--out", metavar="FOLDER", help="for the checkpoint, weights and results; default: runs/RECIPE")
    parser.add_argument("--resume", action="store_true", help="go on from the folder's checkpoint")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")
    parser.add_argument("--amp", default="", choices=[name for name in AMP if name], help="mixed precision")
    parser.add_argument("--plain", action="store_true", help="lines instead of a progress bar, which needs rich")
    parser.add_argument("--tensorboard", action="store_true", help="also write FOLDER/tensorboard")
    parser.add_argument("--render", nargs="+", metavar="FILE", help="plot (.svg) and print results: PLOT RESULT ...")


def train(options: argparse.Namespace, environment: Callable[[], dict[str, Any]]) -> int:
    """Trains a recipe and writes what came of it; ``environment`` is what to record beside it.

    Raises:
        ValueError, FileNotFoundError, ImportError: in a line, whatever does not fit.
    """
    if options.recipe is None:
        raise ValueError(f"which recipe? {', '.join(RECIPES)}, or the name of a network")
    recipe = change(find_recipe(options.recipe), options.settings)
    folder = Path(options.out or Path("runs") / options.recipe)
    if (folder / CHECKPOINT).is_file() and not options.resume:
        raise ValueError(f"{folder} has a checkpoint already: --resume goes on from it, --out names another folder")
    processes = Processes.join(options.device)
    try:
        settings = {"device": options.device, "amp": options.amp, "resume": options.resume}
        trainer = Trainer(recipe, folder, **settings, processes=processes)
        plain = options.plain or not processes.first or not sys.stderr.isatty()
        scalars = Scalars(folder / EVENTS, trainer.step) if options.tensorboard and processes.first else None
        report = _fit(trainer, plain, scalars.write if scalars else lambda group, entry: None)
        if scalars:
            scalars.close()
        if processes.first:
            report["environment"], report["command"] = environment(), _command(options)
            classes = trainer.task.labels(trainer.classes)
            save_weights(trainer.net, folder / WEIGHTS, network=recipe.network, classes=classes)
            (folder / RESULT).write_text(json.dumps(report, indent=1) + "\n")
            figures, minutes = trainer.task.line(report["metrics"]), report["seconds"] / 60
            print(f"{figures} after {minutes:.1f} min; {folder / WEIGHTS}")
    finally:
        processes.leave()
    return 0


def _fit(trainer: Trainer, plain: bool, write: Write) -> dict[str, Any]:
    if plain:
        shown = trainer.processes.first
        return trainer.fit(lambda step, line: print(line, flush=True) if line and shown else None, write)
    with progress(trainer.recipe.steps, False, trainer.step) as advance:
        last = ""

        def show(step: int, line: str) -> None:
            nonlocal last
            last = line or last
            advance(last)

        return trainer.fit(show, write)


def _command(options: argparse.Namespace) -> str:
    mixed = ("--amp", options.amp) if options.amp else ()
    return " ".join(("fastcnn train", options.recipe, *options.settings, *mixed))
