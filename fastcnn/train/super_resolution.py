"""Super-resolution: images made small, differences of pixels, PSNR against bicubic interpolation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from fastcnn.data import Images
from fastcnn.data import transforms as change
from fastcnn.metrics import psnr
from fastcnn.models import ConvNet
from fastcnn.models.restoration.images import bicubic, rgb_to_ycbcr
from fastcnn.models.restoration.vdsr import VDSR
from fastcnn.train.loading import Kept
from fastcnn.train.processes import Processes
from fastcnn.train.recipes import Recipe
from fastcnn.train.task import Augmentations, Figure, Item, Task, Transform, batches, square

_FLIP = change.RandomHorizontalFlip()
LOSSES = {"l1": F.l1_loss, "l2": F.mse_loss}


class SuperResolution(Task):
    """Images of any size are learnt from in squares of ``recipe.size``, at random places unless ``augment`` is "none";
    tests are on whole images, cut off to a multiple of the network's scale.

    The small image is the large one by antialiased bicubic interpolation, rounded to whole 255ths as in a file.
    """

    figure = Figure("gain", "gain over bicubic, dB")
    others = (Figure("psnr", "PSNR, dB"),)
    layouts = ("scenes", "folder")
    crops = True
    augmentations: ClassVar[Augmentations] = {
        "none": (),
        "flip": (_FLIP,),
        "turn": (_FLIP, change.RandomQuarterTurn()),
    }

    def __init__(self, recipe: Recipe, net: ConvNet, processes: Processes) -> None:
        super().__init__(recipe, net, processes)
        self.scale: int = net.row.scale  # type: ignore[attr-defined]
        # VDSR corrects an image that is large already.
        self.enlarged, self.luma = isinstance(net, VDSR), net.in_channels == 1
        if recipe.size % self.scale:
            raise ValueError(f"size must be a multiple of the scale {self.scale}, got {recipe.size}")

    def open(self, held_out: bool) -> tuple[Dataset[Item], tuple[str, ...]]:
        recipe = self.recipe
        if recipe.data == "scenes":
            data: Dataset[Item] = Kept(self.scenes(held_out, transforms=lambda image, _: (image, None)))
        else:
            data = Images(Path(recipe.root) / self.part(held_out))
        return Pairs(data, self.scale) if held_out else data, ()

    def options(self, classes: Sequence[str]) -> dict[str, Any]:
        return {}

    def transforms(self, net: ConvNet) -> tuple[Transform, ...]:
        return (square(self.recipe), *super().transforms(net), lambda image, _: (shrink(image, self.scale), image))

    def losses(self, model: nn.Module, images: Tensor, targets: Tensor, device: torch.device) -> dict[str, Tensor]:
        images, targets = images.to(device), targets.to(device)
        images = bicubic(images, self.scale) if self.enlarged else images
        if self.luma:
            images, targets = (rgb_to_ycbcr(each)[:, :1] for each in (images, targets))
        return {"loss": LOSSES[self.recipe.loss](model(images).float(), targets)}

    @staticmethod
    def evaluate(
        net: ConvNet, data: Dataset[Item], *, batch_size: int, device: Any, processes: Processes
    ) -> dict[str, Any]:
        """``psnr`` and ``bicubic_psnr``, of luma without ``scale`` pixels at each border, in dB, means over images; and
        ``gain``, their difference."""
        scale: int = net.row.scale  # type: ignore[attr-defined]
        found: list[list[float]] = []
        for batch in batches(data, batch_size, processes):
            for _, (small, large) in batch:
                small, large = small.to(device), large.to(device)
                results = [net.upscale(small), bicubic(small, scale).clamp(0, 1)]  # type: ignore[operator]
                found.append([float(psnr(each, large, border=scale, luminance=True)) for each in results])
        ours, others = torch.tensor(processes.gather(found), dtype=torch.float64).mean(0).tolist()
        return {"psnr": ours, "bicubic_psnr": others, "gain": ours - others}


class Pairs(Dataset[Item]):
    """Small images and the large ones they are made of, for tests."""

    def __init__(self, data: Dataset[Item], scale: int) -> None:
        self.data, self.scale = data, scale

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Item:
        image, _ = self.data[index]
        height, width = (side - side % self.scale for side in image.shape[1:])
        image = image[:, :height, :width]
        return shrink(image, self.scale), image


def shrink(image: Tensor, scale: int) -> Tensor:
    """(3, H, W) to (3, H / scale, W / scale), in 255ths."""
    return (bicubic(image, 1 / scale).clamp(0, 1) * 255).round() / 255
