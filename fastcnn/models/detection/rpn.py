"""The region proposal network: Ren et al., Faster R-CNN, NIPS 2015, section 3.1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcnn import ops
from fastcnn.models.detection.anchors import Anchors
from fastcnn.models.detection.backbones import init_normal
from fastcnn.models.detection.boxes import box_iou, clip_boxes, image_limits, is_inside, is_large
from fastcnn.models.detection.coders import BoxCoder
from fastcnn.models.detection.heads import flatten_maps
from fastcnn.models.detection.matchers import NEGATIVE, Matcher
from fastcnn.models.detection.postprocess import take
from fastcnn.models.detection.samplers import sample_balanced
from fastcnn.models.detection.transform import Size, Target
from fastcnn.nn.blocks import ConvNormAct

SMOOTH_L1 = 1 / 9  # Where the loss of boxes turns from a parabola to a line: 1 / sigma^2 of the authors' code.
MIN_SIDE = 1e-3  # Of a proposal, in pixels.
MATCHER = Matcher(0.7, 0.3, keep_best=True)


@dataclass(frozen=True)
class ProposalRules:
    """The numbers of section 3.1 and of what follows it, in training and in inference where they differ.

    Attributes:
        before: proposals of each level, by objectness, that suppression looks at.
        after: proposals of an image that it leaves.
        nms_threshold: an IoU above this suppresses.
        score_threshold: proposals have an objectness of at least this.
        matcher: of anchors.
        samples, positive_fraction: anchors of an image in a step of training, and how many are positives at most.
        crossing: whether anchors that cross the border of the image take part in training; in the paper they do not.
    """

    before: tuple[int, int] = (2000, 1000)
    after: tuple[int, int] = (2000, 1000)
    nms_threshold: float = 0.7
    score_threshold: float = 0.0
    matcher: Matcher = MATCHER
    samples: int = 256
    positive_fraction: float = 0.5
    crossing: bool = True


class RPNHead(nn.Module):
    """A 3x3 convolution with ReLU; of it objectness (k) and boxes (4k) for k anchors by 1x1 convolutions, figure 3.

    Keys are torchvision's. Objectness is one logistic output, not the paper's softmax of two.
    """

    def __init__(self, channels: int, hidden: int, anchors: int, **factory: Any) -> None:
        super().__init__()
        self.conv = nn.Sequential(ConvNormAct(channels, hidden, norm=None, **factory))
        self.cls_logits = nn.Conv2d(hidden, anchors, 1, **factory)
        self.bbox_pred = nn.Conv2d(hidden, anchors * 4, 1, **factory)
        init_normal(self, 0.01)

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Maps to objectness (N, Ai, 1) and codes (N, Ai, 4) of each level's anchors."""
        hidden = [self.conv(map_) for map_ in maps]
        logits, codes = [self.cls_logits(h) for h in hidden], [self.bbox_pred(h) for h in hidden]
        return flatten_maps(logits, 1), flatten_maps(codes, 4)


class RegionProposalNetwork(nn.Module):
    """Proposals by the head's objectness, and its two losses.

    Args:
        anchors: of the maps, the same number at every position of every map.
        hidden: channels of the head; by default those of the maps.
    """

    coder = BoxCoder()

    def __init__(
        self, channels: int, anchors: Anchors, rules: ProposalRules, hidden: int | None = None, **factory: Any
    ) -> None:
        super().__init__()
        self.anchors = anchors
        self.rules = rules
        self.head = RPNHead(channels, hidden or channels, anchors.per_position()[0], **factory)

    def forward(
        self,
        maps: Sequence[Tensor],
        image_size: Size,
        sizes: Sequence[Size],
        targets: Sequence[Target] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Proposals (P, 4) for each image of a batch of ``image_size``, by descending objectness, and, given targets,
        the losses ``loss_objectness`` and ``loss_rpn_box_reg``."""
        logits, codes = self.head(maps)
        anchors = self.anchors(image_size, maps)
        proposals = self._proposals(anchors, logits, codes, sizes)
        if targets is None:
            return proposals, {}
        joined = torch.cat(anchors), torch.cat(logits, 1)[..., 0], torch.cat(codes, 1)
        return proposals, self._losses(*joined, sizes, targets, generator)

    @torch.no_grad()
    def _proposals(
        self, anchors: list[Tensor], logits: list[Tensor], codes: list[Tensor], sizes: Sequence[Size]
    ) -> list[Tensor]:
        before, after = self.rules.before[not self.training], self.rules.after[not self.training]
        boxes, scores, levels = [], [], []
        # Only what is the best of its level is decoded.
        for level, (anchor, logit, code) in enumerate(zip(anchors, logits, codes, strict=True)):
            best, indices = logit[..., 0].topk(min(before, logit.size(1)))
            boxes.append(self.coder.decode(take(code, indices), anchor[indices]))
            scores.append(best.sigmoid())
            levels.append(torch.full_like(indices, level))
        box, score = torch.cat(boxes, 1), torch.cat(scores, 1)
        box = clip_boxes(box, image_limits(sizes, box)[:, None])
        valid = is_large(box, MIN_SIDE) & (score >= self.rules.score_threshold)
        score = score.masked_fill(~valid, -1)
        keep, counts = ops.batched_nms_padded(box, score, torch.cat(levels, 1), self.rules.nms_threshold, after, -0.5)
        kept = take(box, keep.clamp(min=0))
        return [each[:count] for each, count in zip(kept, counts.tolist(), strict=True)]

    def _losses(
        self,
        anchors: Tensor,
        logits: Tensor,
        codes: Tensor,
        sizes: Sequence[Size],
        targets: Sequence[Target],
        generator: torch.Generator | None,
    ) -> dict[str, Tensor]:
        """Equation 1: cross entropy of the sampled anchors, and smooth L1 of the positive ones, both per sample."""
        limits = image_limits(sizes, anchors)
        chosen, labels, found, wanted = [], [], [], []
        for index, target in enumerate(targets):
            boxes = target["boxes"].to(anchors.dtype)
            iou = box_iou(boxes, anchors)
            inside = None if self.rules.crossing else is_inside(anchors, limits[index])
            if inside is not None:
                # Before the matching: the best anchor of a box is to be one that takes part.
                iou = iou.masked_fill(~inside, 0)
            matches = self.rules.matcher(iou)
            label = (matches >= 0).long() - (matches < NEGATIVE).long()
            if inside is not None:
                label = torch.where(inside, label, -1)
            positive, negative = sample_balanced(label, self.rules.samples, self.rules.positive_fraction, generator)
            sampled = torch.cat((positive, negative))
            chosen.append(logits[index, sampled])
            labels.append(label[sampled])
            found.append(codes[index, positive])
            wanted.append(self.coder.encode(boxes[matches[positive]], anchors[positive]))
        logit, code, target_ = torch.cat(chosen), torch.cat(found), torch.cat(wanted)
        box_loss = F.smooth_l1_loss(code.to(target_.dtype), target_, beta=SMOOTH_L1, reduction="sum")
        # There are none in an image too narrow for anchors that must not cross its border.
        reduction = "mean" if len(logit) else "sum"
        truth = torch.cat(labels).to(logit.dtype)
        return {
            "loss_objectness": F.binary_cross_entropy_with_logits(logit, truth, reduction=reduction),
            "loss_rpn_box_reg": box_loss / max(1, len(logit)),
        }
