"""RetinaNet: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcnn import ops
from fastcnn.models._backbones import create_body
from fastcnn.models._registry import register
from fastcnn.models.detection.anchors import AnchorGenerator
from fastcnn.models.detection.backbones import Backbone, init_normal
from fastcnn.models.detection.boxes import box_iou, clip_boxes, image_limits
from fastcnn.models.detection.coders import BoxCoder
from fastcnn.models.detection.detector import Detector, DetectorRow, Losses, square
from fastcnn.models.detection.heads import DenseHead
from fastcnn.models.detection.matchers import IGNORED, NEGATIVE, Matcher
from fastcnn.models.detection.postprocess import Candidates, Detections, suppress, top_of_groups
from fastcnn.models.detection.pyramid import PYRAMID_KEYS, LastLevelP6P7
from fastcnn.models.detection.transform import Size, Target
from fastcnn.nn.blocks import ConvNormAct

IGNORED_CLASS = -100


@dataclass(frozen=True, kw_only=True)
class RetinaNetRow(DetectorRow):
    """A RetinaNet.

    Attributes:
        features: of the backbone, the inputs of the pyramid.
        p6_from_c5: as the paper; torchvision makes P6 from P5.
        channels: of the pyramid and of the subnets.
        norm_groups: of group norms in the subnets, as torchvision's second version has them; 0 is the paper's: none.
        anchor_sizes: of the pyramid's levels; each comes in three sizes, a third of an octave apart.
        aspect_ratios: of the anchors, height over width.
        candidates: detections of a level that suppression looks at.
        prior: the probability of every class that training starts from, section 4.1.
        alpha, gamma: of the focal loss.
    """

    features: tuple[str, ...] = ("layer2", "layer3", "layer4")
    p6_from_c5: bool = False
    channels: int = 256
    norm_groups: int = 0
    anchor_sizes: tuple[int, ...] = (32, 64, 128, 256, 512)
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    candidates: int = 1000
    max_detections: int = 300
    prior: float = 0.01
    alpha: float = 0.25
    gamma: float = 2.0


class Subnet(nn.Module):
    """Four 3x3 convolutions with ReLUs and one more, the same for all levels: section 4, figure 3 (c) and (d).

    Keys are torchvision's: ``conv.0.0`` ..., and the last, which is called ``name``.
    """

    def __init__(self, channels: int, out_channels: int, name: str, norm_groups: int = 0, **factory: Any) -> None:
        super().__init__()
        norm = partial(nn.GroupNorm, norm_groups) if norm_groups else None
        self.conv = nn.Sequential(*(ConvNormAct(channels, channels, norm=norm, **factory) for _ in range(4)))
        self.name = name
        self.add_module(name, nn.Conv2d(channels, out_channels, 3, padding=1, **factory))
        init_normal(self, 0.01)

    @property
    def last(self) -> Any:
        return self.get_submodule(self.name)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [self.last(self.conv(map_)) for map_ in maps]


class RetinaNet(Detector):
    """Keys are torchvision's. Labels may be any class, 0 too: there is none for the background.

    Losses: ``classification``, the focal loss over the matched anchors, and ``bbox_regression``, L1, as torchvision's.
    """

    class_paths = ("head.classification_head.cls_logits",)
    classifier_path = class_paths[0]
    has_background = False
    old_keys = (
        PYRAMID_KEYS,
        (r"^(head\.\w+\.conv)\.(\d)\.(weight|bias)$", lambda key: f"{key[1]}.{int(key[2]) // 2}.0.{key[3]}"),
    )
    coder = BoxCoder()
    matcher = Matcher(0.5, 0.4, keep_best=True)

    def __init__(self, row: RetinaNetRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        net = create_body(row, row.features, **factory)
        channels = row.channels
        extra = LastLevelP6P7(net.feature_info[-1].channels if row.p6_from_c5 else None, channels, **factory)
        self.backbone = Backbone(net, extra, channels, **factory)
        sizes = [[int(size * 2 ** (third / 3)) for third in range(3)] for size in row.anchor_sizes]
        self.anchors = AnchorGenerator(sizes, row.aspect_ratios)
        count = self.outputs_per_class = self.anchors.per_position()[0]
        classification = Subnet(channels, count * row.num_classes, "cls_logits", row.norm_groups, **factory)
        nn.init.constant_(classification.last.bias, -math.log((1 - row.prior) / row.prior))
        regression = Subnet(channels, count * 4, "bbox_reg", row.norm_groups, **factory)
        self.head = DenseHead(classification, regression)

    def forward_layers(self, input: Tensor) -> dict[str, Tensor]:
        """A batch (N, C, H, W) to logits (N, A, classes) and codes (N, A, 4) of the boxes of all levels' anchors."""
        _, logits, codes = self._heads(input)
        return {"cls_logits": torch.cat(logits, 1), "bbox_regression": torch.cat(codes, 1)}

    def _heads(self, batch: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        maps = list(self.backbone(batch).values())
        return maps, *self.head(maps, self.num_classes)

    def losses(self, batch: Tensor, sizes: Sequence[Size], targets: list[Target]) -> Losses:
        maps, logits, codes = self._heads(batch)
        anchors = torch.cat(self.anchors(_sides(batch), maps))
        classification, regression = [], []
        for target, logit, code in zip(targets, torch.cat(logits, 1), torch.cat(codes, 1), strict=True):
            boxes, labels = target["boxes"].to(anchors.dtype), target["labels"]
            matches = self.matcher(box_iou(boxes, anchors))
            found = (matches >= 0).nonzero()[:, 0]
            classes = torch.where(matches == IGNORED, IGNORED_CLASS, NEGATIVE)
            classes[found] = labels[matches[found]]
            count = max(1, len(found))
            focal = ops.sigmoid_focal_loss(logit, classes, self.row.alpha, self.row.gamma, "sum", IGNORED_CLASS)
            classification.append(focal / count)
            wanted = self.coder.encode(boxes[matches[found]], anchors[found])
            regression.append(F.l1_loss(code[found].to(wanted.dtype), wanted, reduction="sum") / count)
        return {
            "classification": torch.stack(classification).mean(),
            "bbox_regression": torch.stack(regression).mean(),
        }

    def detections(self, batch: Tensor, sizes: Sequence[Size]) -> Detections:
        maps, logits, codes = self._heads(batch)
        limits = image_limits(sizes, batch)
        levels = [
            self._candidates(*level, limits)
            for level in zip(self.anchors(_sides(batch), maps), logits, codes, strict=True)
        ]
        return suppress(
            Candidates(*map(torch.cat, zip(*levels, strict=True))),
            len(batch),
            iou_threshold=self.row.nms_threshold,
            max_detections=self.row.max_detections,
        )

    def _candidates(self, anchors: Tensor, logits: Tensor, codes: Tensor, limits: Tensor) -> Candidates:
        """A level's best detections; only these are decoded."""
        threshold = self.row.score_threshold
        # A sigmoid for all would cost more than everything after it; the margin is for its rounding.
        least = math.log(threshold / (1 - threshold)) - 0.1 if 0 < threshold < 1 else -math.inf
        images, places = (logits.flatten(1) > least).nonzero().unbind(1)
        scores = logits.flatten(1)[images, places].sigmoid()
        above = (scores > threshold).nonzero()[:, 0]
        best = above[top_of_groups(scores[above], images[above], self.row.candidates)]
        scores, images, places = scores[best], images[best], places[best]
        number = places.div(self.num_classes, rounding_mode="floor")
        boxes = clip_boxes(self.coder.decode(codes[images, number], anchors[number]), limits[images])
        return Candidates(boxes, scores, places % self.num_classes, images)


def _sides(batch: Tensor) -> Size:
    return batch.size(2), batch.size(3)


_PAPER = "Lin et al., ICCV 2017, with {}, as torchvision: P6 from P5, L1 loss"

ROWS = {
    "retinanet_resnet50_fpn": RetinaNetRow(backbone="resnet50", source=_PAPER.format("ResNet-50")),
    "retinanet_resnet101_fpn": RetinaNetRow(backbone="resnet101", source=_PAPER.format("ResNet-101")),
    "retinanet_mobilenet_v2_x0_5_fpn": RetinaNetRow(
        backbone="mobilenet_v2_x0_5",
        features=("features.6", "features.13", "features.17"),
        channels=64,
        norm_groups=16,
        anchor_sizes=(24, 48, 96, 192, 384),
        preprocess=square(160),
        min_size=160,
        max_size=320,
        source=_PAPER.format("MobileNetV2, for small machines"),
    ),
}

register(ROWS, RetinaNet)
