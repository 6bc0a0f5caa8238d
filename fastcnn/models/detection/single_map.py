"""Faster R-CNN on one map: Ren et al., NIPS 2015 (VGG-16, ZF); He et al., ResNet, CVPR 2016, appendix A (C4)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.models._backbones import create_classifier
from fastcnn.models._net import ConvNet
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register
from fastcnn.models.detection.anchors import AnchorGenerator
from fastcnn.models.detection.backbones import Backbone, init_normal
from fastcnn.models.detection.detector import DetectorRow, square
from fastcnn.models.detection.faster_rcnn import RCNN
from fastcnn.models.detection.roi_heads import FastRCNNPredictor, RegionRules, RoIHeads
from fastcnn.models.detection.rpn import ProposalRules, RegionProposalNetwork
from fastcnn.nn.layers import MultiScaleRoIAlign, RoIPool
from fastcnn.nn.pooling import SpatialPyramidRoIPool

PAPER = ProposalRules(before=(12000, 6000), after=(2000, 300), crossing=False)
SAMPLES_128 = RegionRules(samples=128)
_600 = square(600)


@dataclass(frozen=True, kw_only=True)
class SingleMapRow(DetectorRow):
    """A Faster R-CNN of Ren et al.

    Attributes:
        feature: of the backbone, the map of proposals and regions.
        anchor_sizes: at every position, in three ratios each.
        rpn_hidden: channels of the region proposal network's head.
        pooled: bins at each side of a region, in which its maximum is taken; or, with ``aligned``, the mean.
        aligned: RoI align rather than pooling.
        head: what follows on a region: "classifier", the hidden layers of the backbone's, or the name of a stage, whose
            map is averaged.
        proposals, regions: rules of both stages.
    """

    preprocess: Preprocess = _600
    feature: str
    anchor_sizes: tuple[int, ...] = (128, 256, 512)
    rpn_hidden: int
    pooled: int
    aligned: bool = False
    head: str = "classifier"
    min_size: int | tuple[int, ...] = 600
    max_size: int = 1000
    size_divisible: int = 1
    score_threshold: float = 0.05
    nms_threshold: float = 0.3
    proposals: ProposalRules = PAPER
    regions: RegionRules = SAMPLES_128


class SingleMapPool(nn.Module):
    """RoI pooling, called as :class:`fastcnn.nn.MultiScaleRoIAlign` on one map of this stride.

    Args:
        bins: at each side of a region; or levels of a spatial pyramid, whose result is flat.
        stride: of the map.
    """

    def __init__(self, bins: int | tuple[int, ...], stride: int) -> None:
        super().__init__()
        pool = RoIPool if isinstance(bins, int) else SpatialPyramidRoIPool
        self.pool: nn.Module = pool(bins, 1 / stride)  # type: ignore[arg-type]

    def forward(self, maps: dict[str, Tensor], boxes: list[Tensor], image_sizes: object) -> Tensor:
        return self.pool(maps["0"], boxes)


class SingleMapRCNN(RCNN):
    """Keys: ``backbone.body``, ``rpn.head`` and ``roi_heads``; within them the classifier's own and torchvision's."""

    class_paths = ("roi_heads.box_predictor",)

    def __init__(self, row: SingleMapRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        net = create_classifier(row, **factory)
        head, width = region_head(net, row.head)
        self.backbone = Backbone(net.keep_features(row.feature), False)
        channels, stride = self.backbone.out_channels, self.backbone.strides[0]
        anchors = AnchorGenerator([row.anchor_sizes])
        self.rpn = RegionProposalNetwork(channels, anchors, row.proposals, row.rpn_hidden, **factory)
        pool = MultiScaleRoIAlign(["0"], row.pooled, 2) if row.aligned else SingleMapPool(row.pooled, stride)
        predictor = FastRCNNPredictor(width, row.num_classes, **factory)
        init_normal(predictor.cls_score, 0.01)
        init_normal(predictor.bbox_pred, 0.001)
        self.roi_heads = RoIHeads(pool, head, predictor, row.regions)


def region_head(net: ConvNet, name: str) -> tuple[nn.Module, int]:
    """The layers on a region, from a map to features, and how many these are."""
    if name != "classifier":
        channels = next(feature.channels for feature in net.feature_chain if feature.name == name)
        layers = {name: net.get_submodule(name), "avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
        return nn.Sequential(OrderedDict(layers)), channels
    layers_: list[Any] = list(net.get_submodule("classifier").children())
    return nn.Sequential(nn.Flatten(), *layers_[:-1]), layers_[-1].in_features


_PAPER = "Ren et al., NIPS 2015, with {}: 9 anchors at every position"

ROWS = {
    "fasterrcnn_vgg16": SingleMapRow(
        backbone="vgg16", feature="conv5_3", rpn_hidden=512, pooled=7, source=_PAPER.format("VGG-16")
    ),
    "fasterrcnn_zf": SingleMapRow(
        backbone="zfnet", feature="conv5", rpn_hidden=256, pooled=6, source=_PAPER.format("Zeiler and Fergus' network")
    ),
    "fasterrcnn_resnet50_c4": SingleMapRow(
        backbone="resnet50",
        feature="layer3",
        rpn_hidden=512,
        pooled=14,
        aligned=True,
        head="layer4",
        source="He et al., ResNet, CVPR 2016, appendix A: proposals from C4, C5 on every region; RoI align for pooling",
    ),
}

register(ROWS, SingleMapRCNN)
