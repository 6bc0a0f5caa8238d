"""What SSD and its descendants share: Liu et al., SSD: Single Shot MultiBox Detector, ECCV 2016."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcnn.models._preprocess import Preprocess
from fastcnn.models.detection.anchors import DefaultBoxes
from fastcnn.models.detection.boxes import box_iou, clip_boxes
from fastcnn.models.detection.coders import BoxCoder
from fastcnn.models.detection.detector import Detector, DetectorRow, Losses
from fastcnn.models.detection.heads import DenseHead
from fastcnn.models.detection.matchers import SSDMatcher
from fastcnn.models.detection.postprocess import Detections, suppress_padded, unpad
from fastcnn.models.detection.samplers import hard_negatives
from fastcnn.models.detection.transform import Size, Target


@dataclass(frozen=True, kw_only=True)
class MultiBoxRow(DetectorRow):
    """A detector of one size of image and fixed boxes.

    Attributes:
        preprocess: its input size is that of every image.
        boxes: on each map.
        candidates: detections of a class that suppression looks at.
        negatives: for each positive in training.
    """

    preprocess: Preprocess
    boxes: DefaultBoxes
    size_divisible: int = 1
    score_threshold: float = 0.01
    nms_threshold: float = 0.45
    max_detections: int = 200
    candidates: int = 400
    negatives: float = 3.0

    def __post_init__(self) -> None:
        side = self.preprocess.input_size
        object.__setattr__(self, "min_size", side)
        object.__setattr__(self, "max_size", side)
        super().__post_init__()


class ScoringHead(nn.Module):
    """A layer for each map, ``module_list``: torchvision's keys."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.module_list = nn.ModuleList(layers)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [layer(map_) for layer, map_ in zip(self.module_list, maps, strict=True)]


class MultiBox(Detector):
    """A family builds ``backbone``, which gives the maps, and calls :meth:`add_head`.

    Losses: ``classification``, cross entropy of the matched boxes and the hardest negatives, and ``bbox_regression``,
    smooth L1 of the matched boxes; both over the number of matched boxes, equation 1.
    """

    backbone: nn.Module
    class_paths = ("head.classification_head",)
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    matcher = SSDMatcher()

    def __init__(self, row: MultiBoxRow) -> None:
        self.fixed_size = (row.preprocess.input_size,) * 2
        super().__init__(row)

    def add_head(self, channels: Sequence[int], layer: Callable[[int, int], nn.Module]) -> None:
        """``layer(in_channels, out_channels)`` predicts from a map; ``channels`` are those of the maps."""
        counts = self.row.boxes.per_position()
        self.outputs_per_class = counts[0]
        heads = (
            ScoringHead([layer(inputs, count * columns) for inputs, count in zip(channels, counts, strict=True)])
            for columns in (self.num_classes, 4)
        )
        self.head = DenseHead(*heads)

    def forward_layers(self, input: Tensor) -> dict[str, Tensor]:
        """A batch (N, C, H, W) to logits (N, A, classes) and codes (N, A, 4) of the default boxes."""
        _, logits, codes = self._heads(input)
        return {"cls_logits": logits, "bbox_regression": codes}

    def _heads(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps = self.backbone(batch)
        logits, codes = (torch.cat(each, 1) for each in self.head(maps, self.num_classes))
        return torch.cat(self.row.boxes((batch.size(2), batch.size(3)), maps)), logits, codes

    def losses(self, batch: Tensor, sizes: Sequence[Size], targets: list[Target]) -> Losses:
        anchors, logits, codes = self._heads(batch)
        classes = torch.zeros(logits.shape[:2], dtype=torch.int64, device=logits.device)
        regression = []
        for index, target in enumerate(targets):
            boxes = target["boxes"].to(anchors.dtype)
            matches = self.matcher(box_iou(boxes, anchors))
            found = (matches >= 0).nonzero()[:, 0]
            classes[index, found] = target["labels"][matches[found]]
            wanted = self.coder.encode(boxes[matches[found]], anchors[found])
            regression.append(F.smooth_l1_loss(codes[index, found].to(wanted.dtype), wanted, reduction="sum"))
        entropy = F.cross_entropy(logits.flatten(0, 1), classes.flatten(), reduction="none").view_as(classes)
        positive = classes > 0
        count = positive.sum().clamp(min=1)
        counted = positive | hard_negatives(entropy, positive, self.row.negatives)
        return {
            "bbox_regression": torch.stack(regression).sum() / count,
            "classification": entropy[counted].sum() / count,
        }

    def detections(self, batch: Tensor, sizes: Sequence[Size]) -> Detections:
        return unpad(*self.detect_padded(batch))

    def detect_padded(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A normalised batch (N, C, H, W) to detections of fixed shapes, for ``torch.compile(fullgraph=True)``.

        Returns:
            ``boxes`` (N, D, 4) in its pixels, ``scores`` and ``labels`` (N, D) with D the row's ``max_detections``,
            filled up with zeros, and the numbers (N) of detections.
        """
        anchors, logits, codes = self._heads(batch)
        limits = codes.new_tensor((batch.size(3), batch.size(2)) * 2)
        boxes = clip_boxes(self.coder.decode(codes, anchors), limits)
        return suppress_padded(boxes, logits.softmax(2), candidates=self.row.candidates, **self.thresholds)


def init_xavier(module: nn.Module) -> None:
    """Xavier's uniform weights of convolutions, and no biases, as the authors' code and torchvision."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
