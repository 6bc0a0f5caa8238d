"""Torchvision's FCN: a ResNet of stride 8 under two convolutions.

After Long et al., Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, which has VGG-16 and skips: see
:mod:`fastcnn.models.segmentation.fcn_vgg`.
"""

from __future__ import annotations

from typing import Any

import torch

from fastcnn.models._registry import register
from fastcnn.models.segmentation.segmenter import Segmenter, SegmenterRow, fcn_head


class FCN(Segmenter):
    """Keys are torchvision's."""

    classifier_path = "classifier.4"
    class_paths = (classifier_path,)

    def __init__(self, row: SegmenterRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.add_backbone(**factory)
        self.classifier = fcn_head(self.channels_of(row.features[-1]), row.num_classes, **factory)
        self.add_aux_classifier(**factory)


def _row(backbone: str) -> SegmenterRow:
    return SegmenterRow(
        backbone=backbone,
        features=("layer4",),
        output_stride=8,
        aux_feature="layer3",
        source=f"torchvision's, after Long et al., CVPR 2015: {backbone} of stride 8, no skips",
    )


ROWS = {f"fcn_{backbone}": _row(backbone) for backbone in ("resnet50", "resnet101")}

register(ROWS, FCN)
