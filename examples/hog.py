"""Histograms of oriented gradients: as loops, as a convolutional network, and as a detector that slides a template.

The features are those of Dalal and Triggs (CVPR 2005) in the form lectures draw them as layers: edge filters, gated
directional filters, sum pooling, local response normalisation. A linear SVM learns a template, which is slid over a
pyramid of features, and local maxima are what it finds. The paper's pedestrians cannot be had offline: the template, of
8 x 8 cells, is of the 100 faces that scikit-image has, and is slid over its picture of an astronaut (``pip install
'fastcnn[bench,examples]'``). Run: ``python examples/hog.py``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcnn import ops
from fastcnn.models.detection.yolo_boxes import box_iou

DIRECTIONS, CELL = 18, 3
# Where the first bin begins, in degrees. The tangent of 7.5 + 20 k degrees is irrational, so that no gradient of whole
# pixels is between two bins, and both versions agree.
TURN = 7.5
EPSILON = 1.0  # Of squares of a cell's sum, of pixels in [0, 1]: cells without edges are not blown up.
FACE = (175, 70, 280, 185)  # Of the astronaut, drawn by hand.


def hog_directly(image: np.ndarray, cell: int = CELL) -> np.ndarray:
    """(H, W) in [0, 1] to (18, H // cell, W // cell), pixel by pixel; outside are zeros."""
    padded = np.pad(np.asarray(image, np.float64), 1)
    rows, columns = image.shape[0] // cell, image.shape[1] // cell
    cells = np.zeros((DIRECTIONS, rows, columns))
    for y in range(rows * cell):
        for x in range(columns * cell):
            across = padded[y + 1, x + 2] - padded[y + 1, x]
            down = padded[y + 2, x + 1] - padded[y, x + 1]
            angle = math.degrees(math.atan2(down, across)) - TURN
            cells[int(angle % 360 // (360 / DIRECTIONS)), y // cell, x // cell] += math.hypot(across, down)
    return cells / np.sqrt(EPSILON + (cells**2).sum(0))


class HOG(nn.Module):
    """The same as layers: (N, 1, H, W) to (N, 18, H // cell, W // cell)."""

    def __init__(self, cell: int = CELL) -> None:
        super().__init__()
        self.cell = cell
        edges = torch.zeros(2, 1, 3, 3)
        edges[0, 0, 1], edges[1, 0, :, 1] = torch.tensor([-1.0, 0, 1]), torch.tensor([-1.0, 0, 1])
        middles = torch.deg2rad(TURN + 360 / DIRECTIONS * (torch.arange(DIRECTIONS, dtype=torch.float64) + 0.5))
        self.register_buffer("edges", edges)
        self.register_buffer("directions", torch.stack([middles.cos(), middles.sin()], 1)[:, :, None, None])

    def forward(self, images: Tensor) -> Tensor:
        gradient = F.conv2d(images, self.edges.to(images), padding=1)
        along = F.conv2d(gradient, self.directions.to(images))
        # The gate opens for the direction that is nearest; what passes is the gradient's length.
        gate = F.one_hot(along.argmax(1), DIRECTIONS).movedim(-1, 1)
        votes = gate * gradient.square().sum(1, keepdim=True).sqrt()
        cells = F.avg_pool2d(votes, self.cell, divisor_override=1)
        # A window over all channels on both sides, with alpha of the sum, is the length of the histogram.
        size = 2 * DIRECTIONS
        return ops.local_response_norm(cells, size, alpha=float(size), beta=0.5, k=EPSILON)


def train_template(features: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """A linear SVM as a filter (1, 18, h, w) and a bias: positive on what has label 1."""
    from sklearn.svm import LinearSVC

    svm = LinearSVC(C=0.05, random_state=0).fit(features.flatten(1).numpy(), labels.numpy())
    return torch.from_numpy(svm.coef_).to(features).view(1, *features.shape[1:]), float(svm.intercept_[0])


def local_maxima(scores: Tensor, threshold: float) -> Tensor:
    """(K, 2) rows and columns of (H, W) that are over the threshold, and highest among their eight neighbours."""
    highest = F.max_pool2d(scores[None, None], 3, 1, 1)[0, 0]
    return ((scores == highest) & (scores > threshold)).nonzero()


def detect(
    image: Tensor, template: Tensor, bias: float, *, cell: int = CELL, scales: int = 10, threshold: float = 0.0
) -> list[tuple[float, tuple[int, int, int, int]]]:
    """Scores and corners (x1, y1, x2, y2) in an image (1, H, W), the best first; levels shrink by 2^(1/4)."""
    found, hog = [], HOG(cell)
    height, width = image.shape[1:]
    for level in range(scales):
        factor = 2 ** (-level / 4)
        size = (round(height * factor), round(width * factor))
        if min(size[0] // cell - template.size(2), size[1] // cell - template.size(3)) < 0:
            break
        smaller = F.interpolate(image[None], size, mode="bilinear", antialias=True, align_corners=False)
        scores = F.conv2d(hog(smaller), template)[0, 0] + bias
        for row, column in local_maxima(scores, threshold).tolist():
            corners = (column, row, column + template.size(3), row + template.size(2))
            box = tuple(round(at * cell / factor) for at in corners)
            found.append((scores[row, column].item(), box))
    keep = ops.nms(torch.tensor([b for _, b in found]).float(), torch.tensor([s for s, _ in found]), 0.3)
    return [found[index] for index in keep.tolist()] if found else []


def faces() -> tuple[Tensor, Tensor]:
    """scikit-image's 100 faces of Labeled Faces in the Wild and 100 other pieces, (200, 1, 25, 25), and labels 1, 0."""
    images = torch.from_numpy(_skimage().lfw_subset()).float()[:, None]
    return images, (torch.arange(200) < 100).long()


def _skimage() -> Any:
    try:
        from skimage import data
    except ImportError as error:
        raise SystemExit("this example needs scikit-image: pip install 'fastcnn[bench,examples]'") from error
    return data


def grey(pixels: np.ndarray) -> Tensor:
    """(H, W, 3) or (H, W) of bytes to (1, H, W) in [0, 1]."""
    image = torch.from_numpy(np.ascontiguousarray(pixels)).float() / 255
    return (image @ torch.tensor([0.299, 0.587, 0.114]) if image.dim() == 3 else image)[None]


def main() -> int:
    """Trains and slides; returns which of the boxes it finds, from the best on, is the first on the face."""
    data = _skimage()
    images, labels = faces()
    hog = HOG()
    direct = hog_directly(images[0, 0].numpy())
    error = np.abs(hog(images[:1])[0].numpy() - direct).max()
    print(f"18 directions, {direct.shape[1]} x {direct.shape[2]} cells; layers and loops differ by {error:.1e}")
    images, labels = torch.cat([images, images.flip(-1)]), labels.repeat(2)
    for place in ("brick", "grass", "gravel", "coffee", "chelsea", "rocket"):  # Without a face: for the other class.
        image = grey(getattr(data, place)())
        for scale in (1, 2, 4):
            side = 25 * scale
            generator = torch.Generator().manual_seed(scale)
            corners = torch.randint(0, min(image.shape[1:]) - side, (60, 2), generator=generator).tolist()
            pieces = torch.stack([image[:, y : y + side, x : x + side] for y, x in corners])
            images = torch.cat([images, F.avg_pool2d(pieces, scale)])
    labels = F.pad(labels, (0, len(images) - len(labels)))
    template, bias = train_template(hog(images), labels)
    right = ((F.conv2d(hog(images), template).flatten() + bias > 0) == (labels > 0)).double().mean()
    print(f"template of {tuple(template.shape[2:])} cells from {len(images)} images, {right:.1%} of them right")
    found = detect(grey(data.astronaut()), template, bias)
    overlaps = box_iou(torch.tensor(FACE).float(), torch.tensor([box for _, box in found]).float())
    on_face = (overlaps > 0.5).nonzero().flatten().tolist()
    rank = on_face[0] + 1 if on_face else len(found) + 1
    print(f"the astronaut: {len(found)} boxes in all scales, the first on the face is number {rank}")
    print("(100 faces of 25 x 25 pixels are few: without the thousands of the paper, the suit looks like some, too)")
    return rank


if __name__ == "__main__":
    main()
