"""What ``fastcnn train`` learns by: rows of numbers, and how a command line changes them."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastcnn.models import find_entry, list_models
from fastcnn.models._metadata import decode_options

DATA = ("scenes", "voc", "coco")
OPTIMIZERS = ("adamw", "sgd")
AUGMENTATIONS = ("none", "flip", "distort", "ssd")
# Fields that a run may be resumed with other values of: none of them changes what is learnt.
FREE = ("workers", "log_every", "check_every", "root")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training of a detector.

    Attributes:
        network: one of :func:`fastcnn.models.list_models`, of the task "detection".
        options: overrides of its row, as the JSON of :mod:`fastcnn.models._metadata`: ``{"width_mult": 0.5}``.
        weights: a file or tag to begin from; its classes may be others.
        data: "scenes" (:class:`fastcnn.data.Scenes`, drawn once and kept in memory), or "voc" or "coco", a folder of
            that layout.
        root: the folder.
        train, held_out: of scenes how many pictures; of VOC the image set; of COCO the file of annotations, and its
            folder of images if that is not ``root``, as ``annotations.json:images``.
        size: side of the scenes in pixels.
        batch_size: images of a step, over all processes.
        steps: of the optimiser.
        optimizer: "adamw", or "sgd" with ``momentum``.
        lr: the highest rate, which is reached after ``warmup`` steps; from there a cosine takes it to nothing.
        weight_decay: of weights that are matrices or more; not of norms and biases.
        clip: the gradients' norm is cut down to this; 0 leaves them.
        augment: "none", "flip", "distort" (flips, and colours distorted) or "ssd" (those, zooming out, and crops).
        seed: of the first weights, the order of images, augmentation and sampling.
        workers: processes that load and augment images; 0 is the training process itself.
        log_every: steps between two lines of the log.
        check_every: steps between two checkpoints with a test on held-out images; 0: only at the end.
    """

    network: str
    options: str = "{}"
    weights: str = ""
    data: str = "scenes"
    root: str = ""
    train: str = "4000"
    held_out: str = "500"
    size: int = 160
    batch_size: int = 16
    steps: int = 2000
    optimizer: str = "adamw"
    momentum: float = 0.9
    lr: float = 2e-3
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 10.0
    augment: str = "flip"
    seed: int = 0
    workers: int = 0
    log_every: int = 20
    check_every: int = 500

    def __post_init__(self) -> None:
        for name, allowed in (("data", DATA), ("optimizer", OPTIMIZERS), ("augment", AUGMENTATIONS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in ("batch_size", "steps", "log_every", "size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("lr", "momentum", "warmup", "weight_decay", "clip", "seed", "workers", "check_every"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.data != "scenes" and not self.root:
            raise ValueError(f"data={self.data} needs root=FOLDER")
        self.overrides()

    def overrides(self) -> dict[str, Any]:
        """``options`` as keyword arguments of :func:`fastcnn.models.create`.

        Raises:
            ValueError: no JSON object, or an unknown network.
        """
        try:
            found = json.loads(self.options)
        except ValueError as error:
            raise ValueError(f"options must be a JSON object, got {self.options!r}: {error}") from None
        if not isinstance(found, dict):
            raise ValueError(f"options must be a JSON object, got {self.options!r}")
        return decode_options(find_entry(self.network).row, found)


def change(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """The recipe with ``name=value`` settings, each value of its field's type.

    Raises:
        ValueError: an unknown name, or a value of another type or out of range.
    """
    types = {field.name: type(getattr(recipe, field.name)) for field in dataclasses.fields(recipe)}
    changes = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or name not in types:
            close = difflib.get_close_matches(name, types, n=2)
            hint = f"; did you mean {' or '.join(close)}?" if close else f": {', '.join(types)}"
            raise ValueError(f"settings are name=value of a recipe, got {setting!r}{hint}")
        try:
            changes[name] = types[name](text)
        except ValueError:
            raise ValueError(f"{name} must be of type {types[name].__name__}, got {text!r}") from None
    return dataclasses.replace(recipe, **changes)


def find_recipe(name: str) -> Recipe:
    """A row of :data:`RECIPES`; for the name of any other detector, the defaults with that network.

    Raises:
        ValueError: neither.
    """
    if name in RECIPES:
        return RECIPES[name]
    if name in list_models(task="detection"):
        return Recipe(network=name)
    close = difflib.get_close_matches(name, [*RECIPES, *list_models(task="detection")], n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"recipes are {', '.join(RECIPES)}"
    raise ValueError(f"neither a recipe nor a detector is called {name!r}; {hint}")


# Priors are kmeans_anchors of 400 scenes.
_YOLO = json.dumps(
    {
        "preprocess": {"input_size": 192},
        "multi_scale": False,
        "priors": [[30, 30], [40, 40], [52, 52], [66, 66], [83, 83]],
    }
)
_RETINANET = json.dumps({"aspect_ratios": [1.0]})
# On scenes, from random weights; each learns in minutes on two cores.
RECIPES = {
    "ssdlite": Recipe(
        network="ssdlite160_mobilenet_v2_x0_35", steps=4000, augment="distort", log_every=50, check_every=1000
    ),
    "retinanet": Recipe(
        network="retinanet_mobilenet_v2_x0_5_fpn", options=_RETINANET, steps=1800, log_every=50, check_every=300
    ),
    "fasterrcnn": Recipe(
        network="fasterrcnn_mobilenet_v2_x0_5_fpn", steps=1200, lr=1e-3, log_every=50, check_every=400
    ),
    "maskrcnn": Recipe(
        network="maskrcnn_mobilenet_v2_x0_5_fpn", steps=1500, batch_size=8, lr=1e-3, log_every=50, check_every=500
    ),
    "yolov2": Recipe(network="yolov2_x0_25", options=_YOLO, steps=2200, log_every=50, check_every=1100),
}
