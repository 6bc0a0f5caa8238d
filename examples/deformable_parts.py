"""A deformable part model: a root template, parts at twice its resolution, and springs between them.

After Felzenszwalb et al. (PAMI 2010, sections 3 and 5.2). The score of a place is the root's dot product there, plus
for each part the best of (its dot product - the cost of how far it moved), which a distance transform finds for all
places at once. Root and parts are templates of examples/hog.py, on scikit-image's faces; the parts are where a template
of twice the resolution has most energy, and their springs are given, not learnt. Run: ``python
examples/deformable_parts.py`` (``pip install 'fastcnn[bench,examples]'``).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from hog import HOG, faces, train_template
from torch import Tensor
from torch.nn import functional as F


class Part(NamedTuple):
    """A filter (1, C, h, w), the row and column of its rest in cells from the root's corner, at twice the root's
    resolution, and the cost of a move (dy, dx): ``spring[0] * dy + spring[1] * dx + spring[2] * dy^2 + spring[3] *
    dx^2``."""

    filter: Tensor
    anchor: tuple[int, int]
    spring: tuple[float, float, float, float] = (0.0, 0.0, 0.05, 0.05)


def spread(scores: Tensor, linear: float, square: float) -> tuple[Tensor, Tensor]:
    """Along the last axis: at each place p the best of ``scores[q] - linear * (q - p) - square * (q - p)^2`` and its q.

    This is the generalised distance transform of Felzenszwalb and Huttenlocher, as all pairs of a short axis.
    """
    places = torch.arange(scores.size(-1))
    move = (places[None] - places[:, None]).to(scores.dtype)
    return (scores[..., None, :] - linear * move - square * move**2).max(-1)


def transform(scores: Tensor, spring: tuple[float, float, float, float]) -> tuple[Tensor, Tensor, Tensor]:
    """What a part adds where it would rest at each place of (H, W), and the row and column that it moves to there."""
    rows, from_rows = spread(scores.mT, spring[0], spring[2])
    best, columns = spread(rows.mT, spring[1], spring[3])
    return best, from_rows.mT.gather(1, columns), columns


def score(
    coarse: Tensor, fine: Tensor, root: Tensor, parts: list[Part], bias: float = 0.0
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Of all places of the root, and the rows and columns of each part in ``fine`` for them.

    Args:
        coarse, fine: features (1, C, H, W) and (1, C, 2 H, 2 W) of an image.
    """
    total = F.conv2d(coarse, root)[0, 0] + bias
    rows, columns = (2 * torch.arange(side) for side in total.shape)
    moved = []
    for part in parts:
        best, to_row, to_column = transform(F.conv2d(fine, part.filter)[0, 0], part.spring)
        rest = (rows[:, None] + part.anchor[0], columns + part.anchor[1])
        total = total + best[rest]
        moved.append((to_row[rest], to_column[rest]))
    return total, moved


def choose_parts(fine: Tensor, count: int, side: int) -> list[Part]:
    """Squares of a filter (1, C, H, W) of twice the root's resolution, each the one whose positive weights have most
    energy of what is left."""
    energy = fine.clamp(min=0).square().sum(1, keepdim=True)
    parts = []
    for _ in range(count):
        sums = F.avg_pool2d(energy, side, 1)[0, 0]
        row, column = divmod(int(sums.argmax()), sums.size(1))
        place = (..., slice(row, row + side), slice(column, column + side))
        parts.append(Part(fine[place] / count, (row, column)))
        energy[place] = 0
    return parts


def main(count: int = 4) -> tuple[float, float]:
    """Trains on half of the images; returns how many of the other half root and root with parts order rightly."""
    images, labels = faces()
    train = torch.arange(len(images)) % 2 == 0
    hog = HOG(5)
    coarse = hog(images)
    fine = hog(F.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False))
    root, bias = train_template(coarse[train], labels[train])
    large, _ = train_template(fine[train], labels[train])
    parts = choose_parts(large, count, 4)
    print(f"root of {tuple(root.shape[2:])} cells, {count} parts of 4 x 4 at {[part.anchor for part in parts]}")
    test = [index for index in range(len(images)) if not train[index]]
    alone = torch.stack([F.conv2d(coarse[i : i + 1], root).squeeze() + bias for i in test])
    whole = torch.stack([score(coarse[i : i + 1], fine[i : i + 1], root, parts, bias)[0].squeeze() for i in test])
    rates = tuple(_ordered(scores, labels[test]) for scores in (alone, whole))
    print(f"pairs of a face and another image, held out, in the right order: root {rates[0]:.2%}, parts {rates[1]:.2%}")
    return rates[0], rates[1]


def _ordered(scores: Tensor, labels: Tensor) -> float:
    """The area under the ROC curve."""
    return (scores[labels == 1][:, None] > scores[labels == 0]).double().mean().item()


if __name__ == "__main__":
    main()
