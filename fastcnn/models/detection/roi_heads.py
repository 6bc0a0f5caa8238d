"""From regions to classes, boxes and masks: Girshick, Fast R-CNN, ICCV 2015; He et al., Mask R-CNN, ICCV 2017."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcnn.models.detection.boxes import box_iou, clip_boxes, image_limits, is_large
from fastcnn.models.detection.coders import BoxCoder
from fastcnn.models.detection.masks import crop_masks
from fastcnn.models.detection.matchers import IGNORED, Matcher
from fastcnn.models.detection.postprocess import Candidates, Detections, suppress, top_of_groups
from fastcnn.models.detection.samplers import sample_balanced
from fastcnn.models.detection.transform import Size, Target
from fastcnn.nn.blocks import ConvNormAct

SMOOTH_L1 = 1 / 9
MIN_SIDE = 1e-2  # Of a detection, in pixels.
MATCHER, CODER = Matcher(0.5, 0.5), BoxCoder((10.0, 10.0, 5.0, 5.0))


@dataclass(frozen=True)
class RegionRules:
    """The numbers of Fast R-CNN, section 2.3, and of torchvision.

    Attributes:
        matcher: of regions.
        samples, positive_fraction: regions of an image in a step of training, and how many are positives at most.
        coder: of boxes.
        hardest: of the samples of an image, only so many count, those of the largest loss: Shrivastava et al., Training
            Region-based Object Detectors with Online Hard Example Mining, CVPR 2016; None counts all.
    """

    matcher: Matcher = MATCHER
    samples: int = 512
    positive_fraction: float = 0.25
    coder: BoxCoder = CODER
    hardest: int | None = None


class Regions(NamedTuple):
    """Of each image: regions (R, 4) to train on, their matches in the ground truth (R) and their classes (R)."""

    boxes: list[Tensor]
    matches: list[Tensor]
    labels: list[Tensor]


class TwoMLPHead(nn.Module):
    """Two hidden layers on flattened regions, (R, C, H, W) to (R, hidden): FPN, section 4.2. Keys are torchvision's."""

    def __init__(self, inputs: int, hidden: int, **factory: Any) -> None:
        super().__init__()
        self.fc6 = nn.Linear(inputs, hidden, **factory)
        self.fc7 = nn.Linear(hidden, hidden, **factory)

    def forward(self, regions: Tensor) -> Tensor:
        return F.relu(self.fc7(F.relu(self.fc6(regions.flatten(1)))))


class FastRCNNPredictor(nn.Module):
    """Logits (R, classes) and codes (R, classes * 4) of features (R, F). Keys are torchvision's."""

    def __init__(self, inputs: int, num_classes: int, **factory: Any) -> None:
        super().__init__()
        self.cls_score = nn.Linear(inputs, num_classes, **factory)
        self.bbox_pred = nn.Linear(inputs, num_classes * 4, **factory)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(features), self.bbox_pred(features)


class MaskHead(nn.Sequential):
    """Four 3x3 convolutions with ReLUs, (R, C, 14, 14) to (R, width, 14, 14): Mask R-CNN, figure 4, right."""

    def __init__(self, channels: int, width: int = 256, **factory: Any) -> None:
        inputs = (channels, width, width, width)
        super().__init__(*(ConvNormAct(each, width, norm=None, **factory) for each in inputs))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)


class MaskPredictor(nn.Sequential):
    """Doubles the side and gives a mask's logits to every class: (R, C, M, M) to (R, classes, 2M, 2M)."""

    def __init__(self, channels: int, num_classes: int, **factory: Any) -> None:
        layers: dict[str, nn.Module] = {
            "conv5_mask": nn.ConvTranspose2d(channels, channels, 2, 2, **factory),
            "relu": nn.ReLU(inplace=True),
            "mask_fcn_logits": nn.Conv2d(channels, num_classes, 1, **factory),
        }
        super().__init__(OrderedDict(layers))
        for layer in (layers["conv5_mask"], layers["mask_fcn_logits"]):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]


class RoIHeads(nn.Module):
    """Pools regions, classifies them, refines their boxes and maybe finds their masks; with the losses of each.

    Args:
        pool: called as :class:`fastcnn.nn.MultiScaleRoIAlign`.
        box_head: of pooled regions.
        box_predictor: of what that gives; called also on no regions.
        mask_pool, mask_head, mask_predictor: the same of masks, or None.
    """

    def __init__(
        self,
        pool: nn.Module,
        box_head: nn.Module,
        box_predictor: nn.Module,
        rules: RegionRules,
        masks: tuple[nn.Module, nn.Module, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.box_roi_pool = pool
        self.box_head = box_head
        self.box_predictor = box_predictor
        self.rules = rules
        self.has_masks = masks is not None
        if masks is not None:
            self.mask_roi_pool, self.mask_head, self.mask_predictor = masks

    def predict(self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: Sequence[Size]) -> tuple[Tensor, Tensor]:
        """Logits (R, classes) and codes (R, classes, 4) of all images' boxes."""
        logits, codes = self.box_predictor(self.box_head(self.box_roi_pool(maps, boxes, list(sizes))))
        return logits, codes.unflatten(1, (-1, 4))

    def predict_masks(self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: Sequence[Size]) -> Tensor:
        """Logits (R, classes, M, M) of all images' boxes."""
        return self.mask_predictor(self.mask_head(self.mask_roi_pool(maps, boxes, list(sizes))))

    def losses(
        self,
        maps: dict[str, Tensor],
        proposals: list[Tensor],
        sizes: Sequence[Size],
        targets: Sequence[Target],
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """``loss_classifier``, ``loss_box_reg`` (equation 1 of Fast R-CNN) and maybe ``loss_mask``."""
        regions = self.sample(proposals, targets, generator)
        logits, codes = self.predict(maps, regions.boxes, sizes)
        labels, boxes = torch.cat(regions.labels), torch.cat(regions.boxes)
        positive = (labels > 0).nonzero()[:, 0]
        codes = codes[positive, labels[positive] if codes.size(1) > 1 else 0]
        wanted = self.rules.coder.encode(_matched(targets, regions).to(boxes.dtype)[positive], boxes[positive])
        found = F.smooth_l1_loss(codes.to(wanted.dtype), wanted, beta=SMOOTH_L1, reduction="none").sum(1)
        box_loss = found.new_zeros(len(labels)).index_add(0, positive, found)
        entropy = F.cross_entropy(logits, labels, reduction="none")
        if self.rules.hardest is not None:
            images = image_of(regions.boxes)
            hardest = top_of_groups((entropy + box_loss).detach(), images, self.rules.hardest)
            entropy, box_loss = entropy[hardest], box_loss[hardest]
        # Of images without objects and proposals there are none.
        mean = entropy.mean() if len(entropy) else entropy.sum()
        result = {"loss_classifier": mean, "loss_box_reg": box_loss.sum() / max(1, len(box_loss))}
        if self.has_masks:
            result["loss_mask"] = self._mask_loss(maps, regions, sizes, targets)
        return result

    def sample(
        self, proposals: list[Tensor], targets: Sequence[Target], generator: torch.Generator | None = None
    ) -> Regions:
        """Regions to train on: of proposals and of the ground truth itself, so that there are positives early on."""
        boxes, matches, labels = [], [], []
        for proposal, target in zip(proposals, targets, strict=True):
            candidates = torch.cat((proposal, target["boxes"].to(proposal.dtype)))
            match, label = match_regions(self.rules.matcher, candidates, target)
            chosen = sample_balanced(label, self.rules.samples, self.rules.positive_fraction, generator)
            indices = torch.cat(chosen).sort().values
            boxes.append(candidates[indices])
            matches.append(match[indices].clamp(min=0))
            labels.append(label[indices])
        return Regions(boxes, matches, labels)

    def _mask_loss(
        self, maps: dict[str, Tensor], regions: Regions, sizes: Sequence[Size], targets: Sequence[Target]
    ) -> Tensor:
        """Binary cross entropy of the mask of the true class alone: Mask R-CNN, section 3."""
        positive = [label > 0 for label in regions.labels]
        boxes = [box[is_] for box, is_ in zip(regions.boxes, positive, strict=True)]
        logits = self.predict_masks(maps, boxes, sizes)
        if not len(logits):
            return logits.sum() * 0
        labels = torch.cat([label[is_] for label, is_ in zip(regions.labels, positive, strict=True)])
        wanted = [
            crop_masks(target["masks"], box, match[is_], logits.size(-1))
            for target, box, match, is_ in zip(targets, boxes, regions.matches, positive, strict=True)
        ]
        logits = logits[torch.arange(len(labels), device=labels.device), labels]
        return F.binary_cross_entropy_with_logits(logits, torch.cat(wanted).to(logits.dtype))

    def detections(
        self,
        maps: dict[str, Tensor],
        proposals: list[Tensor],
        sizes: Sequence[Size],
        *,
        score_threshold: float,
        iou_threshold: float,
        max_detections: int,
    ) -> Detections:
        """Of all images at once; only what is above the threshold is decoded."""
        logits, codes = self.predict(maps, proposals, sizes)
        result = region_detections(
            logits.softmax(1)[:, 1:],
            codes if codes.size(1) == 1 else codes[:, 1:],
            proposals,
            sizes,
            self.rules.coder,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
        )
        if self.has_masks:
            masks = self.predict_masks(maps, [each["boxes"] for each in result], sizes)
            labels = torch.cat([each["labels"] for each in result])
            masks = masks[torch.arange(len(labels), device=labels.device), labels][:, None].sigmoid()
            for each, mask in zip(result, masks.split([len(each["labels"]) for each in result]), strict=True):
                each["masks"] = mask
        return result


def image_of(boxes: Sequence[Tensor]) -> Tensor:
    """The number (R) of the image of every box, of (Ri, 4) of each image."""
    counts = torch.tensor([len(each) for each in boxes], device=boxes[0].device)
    return torch.arange(len(boxes), device=boxes[0].device).repeat_interleave(counts)


def match_regions(matcher: Matcher, boxes: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    """Of an image's boxes (R, 4): matches in the ground truth (R), and classes (R), 0 the background, -1 for none."""
    match = matcher(box_iou(target["boxes"].to(boxes.dtype), boxes))
    label = torch.zeros_like(match)
    label[match >= 0] = target["labels"][match[match >= 0]]
    label[match == IGNORED] = -1
    return match, label


def region_detections(
    scores: Tensor,
    codes: Tensor,
    proposals: list[Tensor],
    sizes: Sequence[Size],
    coder: BoxCoder,
    *,
    score_threshold: float,
    iou_threshold: float,
    max_detections: int,
) -> Detections:
    """Of all images at once; only what is above the threshold is decoded.

    Args:
        scores: (R, C) of all images' regions, without a background; class c is label c + 1.
        codes: (R, C, 4), or (R, 1, 4) for all classes alike.
        proposals: (Ri, 4) of each image.
        sizes: of the images, to clip boxes at.
    """
    images = image_of(proposals)
    regions, classes = (scores > score_threshold).nonzero().unbind(1)
    codes, scores = codes[regions, classes if codes.size(1) > 1 else 0], scores[regions, classes]
    boxes = coder.decode(codes, torch.cat(proposals)[regions])
    images = images[regions]
    boxes = clip_boxes(boxes, image_limits(sizes, boxes)[images])
    large = is_large(boxes, MIN_SIDE)
    found = Candidates(*(each[large] for each in (boxes, scores, classes + 1, images)))
    return suppress(found, len(proposals), iou_threshold=iou_threshold, max_detections=max_detections)


def _matched(targets: Sequence[Target], regions: Regions) -> Tensor:
    """The box of the ground truth (R, 4) of every image's regions; zeros where an image has none."""
    return torch.cat(
        [
            target["boxes"][match] if len(target["boxes"]) else match.new_zeros((len(match), 4))
            for target, match in zip(targets, regions.matches, strict=True)
        ]
    )
