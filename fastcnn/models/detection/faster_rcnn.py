"""Faster R-CNN and Mask R-CNN: Ren et al., NIPS 2015; Lin et al., FPN, CVPR 2017; He et al., ICCV 2017."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.models._backbones import create_body
from fastcnn.models._registry import register
from fastcnn.models.detection.anchors import AnchorGenerator
from fastcnn.models.detection.backbones import Backbone
from fastcnn.models.detection.detector import Detector, DetectorRow, Losses, square
from fastcnn.models.detection.postprocess import Detections
from fastcnn.models.detection.pyramid import PYRAMID_KEYS
from fastcnn.models.detection.roi_heads import (
    FastRCNNPredictor,
    MaskHead,
    MaskPredictor,
    RegionRules,
    RoIHeads,
    TwoMLPHead,
)
from fastcnn.models.detection.rpn import ProposalRules, RegionProposalNetwork
from fastcnn.models.detection.transform import Size, Target
from fastcnn.nn.layers import MultiScaleRoIAlign

PROPOSALS, REGIONS = ProposalRules(), RegionRules()


@dataclass(frozen=True, kw_only=True)
class FasterRCNNRow(DetectorRow):
    """A Faster R-CNN with a feature pyramid.

    Attributes:
        features: of the backbone, the inputs of the pyramid.
        channels: of the pyramid, and of the masks' head.
        anchor_sizes: of each level; several make several anchors for each ratio.
        proposals: rules of the region proposal network.
        regions: rules of the regions' heads.
        hidden: width of the two hidden layers of the boxes' head.
        masks: a mask for every detection, Mask R-CNN.
    """

    features: tuple[str, ...] = ("layer1", "layer2", "layer3", "layer4")
    channels: int = 256
    anchor_sizes: tuple[tuple[int, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
    proposals: ProposalRules = PROPOSALS
    regions: RegionRules = REGIONS
    hidden: int = 1024
    masks: bool = False


class RCNN(Detector):
    """Any detector of two stages: ``backbone``, ``rpn``, ``roi_heads``; a family builds them.

    Losses: ``loss_classifier``, ``loss_box_reg``, ``loss_objectness``, ``loss_rpn_box_reg``, and of masks
    ``loss_mask``.
    """

    backbone: Backbone
    rpn: RegionProposalNetwork
    roi_heads: RoIHeads
    classifier_path = "roi_heads.box_predictor.cls_score"

    @staticmethod
    def proposal_maps(maps: dict[str, Tensor]) -> list[Tensor]:
        """Those of the backbone's maps that proposals come from."""
        return list(maps.values())

    def losses(self, batch: Tensor, sizes: Sequence[Size], targets: list[Target]) -> Losses:
        maps = self.backbone(batch)
        image_size = batch.size(2), batch.size(3)
        proposals, losses = self.rpn(self.proposal_maps(maps), image_size, sizes, targets, self.generator)
        return self.roi_heads.losses(maps, proposals, sizes, targets, self.generator) | losses

    def detections(self, batch: Tensor, sizes: Sequence[Size]) -> Detections:
        maps = self.backbone(batch)
        proposals, _ = self.rpn(self.proposal_maps(maps), (batch.size(2), batch.size(3)), sizes)
        return self.roi_heads.detections(maps, proposals, sizes, **self.thresholds)

    def forward_layers(self, input: Tensor) -> dict[str, Tensor]:
        """A batch (N, C, H, W) through every layer, with as many proposals and masks as there are at most in inference;
        the proposals are no boxes that mean anything."""
        maps = self.backbone(input)
        sizes = [(input.size(2), input.size(3))] * len(input)
        logits, codes = self.rpn.head(self.proposal_maps(maps))
        result = {"objectness": torch.cat(logits, 1), "proposals": torch.cat(codes, 1)}
        proposals = [input.new_zeros(self.row.proposals.after[1], 4) for _ in sizes]
        result["cls_logits"], result["bbox_regression"] = self.roi_heads.predict(maps, proposals, sizes)
        if self.has_masks:
            detections = [input.new_zeros(self.row.max_detections, 4) for _ in sizes]
            result["masks"] = self.roi_heads.predict_masks(maps, detections, sizes)
        return result


class FasterRCNN(RCNN):
    """Keys are torchvision's."""

    old_keys = (
        PYRAMID_KEYS,
        (r"^(rpn\.head\.conv)\.(weight|bias)$", r"\1.0.0.\2"),
        (r"^(roi_heads\.mask_head)\.mask_fcn(\d)\.", lambda key: f"{key[1]}.{int(key[2]) - 1}.0."),
    )

    def __init__(self, row: FasterRCNNRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        self.has_masks = row.masks
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.backbone = Backbone(create_body(row, row.features, **factory), True, row.channels, **factory)
        channels, names = self.backbone.out_channels, [str(level) for level in range(len(row.features))]
        anchors = AnchorGenerator(row.anchor_sizes)
        self.rpn = RegionProposalNetwork(channels, anchors, row.proposals, **factory)
        masks: tuple[nn.Module, nn.Module, nn.Module] | None = None
        if row.masks:
            head, predictor = (
                MaskHead(channels, channels, **factory),
                MaskPredictor(channels, row.num_classes, **factory),
            )
            masks = MultiScaleRoIAlign(names, 14, 2), head, predictor
        self.roi_heads = RoIHeads(
            MultiScaleRoIAlign(names, 7, 2),
            TwoMLPHead(channels * 7**2, row.hidden, **factory),
            FastRCNNPredictor(row.hidden, row.num_classes, **factory),
            row.regions,
            masks,
        )
        masked = ("roi_heads.mask_predictor.mask_fcn_logits",) if row.masks else ()
        self.class_paths = ("roi_heads.box_predictor", *masked)


_FASTER = "Ren et al., NIPS 2015, with FPN (Lin et al., CVPR 2017) on {}{}"
_MASK = "He et al., ICCV 2017, with FPN on {}{}"
_TORCHVISION = ", as torchvision"
_MOBILE: dict[str, Any] = {
    "backbone": "mobilenet_v3_large",
    "norm_eps": 1e-5,  # As torchvision, where the classifier has 1e-3 and 0.01.
    "norm_momentum": 0.1,
    "features": ("features.13", "features.16"),
    "anchor_sizes": ((32, 64, 128, 256, 512),) * 3,
}
_SMALL: dict[str, Any] = {
    "backbone": "mobilenet_v2_x0_5",
    "features": ("features.3", "features.6", "features.13", "features.17"),
    "channels": 64,
    "anchor_sizes": ((12,), (24,), (48,), (96,), (160,)),
    "preprocess": square(160),
    "min_size": 160,
    "max_size": 320,
    "proposals": ProposalRules(before=(400, 200), after=(200, 100), samples=128),
    "regions": RegionRules(samples=64),
    "hidden": 256,
}
_MOBILE_320 = ProposalRules(before=(2000, 150), after=(2000, 150), score_threshold=0.05)

ROWS = {
    "fasterrcnn_resnet50_fpn": FasterRCNNRow(backbone="resnet50", source=_FASTER.format("ResNet-50", _TORCHVISION)),
    "fasterrcnn_resnet101_fpn": FasterRCNNRow(backbone="resnet101", source=_FASTER.format("ResNet-101", "")),
    "fasterrcnn_mobilenet_v3_large_fpn": FasterRCNNRow(
        **_MOBILE,
        proposals=ProposalRules(score_threshold=0.05),
        source=_FASTER.format("MobileNetV3-Large", _TORCHVISION),
    ),
    "fasterrcnn_mobilenet_v3_large_320_fpn": FasterRCNNRow(
        **_MOBILE,
        preprocess=square(320),
        min_size=320,
        max_size=640,
        proposals=_MOBILE_320,
        source=_FASTER.format("MobileNetV3-Large", ", as torchvision, for 320 pixels"),
    ),
    "maskrcnn_resnet50_fpn": FasterRCNNRow(
        backbone="resnet50", masks=True, source=_MASK.format("ResNet-50", _TORCHVISION)
    ),
    "maskrcnn_resnet101_fpn": FasterRCNNRow(backbone="resnet101", masks=True, source=_MASK.format("ResNet-101", "")),
    "maskrcnn_resnext101_32x8d_fpn": FasterRCNNRow(
        backbone="resnext101_32x8d", masks=True, source=_MASK.format("ResNeXt-101 32x8d", "")
    ),
    "maskrcnn_resnext101_64x4d_fpn": FasterRCNNRow(
        backbone="resnext101_64x4d", masks=True, source=_MASK.format("ResNeXt-101 64x4d, the paper's", "")
    ),
    "fasterrcnn_mobilenet_v2_x0_5_fpn": FasterRCNNRow(
        **_SMALL, source=_FASTER.format("MobileNetV2", ", for small machines")
    ),
    "maskrcnn_mobilenet_v2_x0_5_fpn": FasterRCNNRow(
        **_SMALL, masks=True, source=_MASK.format("MobileNetV2", ", for small machines")
    ),
}

register(ROWS, FasterRCNN)
