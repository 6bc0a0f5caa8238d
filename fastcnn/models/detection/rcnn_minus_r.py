"""R-CNN minus R: Lenc and Vedaldi, BMVC 2015: the same regions in every image, clusters of a training set's boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastcnn.models._registry import register
from fastcnn.models.detection.detector import Losses
from fastcnn.models.detection.fast_rcnn import FastRCNN, FastRCNNRow
from fastcnn.models.detection.inputs import check_proposals
from fastcnn.models.detection.postprocess import Detections
from fastcnn.models.detection.transform import Target, resize_boxes


@dataclass(frozen=True, kw_only=True)
class RCNNMinusRRow(FastRCNNRow):
    """A Fast R-CNN with regions of its own, so that ``counted`` is how many these are."""

    counted: int = 3000


class RCNNMinusR(FastRCNN):
    """``model(images, targets=None)``, as every detector: the regions are those of :meth:`set_regions`.

    The SVMs of the paper's first form are left out, as its streamlined one leaves them; softmax and boxes are trained
    at once, as in Fast R-CNN.

    Attributes:
        regions: buffer (counted, 4), corners in shares of an image's sides; random ones in a fresh network.
    """

    regions: Tensor

    def __init__(self, row: RCNNMinusRRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row, device=device, dtype=dtype)
        drawn = torch.rand(row.counted, 2, 2, generator=torch.Generator().manual_seed(0)).sort(1).values.flatten(1)
        self.register_buffer("regions", drawn.to(device=device, dtype=dtype))

    @torch.no_grad()
    def set_regions(self, boxes: Tensor) -> None:
        """Takes those of :func:`fastcnn.models.detection.priors.kmeans_boxes`, (counted, 4).

        Raises:
            TypeError: boxes that are not floating.
            ValueError: another shape, or boxes that are not finite or without area.
        """
        check_proposals([boxes], 1)
        if boxes.shape != self.regions.shape:
            raise ValueError(f"regions must be {tuple(self.regions.shape)}, got {tuple(boxes.shape)}")
        self.regions.copy_(boxes)

    def forward(  # type: ignore[override]
        self, images: Sequence[Tensor] | Tensor, targets: Sequence[Target] | None = None
    ) -> Losses | Detections:
        batch, sizes, resized, originals = self.prepare(images, targets)
        boxes = [resize_boxes(self.regions, (1, 1), size) for size in sizes]
        return self.detect(batch, boxes, sizes, resized, originals)


ROWS = {
    "rcnn_minus_r_zf5": RCNNMinusRRow(
        backbone="zfnet_spp",
        feature="conv5",
        pooled=(6, 3, 2, 1),
        source="Lenc and Vedaldi, BMVC 2015: SPP-net's ZF-5 on 3000 regions, clusters of boxes, for every image",
    ),
}

register(ROWS, RCNNMinusR)
