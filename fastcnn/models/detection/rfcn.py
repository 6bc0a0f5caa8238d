"""R-FCN: Dai et al., R-FCN: Object Detection via Region-based Fully Convolutional Networks, NIPS 2016."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.models._backbones import create_body
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register
from fastcnn.models.detection.anchors import AnchorGenerator
from fastcnn.models.detection.backbones import HOLES, Backbone, init_normal
from fastcnn.models.detection.detector import DetectorRow, square
from fastcnn.models.detection.faster_rcnn import RCNN
from fastcnn.models.detection.roi_heads import RegionRules, RoIHeads
from fastcnn.models.detection.rpn import ProposalRules, RegionProposalNetwork
from fastcnn.models.detection.single_map import PAPER, SAMPLES_128
from fastcnn.nn.blocks import ConvNormAct
from fastcnn.nn.pooling import ps_roi_pool

# Every proposal of an image is a sample, and 128 of them count.
OHEM = RegionRules(samples=1 << 30, positive_fraction=1.0, hardest=128)
_600 = square(600)


@dataclass(frozen=True, kw_only=True)
class RFCNRow(DetectorRow):
    """An R-FCN: section 2.

    Attributes:
        features: of the backbone, the map of proposals, conv4, and that of regions, conv5 with holes; of stride 16.
        anchor_sizes: at every position, in three ratios each.
        rpn_hidden: channels of the region proposal network's head.
        hidden: channels of the 1x1 convolution behind conv5.
        bins: k, at each side of a region.
        proposals, regions: rules of both stages; ``OHEM`` trains on the hardest regions.
    """

    preprocess: Preprocess = _600
    backbone_options: tuple[tuple[str, Any], ...] = HOLES
    features: tuple[str, str] = ("layer3", "layer4")
    anchor_sizes: tuple[int, ...] = (128, 256, 512)
    rpn_hidden: int = 512
    hidden: int = 1024
    bins: int = 7
    min_size: int | tuple[int, ...] = 600
    max_size: int = 1000
    size_divisible: int = 1
    nms_threshold: float = 0.3
    proposals: ProposalRules = PAPER
    regions: RegionRules = SAMPLES_128

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bins < 1:
            raise ValueError(f"bins must be at least 1, got {self.bins}")


class PositionSensitivePool(nn.Module):
    """k^2 score maps of every class and k^2 maps of each of a box's four codes, pooled: figure 1 and section 2.2.

    ``forward``: called as :class:`fastcnn.nn.MultiScaleRoIAlign`, to (R, classes + 4, k, k).
    """

    def __init__(self, channels: int, row: RFCNRow, stride: int, **factory: Any) -> None:
        super().__init__()
        self.bins, self.scale = row.bins, 1 / stride
        self.conv = ConvNormAct(channels, row.hidden, 1, norm=None, **factory)
        self.cls_score = nn.Conv2d(row.hidden, row.num_classes * row.bins**2, 1, **factory)
        self.bbox_pred = nn.Conv2d(row.hidden, 4 * row.bins**2, 1, **factory)
        init_normal(self, 0.01)

    def forward(self, maps: dict[str, Tensor], boxes: list[Tensor], image_sizes: object) -> Tensor:
        hidden = self.conv(maps["1"])
        scores = torch.cat((self.cls_score(hidden), self.bbox_pred(hidden)), 1)
        return ps_roi_pool(scores, boxes, self.bins, self.scale)

    def extra_repr(self) -> str:
        return f"bins={self.bins}, scale={self.scale}"


class Vote(nn.Module):
    """The mean of a region's bins (R, classes + 4, k, k): logits (R, classes), and codes (R, 4) of any class."""

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        votes = regions.mean((2, 3))
        return votes[:, :-4], votes[:, -4:]


class RFCN(RCNN):
    """Keys: ``backbone.body``, ``rpn.head`` and ``roi_heads.box_roi_pool``; the ResNet's are torchvision's.

    Regions cost two integral images and a few additions, not a network: all layers with weights are shared. Losses are
    those of Faster R-CNN.
    """

    class_paths = ("roi_heads.box_roi_pool.cls_score",)
    classifier_path = class_paths[0]

    def __init__(self, row: RFCNRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.outputs_per_class = row.bins**2
        self.backbone = Backbone(create_body(row, row.features, **factory), False)
        anchors = AnchorGenerator([row.anchor_sizes])
        self.rpn = RegionProposalNetwork(self.backbone.channels[0], anchors, row.proposals, row.rpn_hidden, **factory)
        pool = PositionSensitivePool(self.backbone.out_channels, row, self.backbone.strides[1], **factory)
        self.roi_heads = RoIHeads(pool, nn.Identity(), Vote(), row.regions)

    @staticmethod
    def proposal_maps(maps: dict[str, Tensor]) -> list[Tensor]:
        return [maps["0"]]


_PAPER = "Dai et al., NIPS 2016, with {}: 7x7 bins, conv5 with holes"

ROWS = {
    "rfcn_resnet50": RFCNRow(backbone="resnet50", source=_PAPER.format("ResNet-50")),
    "rfcn_resnet101": RFCNRow(backbone="resnet101", source=_PAPER.format("ResNet-101")),
    "rfcn_resnet101_ohem": RFCNRow(
        backbone="resnet101", regions=OHEM, source=_PAPER.format("ResNet-101") + ", trained on the 128 hardest regions"
    ),
}

register(ROWS, RFCN)
