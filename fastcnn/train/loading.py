"""Images and targets of a recipe: which images a step takes, and how they are changed, from step and seed alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from fastcnn.data import SHAPES, CocoDetection, Scenes, VOCDetection, collate
from fastcnn.data import transforms as change
from fastcnn.data.targets import Target
from fastcnn.train.recipes import Recipe

Item = tuple[Tensor, Target]
Place = tuple[int, int]  # Which time the image is seen, and its index.

_FLIP = (change.RandomHorizontalFlip(),)
_DISTORT = (change.RandomPhotometricDistort(), *_FLIP)
AUGMENT: dict[str, tuple[Callable[[Tensor, Target], Item], ...]] = {
    "none": (),
    "flip": _FLIP,
    "distort": _DISTORT,
    "ssd": (_DISTORT[0], change.RandomZoomOut(), change.RandomIoUCrop(), *_FLIP),
}
HELD_OUT_SEED = 1_000_003  # Between the seeds of scenes to learn from and of those to be tested on.


class Kept(Dataset[Item]):
    """A data set drawn once: images as bytes in memory."""

    def __init__(self, data: Dataset[Item], count: int) -> None:
        self.items = [(self._bytes(image), target) for image, target in (data[i] for i in range(count))]

    @staticmethod
    def _bytes(image: Tensor) -> Tensor:
        return (image * 255).round().to(torch.uint8)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Item:
        image, target = self.items[index]
        return image.float() / 255, dict(target)


class Augmented(Dataset[Item]):
    """Items by :data:`Place`, each changed by random numbers of its own: the same in any process, after any stop."""

    def __init__(self, data: Dataset[Item], augment: str, seed: int) -> None:
        self.data, self.transform, self.seed = data, change.Compose(AUGMENT[augment]), seed

    def __getitem__(self, place: Place) -> Item:  # type: ignore[override]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(self.seed, *place))
            return self.transform(*self.data[place[1]])


class Batches(Sampler[list[Place]]):
    """The places of each step from ``start`` on, of one of ``world`` processes: every epoch is a random order of all
    images, and one runs into the next."""

    def __init__(self, images: int, batch_size: int, steps: range, seed: int, rank: int = 0, world: int = 1) -> None:
        if batch_size % world:
            raise ValueError(f"batch_size must be a multiple of the {world} processes, got {batch_size}")
        if not images:
            raise ValueError("there is no image to learn from")
        self.images, self.batch_size, self.steps, self.seed = images, batch_size, steps, seed
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[Place]]:
        epoch, order = -1, torch.zeros(0)
        for step in self.steps:
            batch = []
            for place in range(step * self.batch_size, (step + 1) * self.batch_size):
                if place // self.images != epoch:
                    epoch = place // self.images
                    order = torch.randperm(self.images, generator=torch.Generator().manual_seed(mix(self.seed, epoch)))
                batch.append((epoch, int(order[place % self.images])))
            yield batch[self.rank :: self.world]


def mix(*numbers: int) -> int:
    """A seed that differs where one of the numbers does, but for chance."""
    mixed = 0
    for number in numbers:
        # A step of a linear congruential generator by Knuth's MMIX, and its high bits folded in.
        mixed = ((mixed ^ number) * 6364136223846793005 + 1442695040888963407) % 2**64
        mixed ^= mixed >> 29
    return mixed % 2**63


def open_data(recipe: Recipe, held_out: bool, *, masks: bool = False) -> tuple[Dataset[Item], tuple[str, ...]]:
    """The images that a recipe learns from, or those held out, and the names of the classes; labels are from 1.

    Objects that VOC calls difficult and COCO's crowds are left out of what is learnt, and count neither way in a test.

    Raises:
        ValueError, FileNotFoundError, ImportError: what the data set raises.
    """
    part = recipe.held_out if held_out else recipe.train
    if recipe.data == "scenes":
        if not part.isdecimal():
            raise ValueError(f"train and held_out must be numbers of scenes, got {part!r}")
        seed = recipe.seed + HELD_OUT_SEED if held_out else recipe.seed
        return Kept(Scenes(int(part), recipe.size, seed), int(part)), tuple(SHAPES)
    if recipe.data == "voc":
        if masks:
            raise ValueError("VOC's folders give no masks, which this network learns from")
        voc = VOCDetection(recipe.root, part, difficult=held_out)
        return voc, voc.classes
    file, _, folder = part.partition(":")
    root = Path(recipe.root)
    coco = CocoDetection(root / folder, root / file, masks=masks, crowd=held_out)
    return coco, coco.classes


def training_loader(
    data: Dataset[Item], recipe: Recipe, steps: range, rank: int = 0, world: int = 1
) -> DataLoader[Item]:
    """Batches for these steps: lists of images and of targets."""
    batches = Batches(len(data), recipe.batch_size, steps, recipe.seed, rank, world)  # type: ignore[arg-type]
    augmented = Augmented(data, recipe.augment, recipe.seed)
    return DataLoader(augmented, batch_sampler=batches, num_workers=recipe.workers, collate_fn=collate)  # type: ignore[arg-type]


def to_device(images: Sequence[Tensor], targets: Sequence[Target], device: Any, first: int) -> tuple[list[Any], ...]:
    """A batch where the network is, with labels from ``first``."""
    moved = [{key: value.to(device) for key, value in target.items()} for target in targets]
    for target in moved:
        target["labels"] = target["labels"] + (first - 1)
    return [image.to(device) for image in images], moved
