"""Detectors: lists of images and of targets, losses of their own, average precision."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from fastcnn.data import SHAPES, CocoDetection, VOCDetection, collate
from fastcnn.data import transforms as change
from fastcnn.data.targets import Target
from fastcnn.metrics import CocoMetrics, VOCMetrics
from fastcnn.models import ConvNet
from fastcnn.models.detection.fast_rcnn import ProposalDetector
from fastcnn.train.loading import Kept
from fastcnn.train.processes import Processes
from fastcnn.train.recipes import Recipe
from fastcnn.train.task import Augmentations, Figure, Item, Task, batches

_FLIP = (change.RandomHorizontalFlip(),)
_DISTORT = (change.RandomPhotometricDistort(), *_FLIP)


class Detection(Task):
    """Labels of the data are from 1, whatever the network's own begin with.

    Objects that VOC calls difficult and COCO's crowds are left out of what is learnt, and count neither way in a test.
    """

    figure = Figure("mAP", "mAP@0.5")
    layouts = ("scenes", "voc", "coco")
    augmentations: ClassVar[Augmentations] = {
        "none": (),
        "flip": _FLIP,
        "distort": _DISTORT,
        "ssd": (_DISTORT[0], change.RandomZoomOut(), change.RandomIoUCrop(), *_FLIP),
    }
    collate = staticmethod(collate)

    def __init__(self, recipe: Recipe, net: ConvNet, processes: Processes) -> None:
        super().__init__(recipe, net, processes)
        if isinstance(net, ProposalDetector):
            raise ValueError(f"{recipe.network} learns from proposals, which fastcnn train does not make")
        self.masks, self.first = bool(getattr(net, "has_masks", False)), first_label(net)

    def open(self, held_out: bool) -> tuple[Dataset[Item], tuple[str, ...]]:
        recipe, part = self.recipe, self.part(held_out)
        if recipe.data == "scenes":
            return Kept(self.scenes(held_out)), tuple(SHAPES)
        if recipe.data == "voc":
            if self.masks:
                raise ValueError("VOC's folders give no masks, which this network learns from")
            voc = VOCDetection(recipe.root, part, difficult=held_out)
            return voc, voc.classes
        file, _, folder = part.partition(":")
        root = Path(recipe.root)
        coco = CocoDetection(root / folder, root / file, masks=self.masks, crowd=held_out)
        return coco, coco.classes

    def options(self, classes: Sequence[str]) -> dict[str, Any]:
        return {"num_classes": len(classes) + self.first}

    def labels(self, classes: Sequence[str]) -> tuple[str, ...]:
        return (*("__background__",) * self.first, *classes)

    def losses(
        self, model: nn.Module, images: Sequence[Tensor], targets: Sequence[Target], device: torch.device
    ) -> dict[str, Tensor]:
        moved = [{key: value.to(device) for key, value in target.items()} for target in targets]
        for target in moved:
            target["labels"] = target["labels"] + (self.first - 1)
        losses: dict[str, Tensor] = model([image.to(device) for image in images], moved)
        return losses

    @staticmethod
    def evaluate(
        net: ConvNet, data: Dataset[Item], *, batch_size: int, device: Any, processes: Processes
    ) -> dict[str, Any]:
        """``mAP``, VOC's at an IoU of 0.5 over all points of the curve, and ``AP``, by label from 1. With pycocotools
        also ``bbox``, COCO's figures, and ``segm`` where the network gives masks."""
        shift = 1 - first_label(net)
        found: list[tuple[int, dict[str, Tensor], Any]] = []
        for batch in batches(data, batch_size, processes):
            predicted: Any = net([image.to(device) for _, (image, _) in batch])  # type: ignore[arg-type]
            for (index, (_, target)), prediction in zip(batch, predicted, strict=True):
                prediction = {key: value.cpu() for key, value in prediction.items()}
                prediction["labels"] = prediction["labels"] + shift
                found.append((index, _packed(prediction), target))
        found = sorted(processes.gather(found), key=lambda each: each[0])
        predictions, wanted = [each[1] for each in found], [each[2] for each in found]
        voc = VOCMetrics()
        voc.update(predictions, wanted)
        figures = voc.compute()
        if importlib.util.find_spec("pycocotools") is not None:
            masks = bool(predictions) and "masks" in predictions[0]
            coco = CocoMetrics(("bbox", "segm") if masks else ("bbox",))
            coco.update(predictions, wanted)
            figures |= coco.compute()
        return figures


def first_label(net: nn.Module) -> int:
    """The label of the first class: 1 where class 0 is the background, else 0."""
    return int(getattr(net, "has_background", False))


def _packed(prediction: dict[str, Tensor]) -> dict[str, Tensor]:
    """Masks as they are judged: a pixel is in or out."""
    return prediction | {"masks": prediction["masks"] > 0.5} if "masks" in prediction else prediction
