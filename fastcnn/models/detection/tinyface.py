"""Finding Tiny Faces: Hu and Ramanan, CVPR 2017."""

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
from fastcnn.models.detection.backbones import init_normal
from fastcnn.models.detection.boxes import box_iou, clip_boxes, image_limits, is_inside, is_large
from fastcnn.models.detection.coders import BoxCoder
from fastcnn.models.detection.detector import Detector, DetectorRow, Losses, square
from fastcnn.models.detection.heads import DenseHead
from fastcnn.models.detection.matchers import IGNORED, Matcher
from fastcnn.models.detection.postprocess import Candidates, Detections, suppress, top_of_groups
from fastcnn.models.detection.priors import TINY_FACES, Priors
from fastcnn.models.detection.samplers import sample_balanced
from fastcnn.models.detection.transform import Size, Target

_500, STRIDE = square(500), 8
MIN_SIDE = 1.0  # Of a detection, in pixels.


@dataclass(frozen=True, kw_only=True)
class TinyFaceRow(DetectorRow):
    """A detector of small things by templates of their sizes.

    Attributes:
        num_classes: the background and the face.
        preprocess: its input size is that of the crops that the authors train on.
        features: of the backbone, the maps that are scored, of strides 8 and 16.
        templates: (width, height) in pixels; :func:`~fastcnn.models.detection.priors.kmeans_anchors` finds those of
            another data set.
        scales: of the image pyramid of inference.
        everywhere: numbers of the templates that are looked for at every scale, the paper's type A.
        magnified: those looked for only in images that are made larger, its type B.
        samples, positive_fraction: positions of an image in a step of training, and how many are positives at most.
        easy: positions of a smaller loss are no samples, "hard mining".
        min_size, max_size: whatever the image, its longer side becomes that of WIDER FACE's.
        candidates: detections of an image and scale that suppression looks at.
    """

    num_classes: int = 2
    preprocess: Any = _500
    features: tuple[str, str] = ("layer2", "layer3")
    templates: Priors = TINY_FACES
    scales: tuple[float, ...] = (0.5, 1.0, 2.0)
    everywhere: tuple[int, ...] = tuple(range(4, 12))
    magnified: tuple[int, ...] = tuple(range(18, 25))
    samples: int = 256
    positive_fraction: float = 0.5
    easy: float = 0.03
    min_size: int | tuple[int, ...] = 1024
    max_size: int = 1024
    size_divisible: int = 1
    score_threshold: float = 0.03
    nms_threshold: float = 0.3
    max_detections: int = 1000
    candidates: int = 5000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, the background and one more, got {self.num_classes}")
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(f"scales must be positive, one or more, got {self.scales}")
        numbers = {*self.everywhere, *self.magnified}
        if not numbers <= set(range(len(self.templates))):
            raise ValueError(f"everywhere and magnified must be 0 to {len(self.templates) - 1}, got {sorted(numbers)}")


class FusedScores(nn.Module):
    """1x1 convolutions of two maps, the coarser result doubled and cut to the finer: section 3 and figure 8.

    ``forward``: [(N, C3, H, W), (N, C4, ceil(H / 2), ceil(W / 2))] to [(N, out, H, W)].
    """

    def __init__(self, channels: Sequence[int], out: int, **factory: Any) -> None:
        super().__init__()
        self.score_res3, self.score_res4 = (nn.Conv2d(each, out, 1, **factory) for each in channels)
        # The authors begin with zeros, from which nothing of the backbone would learn in the first step.
        init_normal(self, 0.01)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        fine, coarse = self.score_res3(maps[0]), self.score_res4(maps[1])
        doubled = F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)
        return [fine + doubled[..., : fine.size(2), : fine.size(3)]]


class TinyFace(Detector):
    """Class 0 is the background; every other is a logistic output of its own. A template is centred on every eighth
    pixel. In inference the batch is looked at in every scale, and all that is found is suppressed together.

    Losses, of at most ``samples`` positions of an image that are not easy, half of them positives: ``classification``,
    binary cross entropy, and ``bbox_regression``, smooth L1, both over the number of samples. A template is positive at
    an IoU of 0.7 with a face, and the best of a face from 0.3 on; what is between, or crosses the border of the image,
    takes no part.
    """

    class_paths = ("head.classification_head",)
    classifier_path = class_paths[0]  # Two layers, of which neither has outputs for the background.
    coder = BoxCoder()
    matcher = Matcher(0.7, 0.3, keep_best=True)

    def __init__(self, row: TinyFaceRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.backbone = create_body(row, row.features, **factory)
        channels = [feature.channels for feature in self.backbone.feature_info]
        self.anchors = Templates([row.templates], [STRIDE], offset=0.0)
        count = self.outputs_per_class = len(row.templates)
        heads = (FusedScores(channels, count * columns, **factory) for columns in (row.num_classes - 1, 4))
        self.head = DenseHead(*heads)

    def forward_layers(self, input: Tensor) -> dict[str, Tensor]:
        """A batch (N, C, H, W) at its own scale to logits (N, A, classes - 1) and codes (N, A, 4) of the templates."""
        _, logits, codes = self._heads(input)
        return {"cls_logits": logits, "bbox_regression": codes}

    def _heads(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps: Any = self.backbone(batch)
        (logits,), (codes,) = self.head(list(maps.values()), self.num_classes - 1)
        (anchors,) = self.anchors((batch.size(2), batch.size(3)), list(maps.values())[:1])
        return anchors, logits, codes

    def losses(self, batch: Tensor, sizes: Sequence[Size], targets: list[Target]) -> Losses:
        anchors, logits, codes = self._heads(batch)
        inside = is_inside(anchors, image_limits(sizes, anchors)[:, None])
        classification, regression, count = [], [], 0
        for index, target in enumerate(targets):
            boxes = target["boxes"].to(anchors.dtype)
            matches = self._match(boxes, anchors)
            matches = torch.where(inside[index], matches, IGNORED)
            wanted = torch.zeros_like(logits[index])
            found = (matches >= 0).nonzero()[:, 0]
            wanted[found, target["labels"][matches[found]] - 1] = 1
            loss = F.binary_cross_entropy_with_logits(logits[index], wanted, reduction="none").sum(1)
            label = torch.where(matches >= 0, 1, matches + 1)  # -1 and 0 of what is ignored and of the background.
            label = torch.where(loss.detach() < self.row.easy, -1, label)
            chosen = sample_balanced(label, self.row.samples, self.row.positive_fraction, self.generator)
            positive, every = chosen[0], torch.cat(chosen)
            classification.append(loss[every].sum())
            code = self.coder.encode(boxes[matches[positive]], anchors[positive])
            regression.append(F.smooth_l1_loss(codes[index, positive].to(code.dtype), code, reduction="sum"))
            count += len(every)
        return {
            "classification": torch.stack(classification).sum() / max(1, count),
            "bbox_regression": torch.stack(regression).sum() / max(1, count),
        }

    def _match(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """(A): the matcher's, but the best template of a box is not positive below the lower threshold."""
        iou = box_iou(boxes, anchors)
        matches = self.matcher(iou)
        return matches if not len(boxes) else torch.where(iou.amax(0) < self.matcher.low, -1, matches)

    def detections(self, batch: Tensor, sizes: Sequence[Size]) -> Detections:
        limits = image_limits(sizes, batch)
        levels = [self._candidates(batch, scale, limits) for scale in self.row.scales]
        return suppress(
            Candidates(*map(torch.cat, zip(*levels, strict=True))),
            len(batch),
            iou_threshold=self.row.nms_threshold,
            max_detections=self.row.max_detections,
        )

    def _candidates(self, batch: Tensor, scale: float, limits: Tensor) -> Candidates:
        """What is found in the batch resized by ``scale``, in pixels of the batch."""
        if scale != 1:
            sides = [max(1, round(side * scale)) for side in batch.shape[2:]]
            batch = F.interpolate(batch, sides, mode="bilinear", align_corners=False)
        anchors, logits, codes = self._heads(batch)
        numbers = torch.tensor((*self.row.everywhere, *(self.row.magnified if scale > 1 else ())), device=batch.device)
        scores = logits.unflatten(1, (-1, len(self.row.templates)))[:, :, numbers].sigmoid()
        images, positions, columns, labels = (scores > self.row.score_threshold).nonzero().unbind(1)
        scores = scores[images, positions, columns, labels]
        best = top_of_groups(scores, images, self.row.candidates)
        images, scores, labels = images[best], scores[best], labels[best]
        places = positions[best] * len(self.row.templates) + numbers[columns[best]]
        boxes = self.coder.decode(codes[images, places], anchors[places]) / scale
        boxes = clip_boxes(boxes, limits[images])
        # Templates reach far beyond the border; of some, nothing is left.
        kept = is_large(boxes, MIN_SIDE)
        return Candidates(*(each[kept] for each in (boxes, scores, labels + 1, images)))


ROWS = {
    "tinyface_resnet101": TinyFaceRow(
        backbone="resnet101",
        source="Hu and Ramanan, CVPR 2017, with ResNet-101: 25 templates on res3 and res4; counts are for one scale",
    ),
}

register(ROWS, TinyFace)
