"""Classifiers: labels, cross-entropy, top-1 and top-5 error."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from fastcnn.data import SHAPES, ImageFolder, RandomResizedCrop
from fastcnn.data import transforms as change
from fastcnn.data.images import fit_channels
from fastcnn.metrics import TopK
from fastcnn.models import ConvNet
from fastcnn.train.loading import Kept
from fastcnn.train.losses import classification_loss
from fastcnn.train.processes import Processes
from fastcnn.train.task import Augmentations, Figure, Item, Task, Transform, batches, merged, normalize

_FLIP = change.RandomHorizontalFlip()
RADIUS = (0.25, 0.45)  # Of the one shape in a scene that is to be classified.


class Classification(Task):
    """Labels are from 0. An image goes through the row's ``preprocess``, as in use, after augmentation.

    Scenes are of one shape each, which is the class.
    """

    figure = Figure("top1_error", "top-1 error", rises=False)
    others = (Figure("top5_error", "top-5 error", rises=False),)
    layouts = ("scenes", "folder")
    augmentations: ClassVar[Augmentations] = {
        "none": (),
        "flip": (_FLIP,),
        "crop": (_FLIP,),
        "distort": (change.RandomPhotometricDistort(), _FLIP),
    }

    def open(self, held_out: bool) -> tuple[Dataset[Item], tuple[str, ...]]:
        recipe = self.recipe
        if recipe.data == "scenes":
            return Kept(self.scenes(held_out, objects=(1, 1), radius=RADIUS, transforms=_first_label)), tuple(SHAPES)
        data = ImageFolder(Path(recipe.root) / self.part(held_out))
        if held_out and data.classes != (learnt := ImageFolder(Path(recipe.root) / self.part(False)).classes):
            missing = sorted(set(data.classes) ^ set(learnt))
            raise ValueError(f"train and held_out must have the same classes, only one has {', '.join(missing)}")
        return data, data.classes

    def transforms(self, net: ConvNet) -> tuple[Transform, ...]:
        if self.recipe.augment != "crop":
            return (*super().transforms(net), lambda image, label: (prepare(net, image), label))
        part = RandomResizedCrop(net.preprocess.input_size)
        return (part, *super().transforms(net), lambda image, label: (normalize(net, image), label))

    def losses(self, model: nn.Module, images: Tensor, targets: Tensor, device: torch.device) -> dict[str, Tensor]:
        outputs = model(images.to(device))
        smoothing, weight = self.recipe.label_smoothing, self.recipe.auxiliary_weight
        return {"loss": classification_loss(outputs, targets.to(device), smoothing, weight)}

    @staticmethod
    def evaluate(
        net: ConvNet, data: Dataset[Item], *, batch_size: int, device: Any, processes: Processes
    ) -> dict[str, Any]:
        """``top1_error`` and ``top5_error``: of images, the share whose label is not among the best scores."""
        metrics = TopK(sorted({1, min(5, net.num_classes)}))
        for batch in batches(data, batch_size, processes):
            images = torch.stack([prepare(net, image) for _, (image, _) in batch])
            logits: Any = net(images.to(device))
            labels = torch.tensor([label for _, (_, label) in batch], device=logits.device)
            metrics.update(logits, labels)
        return merged(metrics, processes).compute()


def prepare(net: ConvNet, image: Tensor) -> Tensor:
    """An image as the network takes it: (C, input_size, input_size)."""
    return net.preprocess(fit_channels(image, net.in_channels))[0]


def _first_label(image: Tensor, target: Any) -> tuple[Tensor, int]:
    return image, int(target["labels"][0]) - 1
