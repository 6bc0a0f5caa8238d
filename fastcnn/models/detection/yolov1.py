"""YOLO: Redmon, Divvala, Girshick and Farhadi, You Only Look Once, CVPR 2016: a grid of cells under linear layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.models._plain import Conv, Pool
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register
from fastcnn.models.classification.vgg import ROWS as VGG_ROWS
from fastcnn.models.detection.yolo import SQUARE_448, YOLO, YOLORow
from fastcnn.models.detection.yolo_boxes import Truth, box_iou, first_of_each
from fastcnn.models.detection.yolo_layers import DarknetStack, Layers, scale_channels


@dataclass(frozen=True, kw_only=True)
class YOLOv1Row(YOLORow):
    """Figure 3 and section 2.

    Attributes:
        layers: the convolutions, leaky ReLUs after each, and max pools.
        hidden: widths of the linear layers before the last; only the last of them has a leaky ReLU and dropout.
        dropout: before the last layer; none where there are batch norms.
        boxes: that a cell predicts, B.
        batch_norm: after every convolution; then these have no biases.
        lambda_coord, lambda_noobj: weights in the loss, of boxes and of the confidence of those without an object.
    """

    layers: Layers
    hidden: tuple[int, ...] = (4096,)
    dropout: float = 0.5
    boxes: int = 2
    batch_norm: bool = False
    lambda_coord: float = 5.0
    lambda_noobj: float = 0.5
    letterbox: bool = False
    preprocess: Preprocess = SQUARE_448

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.layers or not all(isinstance(layer, Conv | Pool) for layer in self.layers):
            raise ValueError(f"layers must be Conv or Pool, one or more, got {self.layers!r}")
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden must be positive ints, one or more, got {self.hidden!r}")
        if not isinstance(self.boxes, int) or self.boxes < 1:
            raise ValueError(f"boxes must be a positive int, got {self.boxes!r}")


class YOLOv1(YOLO):
    """Keys: ``backbone.N`` and ``fc.N``. Features: ``conv1`` ... and ``pool1`` ...

    The grid has S = size / 64 cells to a side, 7 of 448 pixels. The raw output (N, S * S * (5 B + classes)) is, cell by
    cell, each box's x and y within the cell, the square roots of its width and height over the image's, and its
    confidence; then the probabilities of the classes. A detection's score is confidence times probability.

    In the loss, all squares (equation 3), an object's cell is the one its centre lies in, the first object of a cell
    counts, and that box of the cell is responsible that has the highest IoU with it, or if all have none the nearest.
    Its confidence goes to that IoU, every other's to 0. Cells without objects have no loss of boxes and classes.
    """

    head_names = ("fc",)
    size_is_fixed = True
    epochs = 135

    def __init__(self, row: YOLOv1Row, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        options = {"negative_slope": row.negative_slope, "width_mult": row.width_mult, **factory}
        stack = DarknetStack(row.in_channels, row.layers, path="backbone", batch_norm=row.batch_norm, **options)
        self.add_backbone(stack, stack.feature_chain)
        self.stride = stack.stride
        if self.size % stack.stride:
            raise ValueError(f"the input's size must be a multiple of {stack.stride}, got {self.size}")
        self.cells = self.size // stack.stride
        self.fc = nn.Sequential()
        inputs = stack.channels * self.cells**2
        for width in row.hidden:
            width = scale_channels(width, row.width_mult)
            self.fc.append(nn.Linear(inputs, width, **factory))
            inputs = width
        self.fc.append(nn.LeakyReLU(row.negative_slope, inplace=True))
        self.fc.append(nn.Dropout(0.0 if row.batch_norm else row.dropout))
        self.predictors = (f"fc.{len(self.fc)}",)
        self.fc.append(nn.Linear(inputs, self.predictor_outputs(row)[0], **factory))
        self.init_weights(self)

    def predictor_outputs(self, row: YOLORow) -> tuple[int, ...]:
        return (self.cells**2 * (5 * self._v1.boxes + row.num_classes),)

    def head_outputs(self, batch: Tensor) -> tuple[Tensor, ...]:
        self.check_batch(batch)
        return (self.fc(self.forward_features(batch).flatten(1)),)

    def _split(self, outputs: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Raw boxes (N, P, B, 4), the same as corners in pixels, confidence (N, P, B), classes (N, P, C); P = S * S."""
        (raw,) = outputs
        raw = raw.to(torch.promote_types(raw.dtype, torch.float32)).unflatten(1, (self.cells**2, -1))
        count, classes = self._v1.boxes, self.num_classes
        predicted = raw[..., : 5 * count].unflatten(-1, (count, 5))
        boxes = predicted[..., :4]
        centre = (boxes[..., :2] + self._corners(raw)[:, None]) * self.stride
        half = boxes[..., 2:].square() * (self.size / 2)
        return boxes, torch.cat([centre - half, centre + half], -1), predicted[..., 4], raw[..., -classes:]

    def _corners(self, like: Tensor) -> Tensor:
        """Column and row of every cell, (P, 2)."""
        side = torch.arange(self.cells, device=like.device, dtype=like.dtype)
        return torch.cartesian_prod(side, side).flip(1)

    def decode(self, outputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        _, corners, confidence, classes = self._split(outputs)
        return corners.flatten(1, 2), (confidence[..., None] * classes[:, :, None]).flatten(1, 2)

    def loss(self, outputs: Sequence[Tensor], truth: Truth) -> dict[str, Tensor]:
        raw, corners, confidence, classes = self._split(outputs)
        cell, truth = self.assign(truth)
        of_cell = (truth.image, cell)
        with torch.no_grad():
            iou = box_iou(corners[of_cell], truth.boxes[:, None])
            apart = (corners[of_cell] - truth.boxes[:, None]).square().sum(-1)
            best = torch.where(iou.amax(1) > 0, iou.argmax(1), apart.argmin(1))
            iou = iou.gather(1, best[:, None])[:, 0]
        responsible = (*of_cell, best)
        without = torch.ones_like(confidence).index_put(responsible, confidence.new_zeros(()))
        centre, size = (truth.boxes[:, :2] + truth.boxes[:, 2:]) / 2, truth.boxes[:, 2:] - truth.boxes[:, :2]
        wanted = torch.cat([centre / self.stride - self._corners(raw)[cell], (size / self.size).sqrt()], -1)
        one_hot = nn.functional.one_hot(truth.labels, self.num_classes)
        row, images = self._v1, len(confidence)
        objectness = (confidence[responsible] - iou).square().sum()
        return {
            "loss_box_reg": row.lambda_coord * (raw[responsible] - wanted).square().sum() / images,
            "loss_objectness": (objectness + row.lambda_noobj * (without * confidence).square().sum()) / images,
            "loss_classifier": (classes[of_cell] - one_hot).square().sum() / images,
        }

    def assign(self, truth: Truth) -> tuple[Tensor, Truth]:
        """The cell (T,) of each object, row by row, and the objects: of several in a cell only the first."""
        centre = (truth.boxes[:, :2] + truth.boxes[:, 2:]) / 2
        column, row = (centre / self.stride).long().clamp(0, self.cells - 1).unbind(1)
        cell = row * self.cells + column
        first = first_of_each(truth.image * self.cells**2 + cell)
        return cell[first], truth.take(first)

    @property
    def _v1(self) -> YOLOv1Row:
        assert isinstance(self.row, YOLOv1Row)
        return self.row


def _pairs(count: int, narrow: int, wide: int) -> Layers:
    """A 1x1 convolution that reduces and a 3x3 one, so many times."""
    return (Conv(narrow, 1), Conv(wide)) * count


# The first 20 convolutions learn ImageNet's classes, the last four only the detections.
PRETRAINED: Layers = (
    *(Conv(64, 7, 2), Pool()),
    *(Conv(192), Pool()),
    *(*_pairs(1, 128, 256), *_pairs(1, 256, 512), Pool()),
    *(*_pairs(4, 256, 512), *_pairs(1, 512, 1024), Pool()),
    *_pairs(2, 512, 1024),
)
ADDED: Layers = (Conv(1024), Conv(1024, 3, 2), Conv(1024), Conv(1024))
_FAST = tuple(layer for width in (16, 32, 64, 128, 256, 512) for layer in (Conv(width), Pool())) + (Conv(1024),) * 3
_VGG16 = tuple(layer for layer in VGG_ROWS["vgg16"].layers if isinstance(layer, Conv | Pool))
PAPER = "Redmon et al., You Only Look Once, CVPR 2016"

register(
    {
        "yolov1": YOLOv1Row(layers=PRETRAINED + ADDED, source=f"{PAPER}, figure 3"),
        "fast_yolov1": YOLOv1Row(
            layers=_FAST,
            hidden=(256, 4096),
            source=f"{PAPER}, section 2.1: nine convolutions; their widths and the linear layers are Darknet's",
        ),
        "yolov1_vgg16": YOLOv1Row(
            layers=_VGG16 + ADDED,
            source=f"{PAPER}, section 4.1: VGG-16's 13 convolutions in the place of the 20 that are pretrained",
        ),
    },
    YOLOv1,
)
