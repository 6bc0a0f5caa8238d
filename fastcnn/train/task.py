"""What the training loop leaves to the kind of network: its data, its losses, how good it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from fastcnn.data.folders import IGNORED
from fastcnn.models import ConvNet
from fastcnn.train.processes import Processes
from fastcnn.train.recipes import Recipe

Metric = TypeVar("Metric", bound=Any)
Item = tuple[Tensor, Any]
Transform = Callable[[Tensor, Any], Item]
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


class Task(ABC):
    """One kind of network: the value of its row's ``task``.

    Attributes:
        figure: the main one; ``others`` are said beside it.
        layouts: those of :attr:`Recipe.data` that it has.
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
    augmentations: ClassVar[Mapping[str, tuple[Transform, ...]]]

    def __init__(self, recipe: Recipe, net: ConvNet, processes: Processes) -> None:
        self.recipe, self.row, self.processes = recipe, net.row, processes
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

    def scenes(self, held_out: bool) -> tuple[int, int]:
        """How many scenes a recipe asks for, and their seed.

        Raises:
            ValueError: no number.
        """
        part = self.part(held_out)
        if not part.isdecimal():
            raise ValueError(f"train and held_out must be numbers of scenes, got {part!r}")
        return int(part), self.recipe.seed + HELD_OUT_SEED * held_out

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


def fit_channels(images: Tensor, channels: int) -> Tensor:
    """RGB images (..., 3, H, W) as a network of so many input channels takes them: grey is BT.601's luma.

    Raises:
        ValueError: another number than 1 or 3.
    """
    if channels == 3:
        return images
    if channels != 1:
        raise ValueError(f"images have 3 channels or 1, this network takes {channels}")
    return (images * images.new_tensor((0.299, 0.587, 0.114)).reshape(3, 1, 1)).sum(-3, keepdim=True)


def flip(image: Tensor, target: Any) -> Item:
    """Mirrors an image, and a map (..., H, W) if that is its target, one time in two."""
    if torch.rand(()).item() < 0.5:
        return image, target
    return image.flip(-1), target.flip(-1) if isinstance(target, Tensor) and target.dim() > 1 else target


class Crop:
    """A square of an image and of its class map, if that is its target, at a random place or the middle one. Where the
    image is smaller, it is black around it, and the map ignored.

    Args:
        size: its side in pixels.
    """

    def __init__(self, size: int, random: bool = True) -> None:
        self.size, self.random = size, random

    def __call__(self, image: Tensor, target: Any) -> Item:
        missing = [max(self.size - side, 0) for side in reversed(image.shape[-2:])]
        around = [part for less in missing for part in (less // 2, less - less // 2)]
        image = F.pad(image, around)
        spare = [side - self.size for side in image.shape[-2:]]
        top, left = (int(torch.randint(less + 1, ())) if self.random else less // 2 for less in spare)
        rows, columns = slice(top, top + self.size), slice(left, left + self.size)
        if isinstance(target, Tensor):
            target = F.pad(target, around, value=IGNORED)[rows, columns]
        return image[:, rows, columns], target
