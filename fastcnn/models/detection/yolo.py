"""What the YOLO networks have in common: images and targets in, losses or detections out."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from fastcnn import ops
from fastcnn.models._net import Feature, Row
from fastcnn.models._preprocess import Preprocess
from fastcnn.models.classification.darknet import Darknet
from fastcnn.models.detection.yolo_boxes import Truth, place_images, place_targets

Y = TypeVar("Y", bound="YOLO")
BATCHES_OF_A_SIZE = 10


# Darknet takes pixels in [0, 1] as they are.
SQUARE_416 = Preprocess(416, crop_pct=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
SQUARE_448, SQUARE_544 = (dataclasses.replace(SQUARE_416, input_size=size) for size in (448, 544))


@dataclass(frozen=True, kw_only=True)
class YOLORow(Row):
    """What the tables of all versions have.

    Attributes:
        num_classes: without a background: labels are 0 to ``num_classes - 1``.
        width_mult: factor of every layer's channels, for small machines: multiples of 8; not of the outputs.
        negative_slope: of the leaky ReLUs.
        hi_res_classifier: pretrain at 448 pixels too; see :attr:`YOLO.recipe`.
        letterbox: images keep the ratio of their sides in the square input; otherwise they are stretched.
        score_thresh: detections have a score above it.
        nms_thresh: of two detections of a class with an IoU above it, the one of the lower score goes.
        topk_candidates: what suppression gets of an image at most: pairs of a box and a class, by score.
        detections_per_img: what it gives at most.
    """

    task: str = "detection"
    num_classes: int = 20
    width_mult: float = 1.0
    negative_slope: float = 0.1
    hi_res_classifier: bool = False
    letterbox: bool = True
    score_thresh: float = 0.005
    nms_thresh: float = 0.45
    topk_candidates: int = 1000
    detections_per_img: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.width_mult > 0:
            raise ValueError(f"width_mult must be positive, got {self.width_mult}")
        for field in ("negative_slope", "score_thresh", "nms_thresh"):
            if not 0 <= getattr(self, field) <= 1:
                raise ValueError(f"{field} must be between 0 and 1, got {getattr(self, field)}")
        for field in ("topk_candidates", "detections_per_img"):
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{field} must be a positive int, got {value!r}")


class Phase(NamedTuple):
    """A part of the papers' training: what is learnt, at which sides of the input, and for how many epochs."""

    task: str
    sizes: tuple[int, ...]
    epochs: int


class YOLO(Darknet):
    """A detector with one pass over a square image.

    ``model(images)`` in eval mode, ``model(images, targets)`` in training mode: the interface of torchvision's
    detectors, see :meth:`forward`. :meth:`head_outputs` and :meth:`detect` take a batch, have shapes that depend on
    shapes alone, and compile as one graph. With ``features_only`` the network is its backbone, from a batch to maps.

    A version's class builds its layers in ``__init__``, sets ``stride``, ``predictors``, ``head_names`` and
    ``feature_chain``, and implements the methods that follow :meth:`head_outputs`.

    Attributes:
        size: of the square input, but not where training draws it; may be set to any multiple of ``stride``.
        batches_seen: in training; the size that is drawn for ten of them depends on it alone. Not in the state dict.
        stride: input pixels per cell of the coarsest grid.
        predictors: paths of the layers whose outputs are the predictions.
    """

    stride: int
    predictors: tuple[str, ...]
    classifier_path = ""  # Its predictors give boxes too.
    size_is_fixed = False
    takes_tags = False
    epochs = 160  # Of the detector's training.

    def __init__(self, row: YOLORow) -> None:
        super().__init__(row)
        self.size, self.batches_seen = self.preprocess.input_size, 0

    def add_backbone(self, backbone: nn.Module, chain: Sequence[Feature], path: str = "") -> None:
        """Adds the child ``backbone``; ``path`` comes before the paths in ``chain``."""
        self.backbone = backbone
        self.feature_chain = tuple(f._replace(modules=tuple(path + module for module in f.modules)) for f in chain)

    def forward(  # type: ignore[override]
        self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]] | None = None
    ) -> Any:
        """Detects, or in training mode returns losses. Deterministic in eval mode.

        Args:
            images: (3, H, W) each, floating, in [0, 1], of any sizes; a batch is a sequence of its images.
            targets: in training mode, for each image a dict of ``boxes`` (L, 4), corners in its pixels with x1 < x2
                and y1 < y2, and ``labels`` (L), integers from 0; L may be 0. What lies beyond the edges is cut off.

        Returns:
            In training mode ``loss_box_reg``, ``loss_objectness`` and ``loss_classifier``, scalars per image of the
            batch. In eval mode, for each image a dict of ``boxes`` (D, 4), corners in its pixels and within them,
            ``scores`` (D), descending, and ``labels`` (D), int64.

        Raises:
            ValueError: training mode without targets, another shape, a label that is no class, or a box that is not
                finite, has no area or lies outside its image.
            TypeError: no list, or other dtypes.
        """
        if self.feature_names:
            return super().forward(images)  # type: ignore[arg-type]
        if self.training and targets is None:
            raise ValueError(f"{type(self).__name__} needs targets in training mode")
        size = self._training_size() if self.training else self.size
        options: dict[str, Any] = {"channels": self.in_channels, "letterbox": self._yolo_row.letterbox}
        batch, placement = place_images(images, size, **options, like=next(self.parameters()))
        if self.training:
            assert targets is not None
            truth = place_targets(targets, placement, self.num_classes, tags=self.takes_tags)
            return self.loss(self.head_outputs(batch), truth)
        boxes, scores, labels, counts = self.detect(batch)
        found = {"boxes": placement.back(boxes), "scores": scores, "labels": labels}
        return [{key: each[i, :n] for key, each in found.items()} for i, n in enumerate(counts.tolist())]

    def detect(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A batch (N, 3, S, S) to what is found in each image, D = ``detections_per_img`` rows of it.

        Returns boxes (N, D, 4), corners in pixels of the batch; scores (N, D), descending; labels (N, D), int64; and
        how many they are, (N). The rows after those are zeros.
        """
        row = self._yolo_row
        boxes, scores, labels = self.candidates(self.head_outputs(batch))
        keep, counts = ops.batched_nms_padded(
            boxes, scores, labels, row.nms_thresh, row.detections_per_img, row.score_thresh
        )
        kept, index = keep >= 0, keep.clamp(min=0)
        boxes = boxes.gather(1, index[..., None].expand(-1, -1, 4)) * kept[..., None]
        return boxes, scores.gather(1, index) * kept, labels.gather(1, index) * kept, counts

    def candidates(self, outputs: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The ``topk_candidates`` pairs of a box and a class with the highest scores, K or all if they are fewer.

        Returns boxes (N, K, 4), scores (N, K) and labels (N, K).
        """
        boxes, scores = self.decode(outputs)
        classes = scores.shape[-1]
        scores, pair = self.top(scores.flatten(1))
        return boxes.gather(1, (pair // classes)[..., None].expand(-1, -1, 4)), scores, pair % classes

    def top(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """The highest scores (N, K) of (N, M), descending, and where they are."""
        return scores.topk(min(self._yolo_row.topk_candidates, scores.shape[1]))

    def forward_layers(self, input: Tensor) -> tuple[Tensor, ...]:
        return self.head_outputs(input)

    @abstractmethod
    def head_outputs(self, batch: Tensor) -> tuple[Tensor, ...]:
        """A batch (N, 3, S, S) to the raw predictions, a tensor for each of ``predictors``."""

    @abstractmethod
    def decode(self, outputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Raw predictions to boxes (N, P, 4), corners in pixels of the batch, and scores (N, P, num_classes)."""

    @abstractmethod
    def loss(self, outputs: Sequence[Tensor], truth: Truth) -> dict[str, Tensor]:
        """Raw predictions and what they should be to the losses of :meth:`forward`."""

    @abstractmethod
    def predictor_outputs(self, row: YOLORow) -> tuple[int, ...]:
        """How many outputs each of ``predictors`` has in a network of such a row."""

    @property
    def recipe(self) -> tuple[Phase, ...]:
        """The papers' training: of the backbone as a classifier on ImageNet, then of the detector.

        ``load_weights(detector.backbone, file)`` takes the classifier's weights over. v3's paper gives no epochs; they
        are v2's.
        """
        finer = (Phase("classification", (448,), 10),) if self._yolo_row.hi_res_classifier else ()
        detector = Phase("detection", self.training_sizes(), self.epochs)
        return (Phase("classification", (224,), 160), *finer, detector)

    def training_sizes(self) -> tuple[int, ...]:
        """The sides of the input that training mode draws from, one for ten batches."""
        return (self.size,)

    def replace_head(self: Y, num_classes: int, **fields: Any) -> Y:
        """Gives the predictors fresh weights for ``num_classes``; returns the network. See ConvNet's.

        ``fields`` of the row change with it.
        """
        if self.features_only:
            raise ValueError(f"this {type(self).__name__} was built with features_only and has no head")
        row = dataclasses.replace(self._yolo_row, num_classes=num_classes, **fields)
        for path, outputs in zip(self.predictors, self.predictor_outputs(row), strict=True):
            self.renew(path, outputs)
        self.row, self.classes = row, ()
        return self

    def check_batch(self, batch: Tensor) -> None:
        """Raises a ValueError for a batch of another shape than the network takes."""
        sides, channels = tuple(batch.shape[2:]), self.in_channels
        fits = batch.dim() == 4 and batch.shape[1] == channels and not any(side % self.stride for side in sides)
        if not fits or (self.size_is_fixed and sides != (self.size,) * 2):
            sizes = f"H and W of {self.size}" if self.size_is_fixed else f"H and W multiples of {self.stride}"
            name = type(self).__name__
            raise ValueError(f"{name} takes (N, {channels}, H, W) with {sizes}, got {tuple(batch.shape)}")

    @property
    def _yolo_row(self) -> YOLORow:
        assert isinstance(self.row, YOLORow)
        return self.row

    def _training_size(self) -> int:
        sizes = self.training_sizes()
        if len(sizes) == 1:
            return sizes[0]
        # From the count alone, so that all processes draw the same, and a run that goes on what it would have drawn.
        draws = torch.Generator().manual_seed(self.batches_seen // BATCHES_OF_A_SIZE)
        self.batches_seen += 1
        return sizes[int(torch.randint(len(sizes), (), generator=draws))]
