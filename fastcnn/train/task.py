"""What the training loop leaves to the kind of network: its data, its losses, how good it is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from fastcnn.data import RandomCrop, Scenes, geometry
from fastcnn.data.images import fit_channels
from fastcnn.models import ConvNet
from fastcnn.train.processes import Processes
from fastcnn.train.recipes import Recipe

Metric = TypeVar("Metric", bound=Any)
Item = tuple[Tensor, Any]
Transform = Callable[[Tensor, Any], Item]
Augmentations = Mapping[str, tuple[Transform, ...]]
HELD_OUT_SEED = 1_000_003  # Between the seeds of scenes to learn from and of those to be tested on.


class Figure(NamedTuple):
    """What a kind of network is judged by.

    Attributes:
        key: of :meth:`Task.evaluate`'s dict.
        label: what people call it.
        rises: whether more is better.
    """

    key: str
    label: str
    rises: bool = True

    def error(self, metrics: Mapping[str, Any]) -> float:
        """A number above 0 that falls as the figure gets better."""
        return math.exp(-metrics[self.key]) if self.rises else float(metrics[self.key])


class Task(ABC):
    """One kind of network: the value of its row's ``task``.

    Attributes:
        figure: the main one; ``others`` are said beside it.
        layouts: those of :attr:`Recipe.data` that it has.
        crops: whether it learns from crops of images.
        augmentations: those of :attr:`Recipe.augment`, each of transforms of an image, float32 (3, H, W) in [0, 1], and
            its target.

    Args:
        recipe: what to do.
        net: the network, maybe on the meta device and of another number of classes.
        processes: see :class:`Processes`.

    Raises:
        ValueError: data, an augmentation or a network that this kind does not have.
    """

    figure: ClassVar[Figure]
    others: ClassVar[tuple[Figure, ...]] = ()
    layouts: ClassVar[tuple[str, ...]]
    crops: ClassVar[bool] = False
    augmentations: ClassVar[Augmentations]

    def __init__(self, recipe: Recipe, net: ConvNet, processes: Processes) -> None:
        self.recipe, self.row, self.processes = recipe, net.row, processes
        if net.dims != 2 or net.in_channels not in (1, 3):
            raise ValueError(f"{recipe.network} takes {net.input_layout}, not images of 1 or 3 channels")
        if recipe.scene and not self.crops:
            raise ValueError(f"{recipe.network} learns from whole scenes: scene must be 0, got {recipe.scene}")
        for name, has in (("data", self.layouts), ("augment", self.augmentations)):
            if getattr(recipe, name) not in has:
                kind = net.row.task.replace("_", " ")
                raise ValueError(f"{name} of {kind} must be one of {', '.join(has)}, got {getattr(recipe, name)!r}")

    @abstractmethod
    def open(self, held_out: bool) -> tuple[Dataset[Item], tuple[str, ...]]:
        """The images that the recipe learns from, or those held out, and the names of their classes.

        Raises:
            ValueError, FileNotFoundError, ImportError: what the data set raises.
        """

    def options(self, classes: Sequence[str]) -> dict[str, Any]:
        """Overrides of the network's row that the data ask for."""
        return {"num_classes": len(classes)}

    def labels(self, classes: Sequence[str]) -> tuple[str, ...]:
        """A name for each output of the network."""
        return tuple(classes)

    def transforms(self, net: ConvNet) -> tuple[Transform, ...]:
        """What an image to learn from goes through: augmentation, and what makes images of one size of them."""
        return self.augmentations[self.recipe.augment]

    @staticmethod
    def collate(batch: Sequence[Item]) -> tuple[Any, Any]:
        """A DataLoader's ``collate_fn``: images (N, C, H, W) and targets, stacked."""
        images, targets = zip(*batch, strict=True)
        return torch.stack(images), torch.stack([torch.as_tensor(target) for target in targets])

    @abstractmethod
    def losses(self, model: nn.Module, images: Any, targets: Any, device: torch.device) -> dict[str, Tensor]:
        """Each part of the loss of a batch; their sum is what is learnt by. ``model`` may be distributed."""

    @staticmethod
    @abstractmethod
    def evaluate(
        net: ConvNet, data: Dataset[Item], *, batch_size: int, device: Any, processes: Processes
    ) -> dict[str, Any]:
        """See :func:`fastcnn.train.evaluate`; the network is in eval mode, without gradients."""

    def line(self, metrics: Mapping[str, Any]) -> str:
        """The figures as the log says them."""
        shown = (figure for figure in (self.figure, *self.others) if figure.key in metrics)
        return "  ".join(f"{figure.label} {metrics[figure.key]:.4f}" for figure in shown)

    def scenes(self, held_out: bool, **options: Any) -> Scenes:
        """The scenes that a recipe asks for; ``options`` are those of the class.

        Raises:
            ValueError: no number of them, or of shapes where ``options`` say how many there are.
        """
        part = self.part(held_out)
        if not part.isdecimal():
            raise ValueError(f"train and held_out must be numbers of scenes, got {part!r}")
        if not int(part):
            raise ValueError("train and held_out must be at least one scene, got 0")
        most = self.recipe.objects
        if most and "objects" in options:
            raise ValueError(f"{self.recipe.network} learns from scenes of one shape: objects must be 0, got {most}")
        if most and not held_out:
            options["objects"] = (1, most)
        side, seed = self.recipe.scene or self.recipe.size, self.recipe.seed + HELD_OUT_SEED * held_out
        return Scenes(int(part), side, seed, **options)

    def part(self, held_out: bool) -> str:
        """What the recipe says of these images; of folders, a number stands for the usual name."""
        part = self.recipe.held_out if held_out else self.recipe.train
        if self.recipe.data == "folder" and part.isdecimal():
            return "val" if held_out else "train"
        return part


def batches(data: Dataset[Item], batch_size: int, processes: Processes) -> Iterator[list[tuple[int, Item]]]:
    """A process's share of a data set, with the indices."""
    mine = range(processes.rank, len(data), processes.world)  # type: ignore[arg-type]
    for start in range(0, len(mine), batch_size):
        yield [(index, data[index]) for index in mine[start : start + batch_size]]


def merged(metrics: Metric, processes: Processes) -> Metric:
    """What all processes' metrics have seen."""
    first, *rest = processes.gather([metrics])
    first.merge(*rest)
    return first


def normalize(net: ConvNet, image: Tensor) -> Tensor:
    """An image (3, H, W) as the network takes it, of its own size."""
    return net.preprocess.normalize(fit_channels(image, net.in_channels))


class MiddleCrop:
    """A square of ``size`` pixels in the middle of an image and its map; where the image is smaller, it is black at the
    right and below, and the map ignored."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: Tensor, target: Any) -> Item:
        right, bottom = (max(self.size - side, 0) for side in (image.size(2), image.size(1)))
        image, target = geometry.pad(image, target, (0, right, 0, bottom))
        top, left = ((side - self.size) // 2 for side in image.shape[1:])
        return geometry.crop(image, target, top, left, self.size, self.size)


def square(recipe: Recipe) -> Transform:
    """The crops that a recipe learns from: anywhere, or in the middle without augmentation."""
    return MiddleCrop(recipe.size) if recipe.augment == "none" else RandomCrop(recipe.size)
