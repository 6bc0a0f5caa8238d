"""YOLO9000: Redmon and Farhadi, CVPR 2017, section 4: YOLOv2 over a tree of classes, trained jointly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register
from fastcnn.models.detection import priors
from fastcnn.models.detection.wordtree import WordTree, generate_parents
from fastcnn.models.detection.yolo import SQUARE_544
from fastcnn.models.detection.yolo_boxes import Truth
from fastcnn.models.detection.yolov2 import YOLOv2, YOLOv2Row


@dataclass(frozen=True, kw_only=True)
class YOLO9000Row(YOLOv2Row):
    """Section 4.

    Attributes:
        parents: of the classes, as :class:`WordTree` takes them; None for a generated tree of ``num_classes``.
        tree_thresh: a class is named as far down the tree as its probability is above it.
        assumed_iou: that the box of an image without boxes is taken to have with its object, at least.
    """

    parents: tuple[int, ...] | None = None
    tree_thresh: float = 0.5
    assumed_iou: float = 0.3
    num_classes: int = 9418
    head: tuple[int, ...] = ()
    passthrough: bool = False
    preprocess: Preprocess = SQUARE_544

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.parents is not None and len(self.parents) != self.num_classes:
            raise ValueError(f"parents must be one for each of {self.num_classes} classes, got {len(self.parents)}")
        if not self.convolutional:
            raise ValueError("YOLO9000 needs convolutional")
        for field in ("tree_thresh", "assumed_iou"):
            if not 0 <= getattr(self, field) <= 1:
                raise ValueError(f"{field} must be between 0 and 1, got {getattr(self, field)}")


class YOLO9000(YOLOv2):
    """A :class:`YOLOv2` whose classes are the nodes of ``tree``, a :class:`WordTree`.

    A box has one class: the node that :meth:`WordTree.predict` reaches; its score is objectness times the node's
    probability. A target without ``boxes`` and with one label says only what an image shows: then the box that is most
    probable to show it learns that class and, up to ``assumed_iou``, objectness; no box is told that it has no object.
    """

    default_priors = priors.YOLO9000
    takes_tags = True

    def __init__(self, row: YOLO9000Row, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row, device=device, dtype=dtype)
        self._set_tree(row, device)

    def _set_tree(self, row: YOLO9000Row, device: Any) -> None:
        self.tree = WordTree(row.parents or generate_parents(row.num_classes), device=device)

    def probabilities(self, raw: Tensor) -> Tensor:
        return self.tree.log_probabilities(raw).exp()

    def candidates(self, outputs: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        raw, grid = self.predictions(outputs)
        boxes = self.location.place(raw[..., :4], grid)
        labels, probability = self.tree.predict(raw[..., 5:], self._9000.tree_thresh)
        scores, index = self.top(raw[..., 4].sigmoid() * probability)
        return boxes.gather(1, index[..., None].expand(-1, -1, 4)), scores, labels.gather(1, index)

    def class_loss(self, raw: Tensor, labels: Tensor) -> Tensor:
        return self._9000.class_scale * self.tree.loss(raw, labels)

    def loss(self, outputs: Sequence[Tensor], truth: Truth) -> dict[str, Tensor]:
        losses = super().loss(outputs, truth)
        if not len(truth.tagged):
            return losses
        raw = self.predictions(outputs)[0]
        images, row = len(raw), self._9000
        raw = raw[truth.tagged]
        with torch.no_grad():
            tags = truth.tags[:, None].expand(raw.shape[:2])
            found = raw[..., 4].sigmoid() * self.tree.log_probability(raw[..., 5:], tags).exp()
        best = raw[torch.arange(len(raw), device=raw.device), found.argmax(1)]
        short = (row.assumed_iou - best[:, 4].sigmoid()).clamp(min=0)
        losses["loss_objectness"] = losses["loss_objectness"] + row.object_scale / 2 * short.square().sum() / images
        losses["loss_classifier"] = losses["loss_classifier"] + self.class_loss(best[:, 5:], truth.tags) / images
        return losses

    def replace_head(self, num_classes: int, **fields: Any) -> YOLO9000:
        """Also gives the network another tree: of ``parents``, or where they are not given the generated one."""
        super().replace_head(num_classes, **{"parents": None, **fields})
        self._set_tree(self._9000, self.predictor.weight.device)
        return self

    @property
    def _9000(self) -> YOLO9000Row:
        assert isinstance(self.row, YOLO9000Row)
        return self.row


register(
    {
        "yolo9000": YOLO9000Row(
            source="Redmon and Farhadi, YOLO9000, CVPR 2017, section 4; layers and priors are Darknet's, the tree is "
            "generated"
        )
    },
    YOLO9000,
)
