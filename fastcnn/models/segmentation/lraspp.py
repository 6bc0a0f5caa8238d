"""LR-ASPP: Howard et al., Searching for MobileNetV3, ICCV 2019, section 6.4 and figure 10, as torchvision has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.models._registry import register
from fastcnn.models.segmentation.segmenter import Segmenter, SegmenterRow, resize
from fastcnn.nn.blocks import ConvNormAct, ConvSequence, conv2d


@dataclass(frozen=True, kw_only=True)
class LRASPPRow(SegmenterRow):
    """
    Attributes:
        hidden: channels of the coarse map before it is scored.
    """

    hidden: int = 128


class LRASPPHead(nn.Module):
    """Scores a fine map (N, fine, h, w) and a coarse one, gated by its mean: sums (N, num_classes, h, w)."""

    def __init__(self, fine: int, coarse: int, num_classes: int, hidden: int, **factory: Any) -> None:
        super().__init__()
        self.cbr = ConvNormAct(coarse, hidden, 1, **factory)
        # The paper pools windows of 49x49 pixels with strides; torchvision, the whole map.
        pool = nn.AdaptiveAvgPool2d(1)
        self.scale = ConvSequence(pool, conv2d(coarse, hidden, 1, bias=False, **factory), nn.Sigmoid())
        self.low_classifier = nn.Conv2d(fine, num_classes, 1, **factory)
        self.high_classifier = nn.Conv2d(hidden, num_classes, 1, **factory)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        gated = self.cbr(high) * self.scale(high)
        return self.low_classifier(low) + self.high_classifier(resize(gated, low.shape[-2:]))


class LRASPP(Segmenter):
    """Keys are torchvision's."""

    classifier_path = "classifier.low_classifier"
    class_paths = (classifier_path, "classifier.high_classifier")

    def __init__(self, row: LRASPPRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.add_backbone(**factory)
        fine, coarse = (self.channels_of(name) for name in row.features)
        self.classifier = LRASPPHead(fine, coarse, row.num_classes, row.hidden, **factory)


ROWS = {
    "lraspp_mobilenet_v3_large": LRASPPRow(
        backbone="mobilenet_v3_large",
        features=("features.4", "features.16"),
        output_stride=16,
        dilate_strided=True,
        source="Howard et al., ICCV 2019, section 6.4, as torchvision: the whole map is pooled",
    ),
}

register(ROWS, LRASPP)
