"""Images and targets of a recipe: which images a step takes, and how they are changed, from step and seed alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from fastcnn.data import Scenes
from fastcnn.data import transforms as change
from fastcnn.data.geometry import is_map
from fastcnn.train.task import Item, Task, Transform

Place = tuple[int, int]  # Which time the image is seen, and its index.


class Kept(Dataset[Item]):
    """A data set drawn once: images, and maps of classes, as bytes in memory."""

    def __init__(self, data: Scenes) -> None:
        self.items = [self._bytes(*data[index]) for index in range(len(data))]

    @staticmethod
    def _bytes(image: Tensor, target: Any) -> Item:
        return (image * 255).round().to(torch.uint8), target.to(torch.uint8) if is_map(target) else target

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Item:
        image, target = self.items[index]
        if is_map(target):
            target = target.long()
        return image.float() / 255, dict(target) if isinstance(target, dict) else target


class Augmented(Dataset[Item]):
    """Items by :data:`Place`, each changed by random numbers of its own: the same in any process, after any stop."""

    def __init__(self, data: Dataset[Item], transforms: Sequence[Transform], seed: int) -> None:
        self.data, self.transform, self.seed = data, change.Compose(transforms), seed

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


def training_loader(data: Dataset[Item], task: Task, transforms: Sequence[Transform], steps: range) -> DataLoader[Any]:
    """Batches for these steps, as the task collates them: this process's share of each."""
    recipe, processes = task.recipe, task.processes
    images: int = len(data)  # type: ignore[arg-type]
    places = Batches(images, recipe.batch_size, steps, recipe.seed, processes.rank, processes.world)
    augmented = Augmented(data, transforms, recipe.seed)
    return DataLoader(augmented, batch_sampler=places, num_workers=recipe.workers, collate_fn=task.collate)  # type: ignore[arg-type]
