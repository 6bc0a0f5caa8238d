"""What YOLO v2, YOLO9000 and v3 share: predictions from priors in every cell of one grid or more."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fastcnn.models.detection.priors import Priors
from fastcnn.models.detection.yolo import YOLO, YOLORow
from fastcnn.models.detection.yolo_boxes import Truth, box_iou, first_of_each, shape_iou

# Of a box over its prior; what untrained weights say must not become infinite.
_LARGEST = math.log(1000 / 16)


@dataclass(frozen=True, kw_only=True)
class AnchorRow(YOLORow):
    """What the tables of v2 and v3 have.

    Attributes:
        priors: width and height of each in pixels of the input; None for the row's published ones.
        ignore_iou: a box without an object that overlaps one by more than this is not told that it has none.
        multi_scale: training draws the input's side for every ten batches; see :meth:`AnchorYOLO.training_sizes`.
    """

    priors: Priors | None = None
    ignore_iou: float = 0.6
    multi_scale: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.priors is not None and not (
            self.priors and all(len(prior) == 2 and min(prior) > 0 for prior in self.priors)
        ):
            raise ValueError(f"priors must be pairs of positive numbers, one or more, got {self.priors!r}")
        if not 0 <= self.ignore_iou <= 1:
            raise ValueError(f"ignore_iou must be between 0 and 1, got {self.ignore_iou}")


class PriorGrid(NamedTuple):
    """Every prior of every cell: all scales one after another, in each by prior, row and column.

    Attributes:
        corner: (P, 2) upper left corner of the cell, in pixels of the batch.
        stride: (P, 1) side of the cell.
        size: (P, 2) width and height of the prior.
    """

    corner: Tensor
    stride: Tensor
    size: Tensor

    def take(self, index: Tensor) -> PriorGrid:
        return PriorGrid(*(each[index] for each in self))


class DirectLocation(NamedTuple):
    """Boxes whose centre cannot leave the cell: YOLO9000, CVPR 2017, section 2, "Direct location prediction".

    Raw x and y go through a sigmoid to a place in the cell; the logarithms of the sizes are over the prior's.
    """

    def place(self, raw: Tensor, grid: PriorGrid) -> Tensor:
        """Raw (..., P, 4) to corners in pixels."""
        return _corners(grid.corner + raw[..., :2].sigmoid() * grid.stride, raw, grid)

    def read(self, raw: Tensor) -> Tensor:
        """Raw x and y as :meth:`aim` wants them."""
        return raw.sigmoid()

    def aim(self, boxes: Tensor, grid: PriorGrid) -> tuple[Tensor, Tensor]:
        """What the x and y and the sizes of corners (P, 4) should be predicted as, (P, 2) each."""
        centre, size = _centre_size(boxes)
        return (centre - grid.corner) / grid.stride, (size / grid.size).log()


class OffsetLocation(DirectLocation):
    """Boxes as region proposal networks predict them: offsets of the prior's centre by its size, of any length."""

    def place(self, raw: Tensor, grid: PriorGrid) -> Tensor:
        return _corners(grid.corner + grid.stride / 2 + raw[..., :2] * grid.size, raw, grid)

    def read(self, raw: Tensor) -> Tensor:
        return raw

    def aim(self, boxes: Tensor, grid: PriorGrid) -> tuple[Tensor, Tensor]:
        centre, size = _centre_size(boxes)
        return (centre - grid.corner - grid.stride / 2) / grid.size, (size / grid.size).log()


def _corners(centre: Tensor, raw: Tensor, grid: PriorGrid) -> Tensor:
    half = grid.size * raw[..., 2:4].clamp(max=_LARGEST).exp() / 2
    return torch.cat([centre - half, centre + half], -1)


def _centre_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]


class AnchorYOLO(YOLO):
    """A network whose raw maps (N, A * (5 + classes), S, S) have, prior by prior, x, y, width, height, objectness and
    a number for each class.

    An object is assigned to the prior of the highest IoU with it, centres together, of all scales, in the cell that
    its centre lies in; of several objects on one prior the first counts.

    Attributes:
        priors: of each map, the finest grid last or alone.
        strides: input pixels per cell of each map.
        location: how boxes are predicted.
    """

    priors: tuple[Priors, ...]
    strides: tuple[int, ...]
    location: DirectLocation = DirectLocation()

    def predictor_outputs(self, row: YOLORow) -> tuple[int, ...]:
        return tuple(len(priors) * (5 + row.num_classes) for priors in self.priors)

    def training_sizes(self) -> tuple[int, ...]:
        """Multiples of the stride from 10/13 to 19/13 of the row's input: 320 to 608 around 416 (section 2)."""
        if not self._anchor_row.multi_scale:
            return (self.size,)
        size = self._anchor_row.preprocess.input_size
        least, most = (max(1, round(size * part / 13 / self.stride)) for part in (10, 19))
        return tuple(self.stride * count for count in range(least, most + 1))

    def predictions(self, outputs: Sequence[Tensor]) -> tuple[Tensor, PriorGrid]:
        """Raw maps to (N, P, 5 + classes), at least float32, and the priors they belong to."""
        rows, grids = [], []
        for raw, priors, stride in zip(outputs, self.priors, self.strides, strict=True):
            raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
            rows.append(raw.unflatten(1, (len(priors), -1)).movedim(2, -1).flatten(1, 3))
            height, width = raw.shape[2:]
            sides = [torch.arange(side, device=raw.device, dtype=raw.dtype) for side in (height, width)]
            corner = torch.stack(torch.meshgrid(*sides, indexing="ij")[::-1], -1).flatten(0, 1) * stride
            size = torch.tensor(priors, device=raw.device, dtype=raw.dtype)
            grids.append(
                PriorGrid(
                    corner.repeat(len(priors), 1),
                    corner.new_full((len(priors) * height * width, 1), stride),
                    size.repeat_interleave(height * width, 0),
                )
            )
        return torch.cat(rows, 1), PriorGrid(*(torch.cat(each) for each in zip(*grids, strict=True)))

    def decode(self, outputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        raw, grid = self.predictions(outputs)
        return self.location.place(raw[..., :4], grid), raw[..., 4:5].sigmoid() * self.probabilities(raw[..., 5:])

    def assign(self, outputs: Sequence[Tensor], truth: Truth) -> tuple[Tensor, Truth]:
        """The prior (T,) of each object, an index into the grid, and the objects: of several on one only the first."""
        device, (centre, size) = truth.boxes.device, _centre_size(truth.boxes)
        shapes = [raw.shape[2:] for raw in outputs]
        flat = [prior for priors in self.priors for prior in priors]
        best = shape_iou(size, torch.tensor(flat, device=device, dtype=size.dtype)).argmax(1)
        table: list[tuple[int, int, int, int]] = []
        first = 0
        for priors, (height, width), stride in zip(self.priors, shapes, self.strides, strict=True):
            for _ in priors:
                table.append((first, height, width, stride))
                first += height * width
        offset, rows, columns, side = torch.tensor(table, device=device)[best].unbind(1)
        column = (centre[:, 0] / side).long().clamp(min=0).minimum(columns - 1)
        row = (centre[:, 1] / side).long().clamp(min=0).minimum(rows - 1)
        prior = offset + row * columns + column
        kept = first_of_each(truth.image * first + prior)
        return prior[kept], truth.take(kept)

    def loss(self, outputs: Sequence[Tensor], truth: Truth) -> dict[str, Tensor]:
        raw, grid = self.predictions(outputs)
        with torch.no_grad():
            boxes = self.location.place(raw[..., :4], grid)
            without = truth.best_iou(boxes) <= self._anchor_row.ignore_iou
            without[truth.tagged] = False
        prior, truth = self.assign(outputs, truth)
        without[truth.image, prior] = False
        responsible, grid = raw[truth.image, prior], grid.take(prior)
        iou = box_iou(boxes[truth.image, prior], truth.boxes)
        side = outputs[0].shape[2:]
        area = _centre_size(truth.boxes)[1].prod(-1) / (side[0] * side[1] * self.strides[0] ** 2)
        losses = {
            "loss_box_reg": self.box_loss(responsible[:, :4], *self.location.aim(truth.boxes, grid), area),
            "loss_objectness": self.objectness_loss(responsible[:, 4], iou, raw[..., 4][without]),
            "loss_classifier": self.class_loss(responsible[:, 5:], truth.labels),
        }
        return {name: loss / len(raw) for name, loss in losses.items()}

    @abstractmethod
    def probabilities(self, raw: Tensor) -> Tensor:
        """Of the classes, given an object: (..., classes) of the same shape."""

    @abstractmethod
    def box_loss(self, raw: Tensor, place: Tensor, size: Tensor, area: Tensor) -> Tensor:
        """Sum over objects: raw (T, 4), what it should be, and the object's area over the input's (T,)."""

    @abstractmethod
    def objectness_loss(self, raw: Tensor, iou: Tensor, without: Tensor) -> Tensor:
        """Sum over the boxes with objects (T,), which have such an IoU with theirs, and over those without (M,)."""

    @abstractmethod
    def class_loss(self, raw: Tensor, labels: Tensor) -> Tensor:
        """Sum over objects: raw (T, classes), labels (T,)."""

    @property
    def _anchor_row(self) -> AnchorRow:
        assert isinstance(self.row, AnchorRow)
        return self.row
