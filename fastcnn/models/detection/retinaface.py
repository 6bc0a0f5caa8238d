"""RetinaFace: Deng et al., RetinaFace: Single-Shot Multi-Level Face Localisation in the Wild, CVPR 2020."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcnn.models._backbones import create_body
from fastcnn.models._registry import register
from fastcnn.models.detection.anchors import Templates
from fastcnn.models.detection.backbones import Backbone, init_normal
from fastcnn.models.detection.boxes import box_iou, clip_boxes, image_limits
from fastcnn.models.detection.coders import BoxCoder, PointCoder
from fastcnn.models.detection.detector import Detector, DetectorRow, Losses, square
from fastcnn.models.detection.heads import flatten_maps
from fastcnn.models.detection.matchers import IGNORED, Matcher
from fastcnn.models.detection.postprocess import Candidates, Detections, suppress, top_of_groups
from fastcnn.models.detection.pyramid import LastLevelP6, init_pyramid
from fastcnn.models.detection.samplers import hard_negatives
from fastcnn.models.detection.transform import Size, Target
from fastcnn.nn.blocks import ConvNormAct

_640, MATCHER = square(640), Matcher(0.5, 0.3)
POINTS = 5  # Eyes, nose and corners of the mouth, left before right.


@dataclass(frozen=True, kw_only=True)
class RetinaFaceRow(DetectorRow):
    """A RetinaFace: section 3.

    Attributes:
        num_classes: the background and the face.
        features: of the backbone, the inputs of the pyramid.
        channels: of the pyramid's maps; context modules keep them.
        last_level: P6 behind the pyramid.
        anchor_sizes: squares at every position, of each level; as many of all.
        matcher: of anchors.
        negatives: for each positive in training, those of the largest loss.
        box_weight, landmark_weight: lambda 1 and 2 of equation 1.
        candidates: detections of an image that suppression looks at.
    """

    num_classes: int = 2
    preprocess: Any = _640
    features: tuple[str, ...]
    channels: int
    last_level: bool
    anchor_sizes: tuple[tuple[float, ...], ...]
    matcher: Matcher = MATCHER
    negatives: float = 3.0
    box_weight: float = 0.25
    landmark_weight: float = 0.1
    min_size: int | tuple[int, ...] = 640
    max_size: int = 1280
    score_threshold: float = 0.02
    nms_threshold: float = 0.4
    max_detections: int = 750
    candidates: int = 5000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels < 4 or self.channels % 4:
            raise ValueError(f"channels must be a multiple of 4, got {self.channels}")
        if len({len(sizes) for sizes in self.anchor_sizes}) != 1:
            raise ValueError(f"anchor_sizes must be as many on every level, got {self.anchor_sizes}")


class ContextModule(nn.Module):
    """3x3, 5x5 and 7x7 windows by 3x3 convolutions in a row, side by side: (N, C, H, W) to the same shape.

    Najibi et al., SSH, ICCV 2017, figures 3 and 4, as section 3.2 takes it; its deformable convolutions are plain here.
    """

    def __init__(self, channels: int, **factory: Any) -> None:
        super().__init__()
        quarter, linear = channels // 4, {"act": None, **factory}
        self.window3 = ConvNormAct(channels, channels // 2, 3, **linear)
        self.hidden5 = ConvNormAct(channels, quarter, 3, **factory)
        self.window5 = ConvNormAct(quarter, quarter, 3, **linear)
        self.hidden7 = ConvNormAct(quarter, quarter, 3, **factory)
        self.window7 = ConvNormAct(quarter, quarter, 3, **linear)
        init_pyramid(self)

    def forward(self, input: Tensor) -> Tensor:
        hidden = self.hidden5(input)
        windows = self.window3(input), self.window5(hidden), self.window7(self.hidden7(hidden))
        return F.relu(torch.cat(windows, 1))


class FaceHead(nn.Module):
    """Classes, boxes and landmarks by 1x1 convolutions, the same for all levels: section 3.2, "Loss Head"."""

    def __init__(self, channels: int, anchors: int, num_classes: int, **factory: Any) -> None:
        super().__init__()
        self.cls_logits = nn.Conv2d(channels, anchors * num_classes, 1, **factory)
        self.bbox_reg = nn.Conv2d(channels, anchors * 4, 1, **factory)
        self.landmarks = nn.Conv2d(channels, anchors * POINTS * 2, 1, **factory)
        init_normal(self, 0.01)

    def forward(self, maps: Sequence[Tensor], num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (N, A, classes), codes (N, A, 4) and codes of landmarks (N, A, 5, 2) of the anchors of all maps."""
        layers = (self.cls_logits, num_classes), (self.bbox_reg, 4), (self.landmarks, POINTS * 2)
        logits, codes, points = (
            torch.cat(flatten_maps([layer(map_) for map_ in maps], columns), 1) for layer, columns in layers
        )
        return logits, codes, points.unflatten(2, (POINTS, 2))


class RetinaFace(Detector):
    """Targets have ``landmarks`` (G, 5, 2), NaN where unknown, and so have detections: left eye, right eye, nose, left
    and right corner of the mouth, left as seen in the image. Class 0 is the background.

    Losses, equation 1 without the mesh: ``classification``, cross entropy of the matched anchors and the hardest
    negatives over the matched ones; ``bbox_regression``, smooth L1, the same; ``landmarks``, smooth L1 over the anchors
    matched with a face of known landmarks. The last two come with their weights.
    """

    class_paths = ("head.cls_logits",)
    classifier_path = class_paths[0]
    landmarks = POINTS
    coder, point_coder = BoxCoder(), PointCoder()

    def __init__(self, row: RetinaFaceRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        net = create_body(row, row.features, **factory)
        last, strides = net.feature_info[-1], [feature.stride for feature in net.feature_info]
        extra = LastLevelP6(last.channels, row.channels, **factory) if row.last_level else None
        if extra is not None:
            strides.append(2 * strides[-1])
        self.backbone = Backbone(net, extra, row.channels, **factory)
        self.context = nn.ModuleList(ContextModule(row.channels, **factory) for _ in strides)
        self.anchors = Templates([[(side, side) for side in sizes] for sizes in row.anchor_sizes], strides)
        self.outputs_per_class = self.anchors.per_position()[0]
        self.head = FaceHead(row.channels, self.outputs_per_class, row.num_classes, **factory)

    def forward_layers(self, input: Tensor) -> dict[str, Tensor]:
        """A batch (N, C, H, W) to logits (N, A, classes), codes (N, A, 4) and those of landmarks (N, A, 5, 2)."""
        _, logits, codes, points = self._heads(input)
        return {"cls_logits": logits, "bbox_regression": codes, "landmarks": points}

    def _heads(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        levels = self.backbone(batch).values()
        maps = [module(level) for module, level in zip(self.context, levels, strict=True)]
        anchors = torch.cat(self.anchors((batch.size(2), batch.size(3)), maps))
        return anchors, *self.head(maps, self.num_classes)

    def losses(self, batch: Tensor, sizes: Sequence[Size], targets: list[Target]) -> Losses:
        anchors, logits, codes, points = self._heads(batch)
        matches = torch.stack([self.row.matcher(box_iou(t["boxes"].to(anchors.dtype), anchors)) for t in targets])
        images, places = (matches >= 0).nonzero().unbind(1)
        found = matches[images, places]
        starts = torch.tensor([0, *(len(target["boxes"]) for target in targets[:-1])], device=found.device).cumsum(0)
        boxes, labels, faces = (torch.cat([t[key] for t in targets]) for key in ("boxes", "labels", "landmarks"))
        found = found + starts[images]
        matched, count = anchors[places], max(1, len(found))
        classes = torch.zeros_like(matches).index_put((images, places), labels[found])
        entropy = F.cross_entropy(logits.flatten(0, 1), classes.flatten(), reduction="none").view_as(classes)
        positive, ignored = classes > 0, matches == IGNORED
        hard = hard_negatives(entropy.masked_fill(ignored, -torch.inf), positive, self.row.negatives) & ~ignored
        wanted = self.coder.encode(boxes[found].to(matched.dtype), matched)
        box_loss = F.smooth_l1_loss(codes[images, places].to(wanted.dtype), wanted, reduction="sum")
        offsets = self.point_coder.encode(faces[found].to(matched.dtype), matched)
        known = ~offsets.isnan()
        landmark_loss = F.smooth_l1_loss(
            points[images, places].to(offsets.dtype)[known], offsets[known], reduction="sum"
        )
        return {
            "classification": entropy[positive | hard].sum() / count,
            "bbox_regression": self.row.box_weight * box_loss / count,
            "landmarks": self.row.landmark_weight * landmark_loss / known.flatten(1).any(1).sum().clamp(min=1),
        }

    def detections(self, batch: Tensor, sizes: Sequence[Size]) -> Detections:
        anchors, logits, codes, points = self._heads(batch)
        scores = logits.softmax(2)[..., 1:]
        images, places, labels = (scores > self.row.score_threshold).nonzero().unbind(1)
        best = top_of_groups(scores[images, places, labels], images, self.row.candidates)
        images, places, labels = images[best], places[best], labels[best]
        matched = anchors[places]
        boxes = clip_boxes(self.coder.decode(codes[images, places], matched), image_limits(sizes, matched)[images])
        return suppress(
            Candidates(boxes, scores[images, places, labels], labels + 1, images),
            len(batch),
            iou_threshold=self.row.nms_threshold,
            max_detections=self.row.max_detections,
            landmarks=self.point_coder.decode(points[images, places], matched),
        )


_PAPER = "Deng et al., CVPR 2020, with {}; no mesh, no deformable convolutions: {} anchors at 640x640"

ROWS = {
    "retinaface_resnet50": RetinaFaceRow(
        backbone="resnet50",
        features=("layer1", "layer2", "layer3", "layer4"),
        channels=256,
        last_level=True,
        # Table 2: from 16 pixels to 406, a third of an octave apart.
        anchor_sizes=tuple(tuple(16 * 2 ** (level + third / 3) for third in range(3)) for level in range(5)),
        source=_PAPER.format("ResNet-50", "102300"),
    ),
    "retinaface_mobilenet_v1_x0_25": RetinaFaceRow(
        backbone="mobilenet_v1_x0_25",
        features=("blocks.2", "blocks.3", "blocks.4"),
        channels=64,
        last_level=False,
        anchor_sizes=((16, 32), (64, 128), (256, 512)),
        source=_PAPER.format("MobileNet-0.25 and SSH's anchors", "16800"),
    ),
}

register(ROWS, RetinaFace)
