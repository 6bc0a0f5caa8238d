"""Fast R-CNN: Girshick, ICCV 2015. Regions come from elsewhere, as by Selective Search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastcnn.models._backbones import create_classifier
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register
from fastcnn.models.detection.backbones import Backbone, init_normal
from fastcnn.models.detection.detector import Detector, DetectorRow, Losses, square
from fastcnn.models.detection.inputs import check_proposals
from fastcnn.models.detection.postprocess import Detections
from fastcnn.models.detection.roi_heads import FastRCNNPredictor, RegionRules, RoIHeads
from fastcnn.models.detection.single_map import SingleMapPool, region_head
from fastcnn.models.detection.transform import Size, Target, resize_boxes

_600, SAMPLES_64 = square(600), RegionRules(samples=64)


@dataclass(frozen=True, kw_only=True)
class FastRCNNRow(DetectorRow):
    """A Fast R-CNN.

    Attributes:
        feature: of the backbone, the map that regions are pooled from.
        pooled: bins at each side of a region, or levels of a spatial pyramid over it.
        regions: rules of training: 64 regions of an image, 128 of a batch of two, section 2.3.
        counted: regions of an image that counts are for.
    """

    preprocess: Preprocess = _600
    feature: str
    pooled: int | tuple[int, ...]
    min_size: int | tuple[int, ...] = 600
    max_size: int = 1000
    size_divisible: int = 1
    nms_threshold: float = 0.3
    regions: RegionRules = SAMPLES_64
    counted: int = 2000


class ProposalDetector(Detector):
    """``model(images, targets=None, proposals=...)``: as every detector, and with boxes (P, 4) for each image to look
    at, in its pixels. A family implements :meth:`detect`.

    Raises a ValueError for proposals that are missing, not one (P, 4) for each image, or not finite.
    """

    def forward(  # type: ignore[override]
        self,
        images: Sequence[Tensor] | Tensor,
        targets: Sequence[Target] | None = None,
        *,
        proposals: Sequence[Tensor],
    ) -> Losses | Detections:
        batch, sizes, resized, originals = self.prepare(images, targets)
        check_proposals(proposals, len(originals))
        return self.detect(batch, resized_boxes(proposals, batch, originals, sizes), sizes, resized, originals)

    def detect(
        self,
        batch: Tensor,
        boxes: list[Tensor],
        sizes: list[Size],
        resized: list[Target] | None,
        originals: list[Size],
    ) -> Losses | Detections:
        """What :meth:`prepare` gives, with boxes in the batch's pixels, to losses or detections."""
        raise NotImplementedError(f"{type(self).__name__} has no detect")


def resized_boxes(
    boxes: Sequence[Tensor], batch: Sequence[Tensor] | Tensor, originals: Sequence[Size], sizes: Sequence[Size]
) -> list[Tensor]:
    """Boxes (P, 4) of each original image in pixels of the batch, and as its pixels are stored."""
    return [resize_boxes(box.to(batch[0]), *each) for box, *each in zip(boxes, originals, sizes, strict=True)]


class FastRCNN(ProposalDetector):
    """Losses: ``loss_classifier`` and ``loss_box_reg``."""

    class_paths = ("roi_heads.box_predictor",)
    classifier_path = "roi_heads.box_predictor.cls_score"

    def __init__(self, row: FastRCNNRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        net = create_classifier(row, **factory)
        head, width = region_head(net, "classifier")
        self.backbone = Backbone(net.keep_features(row.feature), False)
        predictor = FastRCNNPredictor(width, row.num_classes, **factory)
        init_normal(predictor.cls_score, 0.01)
        init_normal(predictor.bbox_pred, 0.001)
        pool = SingleMapPool(row.pooled, self.backbone.strides[0])
        self.roi_heads = RoIHeads(pool, head, predictor, row.regions)

    def detect(
        self,
        batch: Tensor,
        boxes: list[Tensor],
        sizes: list[Size],
        resized: list[Target] | None,
        originals: list[Size],
    ) -> Losses | Detections:
        maps = self.backbone(batch)
        if resized is not None:
            return self.roi_heads.losses(maps, boxes, sizes, resized, self.generator)
        found = self.roi_heads.detections(maps, boxes, sizes, **self.thresholds)
        return self.transform.restore(found, sizes, originals)

    def forward_layers(self, input: Tensor) -> dict[str, Tensor]:
        """A batch (N, C, H, W) through every layer, with the row's ``counted`` regions of each image."""
        boxes = [input.new_zeros(self.row.counted, 4)] * len(input)
        logits, codes = self.roi_heads.predict(
            self.backbone(input), boxes, [(input.size(2), input.size(3))] * len(input)
        )
        return {"cls_logits": logits, "bbox_regression": codes}


_PAPER = "Girshick, ICCV 2015, with {}; regions are given, counts are for 2000"

ROWS = {
    "fastrcnn_vgg16": FastRCNNRow(backbone="vgg16", feature="conv5_3", pooled=7, source=_PAPER.format("VGG-16")),
    "fastrcnn_caffenet": FastRCNNRow(
        backbone="alexnet", feature="conv5", pooled=6, source=_PAPER.format("AlexNet, the paper's model S")
    ),
}

register(ROWS, FastRCNN)
