"""What ``fastcnn train`` learns by: rows of numbers, and how a command line changes them."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastcnn.models import find_entry
from fastcnn.models._metadata import decode_options

# What a setting may be; a kind of network may have fewer data and augmentations.
CHOICES = {
    "data": ("scenes", "folder", "voc", "coco"),
    "optimizer": ("adamw", "sgd", "rmsprop"),
    "schedule": ("cosine", "step", "plateau"),
    "augment": ("none", "flip", "turn", "crop", "distort", "ssd"),
    "loss": ("l1", "l2"),
}
AT_LEAST_ONE = ("batch_size", "steps", "log_every", "size")
NOT_NEGATIVE = (
    *(
        "lr",
        "momentum",
        "warmup",
        "weight_decay",
        "clip",
        "adjustable_clip",
        "label_smoothing",
        "auxiliary_weight",
        "background",
    ),
    *("patience", "seed", "workers", "check_every", "scene", "objects"),
)
SEEDS = 2**62  # With what data sets add to it, it fits 63 bits.
# Fields that a run may be resumed with other values of: none of them changes what is learnt.
FREE = ("workers", "log_every", "check_every", "root")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training.

    Attributes:
        network: one of :func:`fastcnn.models.list_models`, of the task "detection", "classification", "segmentation" or
            "super_resolution".
        options: overrides of its row, as the JSON of :mod:`fastcnn.models._metadata`: ``{"width_mult": 0.5}``.
        weights: a file or tag to begin from; its classes may be others.
        freeze: what is left as it is, by :func:`fastcnn.models.freeze`: "all" but the head, or the name of the feature
            up to which.
        data: "scenes" (:class:`fastcnn.data.Scenes`, drawn once and kept in memory), or "folder", "voc" or "coco", a
            folder of that layout; see the classes of :mod:`fastcnn.data` and docs/training.md.
        root: the folder.
        train, held_out: of scenes how many pictures; of "folder" the subfolder, for which a number stands for "train"
            and "val"; of VOC the image set; of COCO the file of annotations, and its folder of images if that is not
            ``root``, as ``annotations.json:images``.
        size: side, in pixels, of the scenes; of crops that segmentation learns from; of high resolution for
            super-resolution. Classifiers take ``preprocess.input_size`` of their row, whatever size the images have.
        scene: side of the scenes, where segmentation and super-resolution learn from crops of less; 0 is ``size``.
        objects: the most shapes of a scene that is learnt from, where denser ones teach more than those that are held
            out, which have 1 to 6; 0 is 6.
        batch_size: images of a step, over all processes.
        steps: of the optimiser.
        optimizer: "adamw"; "sgd" with ``momentum``; or "rmsprop" with ``momentum``, of
            :class:`fastcnn.train.RMSprop`.
        lr: the highest rate, which is reached after ``warmup`` steps.
        schedule: from there on, "cosine" takes the rate to nothing; "step" to a tenth at each of ``milestones``;
            "plateau" to a tenth after more than ``patience`` checks in a row whose figure on held-out images is no
            better, at most three times, as :func:`fastcnn.train.reduce_on_plateau`.
        milestones: shares of ``steps``, with commas between.
        weight_decay: of weights that are matrices or more; not of norms and biases.
        clip: the gradients' norm is cut down to this; 0 leaves them.
        adjustable_clip: each gradient is cut down to this over the rate (Kim et al., VDSR, 2016, section 3.2); 0 leaves
            them.
        label_smoothing, auxiliary_weight: of :func:`fastcnn.train.classification_loss`; the weight is also that of
            segmentation's auxiliary heads.
        background: how much a pixel of class 0 counts in segmentation's loss, where others count 1: of scenes three
            quarters are background (Ronneberger et al., U-Net, 2015, equation 2, balances classes too).
        loss: of super-resolution, "l1" or "l2", means over pixels.
        augment: "none"; "flip"; "turn" (of segmentation and super-resolution: flips and quarter turns); "crop" (of
            classifiers: a random part of the image, and flips); "distort" (flips, and colours distorted); or "ssd" (of
            detectors: those, zooming out, and crops).
        seed: of the first weights, the order of images, augmentation and sampling.
        workers: processes that load and augment images; 0 is the training process itself.
        log_every: steps between two lines of the log.
        check_every: steps between two checkpoints with a test on held-out images; 0: only at the end.
    """

    network: str
    options: str = "{}"
    weights: str = ""
    freeze: str = ""
    data: str = "scenes"
    root: str = ""
    train: str = "4000"
    held_out: str = "500"
    size: int = 160
    scene: int = 0
    objects: int = 0
    batch_size: int = 16
    steps: int = 2000
    optimizer: str = "adamw"
    momentum: float = 0.9
    lr: float = 2e-3
    warmup: int = 100
    schedule: str = "cosine"
    milestones: str = "0.5,0.75"
    patience: int = 1
    weight_decay: float = 0.01
    clip: float = 10.0
    adjustable_clip: float = 0.0
    label_smoothing: float = 0.0
    auxiliary_weight: float = 0.3
    background: float = 1.0
    loss: str = "l1"
    augment: str = "flip"
    seed: int = 0
    workers: int = 0
    log_every: int = 20
    check_every: int = 500

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in NOT_NEGATIVE:
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if 0 < self.scene < self.size:
            raise ValueError(f"scene must be 0 or at least size, {self.size}, got {self.scene}")
        if self.label_smoothing > 1:
            raise ValueError(f"label_smoothing must be from 0 to 1, got {self.label_smoothing}")
        if self.schedule == "plateau" and not self.check_every:
            raise ValueError("schedule=plateau needs check_every=STEPS: it looks at the figure on held-out images")
        if self.data != "scenes" and not self.root:
            raise ValueError(f"data={self.data} needs root=FOLDER")
        if self.data != "scenes" and (self.scene or self.objects):
            raise ValueError(f"scene and objects are of data=scenes, got data={self.data}")
        self.drops()
        if self.seed >= SEEDS:
            raise ValueError(f"seed must be below 2**62, got {self.seed}")
        self.overrides()

    def drops(self) -> tuple[float, ...]:
        """``milestones`` as numbers.

        Raises:
            ValueError: something else, or out of order.
        """
        try:
            shares = tuple(float(share) for share in self.milestones.split(","))
        except ValueError:
            shares = (0.0,)
        if not all(0 < share < 1 for share in shares) or list(shares) != sorted(set(shares)):
            raise ValueError(f"milestones must be rising shares between 0 and 1, as 0.5,0.75, got {self.milestones!r}")
        return shares

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
