"""What boxes are predicted from: k-means over a data set's sizes or boxes, published sizes, and Faster R-CNN's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastcnn.models.detection.yolo_boxes import shape_iou

Priors = tuple[tuple[float, float], ...]


def _cells(*numbers: float) -> Priors:
    # Darknet writes YOLOv2's in cells of 32 pixels, one after another.
    return tuple((32 * width, 32 * height) for width, height in zip(numbers[::2], numbers[1::2], strict=True))


# Widths and heights in pixels of the input, whatever its size.
YOLOV2_VOC = _cells(1.3221, 1.73145, 3.19275, 4.00944, 5.05587, 8.09892, 9.47112, 4.84053, 11.2364, 10.0071)
YOLOV2_COCO = _cells(0.57273, 0.677385, 1.87446, 2.06253, 3.33843, 5.47434, 7.88282, 3.52778, 9.77052, 9.16828)
YOLOV2_TINY_VOC = _cells(1.08, 1.19, 3.42, 4.41, 6.63, 11.38, 9.42, 5.11, 16.62, 10.52)
YOLO9000 = _cells(0.77871, 1.14074, 3.00525, 4.31277, 9.22725, 9.61974)
YOLOV3_COCO = ((10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326))
YOLOV3_TINY_COCO = ((10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319))

# Hu and Ramanan's 25 clusters of WIDER FACE's faces, in whole pixels of what the network sees: four of images halved,
# eight of images as they are, 13 of images doubled; the largest first of each.
TINY_FACES: Priors = (
    *((174, 228), (99, 132), (68, 89), (53, 69)),
    *((82, 110), (70, 88), (58, 77), (52, 64), (44, 56), (41, 46), (36, 52), (34, 43)),
    *((60, 70), (52, 75), (49, 61), (45, 50), (40, 57), (37, 47), (32, 40), (27, 38), (28, 31), (23, 34), (23, 29)),
    *((21, 26), (20, 22)),
)

# Hand-picked: areas of 128^2, 256^2 and 512^2 pixels in ratios of height to width of 1/2, 1 and 2.
FASTER_RCNN = tuple(
    (side / ratio**0.5, side * ratio**0.5) for side in (128.0, 256.0, 512.0) for ratio in (0.5, 1.0, 2.0)
)


def mean_iou(boxes: Tensor, anchors: Tensor) -> float:
    """The mean over ``boxes`` (N, 2 or 4) of the highest IoU with one of ``anchors`` (K, 2), centres together."""
    return shape_iou(_sizes(boxes), anchors.double()).amax(1).mean().item()


def kmeans_anchors(boxes: Tensor, k: int, *, seed: int = 0, iterations: int = 100) -> Tensor:
    """Clusters the sizes of boxes with the distance 1 - IoU: the dimension priors of YOLOv2.

    The anchors of k grow from those of k - 1, by a size drawn with a probability proportional to its distance, and
    the best of the rounds that follow is kept: :func:`mean_iou` never falls as k grows. Deterministic for a seed; the
    result does not depend on the units. Source: Redmon and Farhadi, YOLO9000, CVPR 2017, section 2, "Dimension
    Clusters".

    Args:
        boxes: (N, 2) widths and heights, or (N, 4) corners.
        k: how many anchors.
        seed: of the draws.
        iterations: rounds for each number of anchors, at most.

    Returns:
        (k, 2) widths and heights by area, float64, on the CPU.

    Raises:
        ValueError: another shape, a box that is not finite or without area, or fewer different sizes than k.
        TypeError: boxes that are not floating, or k no int.
    """
    sizes = _sizes(boxes).cpu()
    _different(sizes, k, "sizes of the boxes")
    generator = torch.Generator().manual_seed(seed)
    anchors = _refine(sizes, sizes.mean(0, keepdim=True), iterations)
    while len(anchors) < k:
        distance = 1 - shape_iou(sizes, anchors).amax(1)
        drawn = torch.multinomial(distance.clamp(min=0), 1, generator=generator)
        anchors = _refine(sizes, torch.cat([anchors, sizes[drawn]]), iterations)
    return anchors[anchors.prod(1).argsort(stable=True)]


def kmeans_boxes(boxes: Tensor, k: int, *, seed: int = 0, iterations: int = 100) -> Tensor:
    """Clusters boxes, place and size: the regions that R-CNN minus R looks at in every image.

    Euclidean k-means of the four corners, from k different boxes drawn at random; the best round is kept. Deterministic
    for a seed. N times k distances are kept. Source: Lenc and Vedaldi, R-CNN minus R, BMVC 2015.

    Args:
        boxes: (N, 4) corners in shares of their images' width and height, as of a training set.
        k: how many.
        seed: of the draw.
        iterations: rounds, at most.

    Returns:
        (k, 4) corners by area, float64, on the CPU.

    Raises:
        ValueError: another shape, a box that is not within 0 and 1 or without area, or fewer different ones than k.
        TypeError: boxes that are not floating, or k no int.
    """
    _sizes(boxes)
    if boxes.shape[1] != 4 or not bool(((boxes >= 0) & (boxes <= 1)).all()):
        raise ValueError(f"boxes must be (N, 4) corners from 0 to 1, got {tuple(boxes.shape)} up to {boxes.max():g}")
    points = boxes.double().cpu()
    different = _different(points, k, "boxes")
    drawn = torch.randperm(len(different), generator=torch.Generator().manual_seed(seed))[:k]
    centres = _refine(points, different[drawn], iterations, lambda first, second: -torch.cdist(first, second))
    return centres[(centres[:, 2:] - centres[:, :2]).prod(1).argsort(stable=True)]


def _refine(
    points: Tensor, centres: Tensor, iterations: int, likeness: Callable[[Tensor, Tensor], Tensor] = shape_iou
) -> Tensor:
    """Rounds of k-means; returns the best centres on the way, which may be those it began with."""
    best, highest = centres, -torch.inf
    before = None
    for _ in range(iterations):
        nearest = likeness(points, centres).max(1)
        if (score := nearest.values.mean().item()) > highest:
            best, highest = centres, score
        if before is not None and torch.equal(before, nearest.indices):
            break
        before = nearest.indices
        counts = before.bincount(minlength=len(centres))[:, None]
        sums = torch.zeros_like(centres).index_add_(0, before, points)
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return best


def _different(points: Tensor, k: int, what: str) -> Tensor:
    """The different rows, of which there must be k."""
    if not isinstance(k, int) or isinstance(k, bool):
        raise TypeError(f"k must be an int, got {k!r}")
    different = points.unique(dim=0)
    if not 1 <= k <= len(different):
        raise ValueError(f"k must be between 1 and the {len(different)} different {what}, got {k}")
    return different


def _sizes(boxes: Tensor) -> Tensor:
    if not isinstance(boxes, Tensor) or not boxes.is_floating_point():
        found = boxes.dtype if isinstance(boxes, Tensor) else type(boxes).__name__
        raise TypeError(f"boxes must be a floating tensor, got {found}")
    if boxes.dim() != 2 or boxes.shape[1] not in (2, 4) or not len(boxes):
        raise ValueError(f"boxes must be (N, 2) sizes or (N, 4) corners, N at least 1, got {tuple(boxes.shape)}")
    boxes = boxes.double()
    sizes = boxes if boxes.shape[1] == 2 else boxes[:, 2:] - boxes[:, :2]
    good = sizes.isfinite().all(1) & (sizes > 0).all(1)
    if not bool(good.all()):
        wrong = int((~good).nonzero()[0])
        raise ValueError(f"box {wrong} must be finite and have an area, got {boxes[wrong].tolist()}")
    return sizes
