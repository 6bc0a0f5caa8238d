"""The contract of every detector: torchvision's interface over checks, one transform and one batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from fastcnn.models._backbones import BackboneRow, replace_class_layers
from fastcnn.models._net import ConvNet
from fastcnn.models._preprocess import IMAGENET, Preprocess
from fastcnn.models.detection.inputs import check_images, check_targets
from fastcnn.models.detection.postprocess import Detections
from fastcnn.models.detection.transform import DetectionTransform, Size, Target

DetectorNet = TypeVar("DetectorNet", bound="Detector")
Losses = dict[str, Tensor]


def square(side: int, mean: tuple[float, ...] = IMAGENET.mean, std: tuple[float, ...] = IMAGENET.std) -> Preprocess:
    """Preprocessing of a detector: the normalisation, and the side of the square that its counts are for."""
    return Preprocess(side, crop_pct=1.0, mean=mean, std=std)


IMAGENET_800 = square(800)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectorRow(BackboneRow):
    """What every detector's row has.

    Attributes:
        num_classes: with the background, which is class 0, as torchvision counts them.
        preprocess: gives mean and deviation of images; and the side of the square that counts are for.
        min_size, max_size: see :class:`DetectionTransform`.
        size_divisible: of the sides of a batch.
        score_threshold: detections have a score above this.
        nms_threshold: an IoU above this suppresses the lower score of a class.
        max_detections: of an image.
    """

    task: str = "detection"
    num_classes: int = 91
    preprocess: Preprocess = IMAGENET_800
    min_size: int | tuple[int, ...] = 800
    max_size: int = 1333
    size_divisible: int = 32
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_detections: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        smallest = min(self.min_size) if isinstance(self.min_size, tuple) else self.min_size
        if not 1 <= smallest <= self.max_size:
            raise ValueError(f"sizes must be 1 <= min_size <= max_size, got {self.min_size} and {self.max_size}")
        for field in ("size_divisible", "max_detections"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        for field in ("score_threshold", "nms_threshold"):
            if not 0 <= getattr(self, field) <= 1:
                raise ValueError(f"{field} must be between 0 and 1, got {getattr(self, field)}")


class Detector(ConvNet):
    """A network from images to boxes. A family builds its layers and implements :meth:`losses`, :meth:`detections` and
    :meth:`forward_layers`.

    Attributes:
        row: a :class:`DetectorRow`.
        transform: of images and targets.
        generator: what training draws samples from; None is PyTorch's own, which ``torch.manual_seed`` sets.
        class_paths: the layers whose outputs depend on the number of classes.
        has_background: whether class 0 is the background, which no box of a target can have.
        has_masks: whether targets need masks.
        landmarks: so many points of every box targets need, and detections have.
    """

    row: Any
    feature_chain = ()
    head_names = ()
    class_paths: tuple[str, ...]
    has_background = True
    has_masks = False
    landmarks = 0
    fixed_size: Size | None = None

    def __init__(self, row: DetectorRow) -> None:
        super().__init__(row)
        self.generator: torch.Generator | None = None
        self.transform = DetectionTransform(
            row.min_size,
            row.max_size,
            row.preprocess.mean,
            row.preprocess.std,
            row.size_divisible,
            self.fixed_size,
        )

    def forward(  # type: ignore[override]
        self, images: Sequence[Tensor] | Tensor, targets: Sequence[Target] | None = None
    ) -> Losses | Detections:
        """Losses in training mode, detections in eval mode: torchvision's interface.

        Args:
            images: (C, H, W) floating pixels in [0, 1], of any sizes; or a batch (N, C, H, W).
            targets: for each image ``boxes`` (G, 4), floating corners (x1, y1, x2, y2) in its pixels, and int64
                ``labels`` (G); for masks also ``masks`` (G, H, W), for landmarks ``landmarks`` (G, P, 2), points (x, y)
                or NaN where there is none. G may be 0. Eval mode does not look at them.

        Returns:
            In training mode a dict of scalar losses. In eval mode for every image ``boxes`` (D, 4) in its pixels, int64
            ``labels`` (D) and ``scores`` (D) in descending order, and maybe ``masks`` (D, 1, H, W) of probabilities
            and ``landmarks`` (D, P, 2).
            Eval mode is deterministic; training draws samples from ``generator``.

        Raises:
            TypeError: images that are not floating tensors, or targets of the wrong type.
            ValueError: no image, one of another shape, no targets in training mode, or boxes that are NaN, infinite,
                without area or outside their image, labels without a class, or anything of another shape.
        """
        batch, sizes, resized, originals = self.prepare(images, targets)
        if resized is not None:
            return self.losses(batch, sizes, resized)
        return self.transform.restore(self.detections(batch, sizes), sizes, originals)

    def prepare(
        self, images: Sequence[Tensor] | Tensor, targets: Sequence[Target] | None
    ) -> tuple[Tensor, list[Size], list[Target] | None, list[Size]]:
        """The batch, the sizes of the images in it, targets in its pixels (None in eval mode), and the original sizes.

        Raises what :meth:`forward` says.
        """
        originals = check_images(images, self.in_channels)
        if not self.training:
            return *self.transform(list(images)), originals
        if targets is None:
            raise ValueError(f"{type(self).__name__} needs targets in training mode")
        self.check_targets(targets, originals)
        return *self.transform(list(images), targets, training=True, generator=self.generator), originals

    def check_targets(self, targets: Sequence[Target], sizes: Sequence[Size]) -> None:
        """Of images of these sizes. Raises what :meth:`forward` says."""
        classes = range(int(self.has_background), self.num_classes)
        check_targets(targets, sizes, classes, self.has_masks, self.landmarks)

    @property
    def thresholds(self) -> dict[str, Any]:
        """Of the row, as the functions of :mod:`fastcnn.models.detection.postprocess` call them."""
        row = self.row
        limits = {"iou_threshold": row.nms_threshold, "max_detections": row.max_detections}
        return {"score_threshold": row.score_threshold, **limits}

    def losses(self, batch: Tensor, sizes: Sequence[Size], targets: list[Target]) -> Losses:
        """Of a transformed batch (N, C, H, W) of images of these sizes."""
        raise NotImplementedError(f"{type(self).__name__} has no losses")

    def detections(self, batch: Tensor, sizes: Sequence[Size]) -> Detections:
        """Of a transformed batch, in its pixels."""
        raise NotImplementedError(f"{type(self).__name__} has no detections")

    def keep_features(self: DetectorNet, names: Sequence[str] | bool = True) -> DetectorNet:
        """Raises ValueError: a detector's features are its backbone's."""
        raise ValueError(f"{type(self).__name__} has no features_only: create {self.row.backbone!r} with it instead")

    def replace_head(self: DetectorNet, num_classes: int) -> DetectorNet:
        """Gives the layers of classes ``num_classes`` fresh outputs, initialised as when built; returns the network.

        For fine-tuning: load published weights first, then replace the head.

        Raises:
            ValueError: ``num_classes`` below 1.
        """
        return replace_class_layers(self, self.class_paths, num_classes)
