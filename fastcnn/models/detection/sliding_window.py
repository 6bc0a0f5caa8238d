"""Detection as classification of every window of an image pyramid: what came before regions were proposed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcnn.models.detection.inputs import check_images
from fastcnn.models.detection.postprocess import Candidates, Detections, suppress
from fastcnn.models.detection.windows import sliding_windows


class SlidingWindowDetector(nn.Module):
    """``model(images)``: the windows that a classifier takes for an object, after suppression.

    Each level of the pyramid is the image, resized; windows of one size slide over it. The approach of Sermanet et al.,
    OverFeat, ICLR 2014, section 4, but every window runs by itself: the baseline, not a fast detector.

    Args:
        classifier: (N, C, height, width) to logits (N, classes), of which class 0 is the background.
        window: height and width that it looks at, in pixels.
        stride: pixels from a window to the next.
        scales: of the pyramid's levels, over the image's own size.
        score_threshold: detections have a probability above this.
        nms_threshold: an IoU above this suppresses the lower score of a class.
        max_detections: of an image.
        channels: of images, C.
        chunk: windows that run at once, for the memory.

    Raises:
        ValueError: no scale, or a number that is out of range.
    """

    def __init__(
        self,
        classifier: nn.Module,
        window: tuple[int, int],
        stride: int,
        scales: Sequence[float] = (1.0,),
        *,
        score_threshold: float = 0.5,
        nms_threshold: float = 0.3,
        max_detections: int = 100,
        channels: int = 3,
        chunk: int = 256,
    ) -> None:
        super().__init__()
        if min(*window, stride, max_detections, channels, chunk) < 1:
            raise ValueError(f"windows, strides and counts must be at least 1, got {window} and stride {stride}")
        if not scales or not min(scales) > 0:
            raise ValueError(f"scales must be above 0, one or more, got {scales!r}")
        if not (0 <= score_threshold <= 1 and 0 <= nms_threshold <= 1):
            raise ValueError(f"thresholds must be between 0 and 1, got {score_threshold} and {nms_threshold}")
        self.classifier = classifier
        self.window, self.stride, self.scales = window, stride, tuple(scales)
        self.score_threshold, self.nms_threshold, self.max_detections = score_threshold, nms_threshold, max_detections
        self.channels, self.chunk = channels, chunk

    @torch.no_grad()
    def forward(self, images: Sequence[Tensor] | Tensor) -> Detections:
        """Of images (C, H, W), as the classifier takes them: for each ``boxes`` (D, 4) in its pixels, ``scores`` (D),
        descending, and int64 ``labels`` (D), from 1. None where every level is smaller than a window. Deterministic.

        Raises:
            TypeError, ValueError: as every detector.
            RuntimeError: the classifier is in training mode.
        """
        check_images(images, self.channels)
        if self.classifier.training:
            raise RuntimeError("a sliding window needs its classifier in eval mode")
        empty = images[0].new_zeros(0)
        nothing = Candidates(empty.reshape(0, 4), empty, empty.long(), empty.long())
        found = [nothing]
        for index, image in enumerate(images):
            boxes, scores = self.window_scores(image)
            rows, labels = (scores[:, 1:] > self.score_threshold).nonzero().unbind(1)
            labels = labels + 1
            found.append(Candidates(boxes[rows], scores[rows, labels], labels, torch.full_like(rows, index)))
        candidates = Candidates(*map(torch.cat, zip(*found, strict=True)))
        return suppress(candidates, len(images), iou_threshold=self.nms_threshold, max_detections=self.max_detections)

    def window_scores(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Every window (M, 4), in the image's pixels, and its probabilities (M, classes), level by level."""
        boxes, scores = [image.new_zeros(0, 4)], []
        size = (image.size(1), image.size(2))
        height, width = self.window
        for scale in self.scales:
            sides = [max(1, round(side * scale)) for side in size]
            if sides[0] < height or sides[1] < width:
                continue
            level = F.interpolate(image[None], sides, mode="bilinear", align_corners=False, antialias=scale < 1)[0]
            windows = level.unfold(1, height, self.stride).unfold(2, width, self.stride)
            rows = windows.permute(1, 2, 0, 3, 4).flatten(0, 1)
            scores += [self.classifier(chunk).softmax(1) for chunk in rows.split(self.chunk)]
            corners = sliding_windows((sides[0], sides[1]), self.window, self.stride).to(image)
            boxes.append(corners * corners.new_tensor((size[1] / sides[1], size[0] / sides[0]) * 2))
        return torch.cat(boxes), torch.cat(scores) if scores else image.new_zeros(0, 1)
