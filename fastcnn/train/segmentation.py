"""Semantic segmentation: class maps, cross-entropy of pixels, intersection over union."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from fastcnn.data import SHAPES, SegmentationFolder, VOCSegmentation
from fastcnn.data import transforms as change
from fastcnn.data.geometry import IGNORED
from fastcnn.metrics import SegmentationMetrics
from fastcnn.models import ConvNet
from fastcnn.train.loading import Kept
from fastcnn.train.processes import Processes
from fastcnn.train.task import Augmentations, Figure, Item, Task, Transform, batches, merged, normalize, square

_FLIP = change.RandomHorizontalFlip()


class Segmentation(Task):
    """Images are learnt from in crops of ``recipe.size``, at random places unless ``augment`` is "none", and padded
    where they are smaller; the padding is ignored. Tests are on whole images, one after another where sizes differ.

    Scenes have the class of the shape in front at each pixel. A network whose map is smaller than its input, as the
    U-Net of valid convolutions, is judged on the middle of the image.
    """

    figure = Figure("mean_iu", "mean IU")
    others = (Figure("pixel_accuracy", "pixel accuracy"),)
    layouts = ("scenes", "folder", "voc")
    crops = True
    augmentations: ClassVar[Augmentations] = {
        "none": (),
        "flip": (_FLIP,),
        "turn": (_FLIP, change.RandomQuarterTurn()),
        "distort": (change.RandomPhotometricDistort(), _FLIP),
    }

    def open(self, held_out: bool) -> tuple[Dataset[Item], tuple[str, ...]]:
        recipe = self.recipe
        if recipe.data == "scenes":
            return Kept(self.scenes(held_out, semantic=True)), ("__background__", *SHAPES)
        if recipe.data == "voc":
            voc = VOCSegmentation(recipe.root, self.part(held_out))
            return voc, voc.classes
        learnt = SegmentationFolder(Path(recipe.root) / self.part(False))
        if not held_out:
            return learnt, learnt.classes
        return SegmentationFolder(Path(recipe.root) / self.part(True), learnt.classes), learnt.classes

    def transforms(self, net: ConvNet) -> tuple[Transform, ...]:
        return (square(self.recipe), *super().transforms(net), lambda image, target: (normalize(net, image), target))

    def losses(self, model: nn.Module, images: Tensor, targets: Tensor, device: torch.device) -> dict[str, Tensor]:
        outputs, targets = model(images.to(device)), targets.to(device)
        logits = (outputs,) if isinstance(outputs, Tensor) else outputs
        losses = [self._loss(each, targets) for each in logits]
        if len(losses) == 1:
            return {"loss": losses[0]}
        return {"loss_main": losses[0], "loss_auxiliary": self.recipe.auxiliary_weight * torch.stack(losses[1:]).sum()}

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean over the pixels of all processes that count, so that it does not depend on who has which."""
        targets = middle(targets, logits)
        weight = logits.new_ones(logits.size(1), dtype=torch.float32)
        weight[0] = self.recipe.background
        options: Any = {"ignore_index": IGNORED, "label_smoothing": self.recipe.label_smoothing, "reduction": "sum"}
        total = F.cross_entropy(logits.float(), targets, weight, **options)
        counted = (targets != IGNORED).sum() - (1 - self.recipe.background) * (targets == 0).sum()
        return total / self.processes.mean(counted).clamp(min=1)

    @staticmethod
    def evaluate(
        net: ConvNet, data: Dataset[Item], *, batch_size: int, device: Any, processes: Processes
    ) -> dict[str, Any]:
        """The figures of :class:`fastcnn.metrics.SegmentationMetrics`."""
        metrics = SegmentationMetrics(net.num_classes)
        for batch in batches(data, batch_size, processes):
            pairs = [(normalize(net, image), target) for _, (image, target) in batch]
            alike = len({image.shape for image, _ in pairs}) == 1
            for group in [pairs] if alike else [[pair] for pair in pairs]:
                images, targets = Segmentation.collate(group)
                logits: Any = net(images.to(device))
                metrics.update(logits.argmax(1).cpu(), middle(targets, logits))
        return merged(metrics, processes).compute()


def middle(targets: Tensor, logits: Tensor) -> Tensor:
    """The part of maps (N, H, W) that logits (N, num_classes, h, w) are of: the middle.

    Raises:
        ValueError: logits that are larger, or off the middle by half a pixel.
    """
    spare = [whole - part for whole, part in zip(targets.shape[1:], logits.shape[2:], strict=True)]
    if min(spare) < 0 or any(less % 2 for less in spare):
        raise ValueError(f"logits are {tuple(logits.shape[2:])}, which is no middle of {tuple(targets.shape[1:])}")
    top, left = (less // 2 for less in spare)
    return targets[:, top : top + logits.size(2), left : left + logits.size(3)]
