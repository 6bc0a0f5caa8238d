"""Which anchors and regions take part in a step of training. Random ones draw from a generator, or PyTorch's own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def sample_balanced(
    labels: Tensor, size: int, positive_fraction: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """At most ``size`` of an image's candidates, at most so large a part of them positives: their indices.

    Ren et al., Faster R-CNN, NIPS 2015, section 3.1.3 (256, 1/2); Girshick, Fast R-CNN, section 2.3 (64, 1/4).

    Args:
        labels: (A), positive where it is at least 1, negative where it is 0, and else not to be taken.

    Returns:
        int64 indices of positives and of negatives, which fill up what positives leave, each in ascending order.
        Deterministic for the state of the generator.
    """
    positives, negatives = (labels >= 1).nonzero()[:, 0], (labels == 0).nonzero()[:, 0]
    positives = _choose(positives, int(size * positive_fraction), generator)
    return positives, _choose(negatives, size - len(positives), generator)


def sample_regions(
    labels: Sequence[Tensor],
    size: int = 128,
    positive_fraction: float = 0.25,
    images: int | None = None,
    generator: torch.Generator | None = None,
) -> list[Tensor]:
    """A batch of regions of interest: indices of them for each image, in ascending order.

    Region-wise, all images' regions are one pool, as R-CNN and SPP-net train: a batch needs the features of nearly as
    many images as it has regions. Hierarchical sampling first draws a few images and then as many regions of each
    (Girshick, Fast R-CNN, ICCV 2015, section 2.3: 2 images, 64 regions of each).

    Args:
        labels: (Ri) of every image, as for :func:`sample_balanced`.
        size: regions of the batch.
        positive_fraction: how many of them are positives at most.
        images: how many images hierarchical sampling draws; None samples region-wise.

    Raises:
        ValueError: ``images`` that are not between 1 and the number of images, or do not divide ``size``.
    """
    if images is None:
        chosen = torch.cat(sample_balanced(torch.cat(list(labels)), size, positive_fraction, generator)).sort().values
        ends = torch.tensor([len(each) for each in labels], device=chosen.device).cumsum(0)
        image = torch.searchsorted(ends, chosen, right=True)
        return [chosen[image == i] - (ends[i - 1] if i else 0) for i in range(len(labels))]
    if not 1 <= images <= len(labels) or size % images:
        raise ValueError(f"images must be 1 to {len(labels)} and divide {size}, got {images}")
    drawn = set(torch.randperm(len(labels), generator=generator)[:images].tolist())
    sizes = [size // images if index in drawn else 0 for index in range(len(labels))]
    chosen_of = (sample_balanced(*each, positive_fraction, generator) for each in zip(labels, sizes, strict=True))
    return [torch.cat(chosen).sort().values for chosen in chosen_of]


def hard_negatives(loss: Tensor, positive: Tensor, ratio: float = 3.0) -> Tensor:
    """The negatives of the largest loss, ``ratio`` times as many as an image has positives.

    Liu et al., SSD, ECCV 2016, section 2.2, "hard negative mining".

    Args:
        loss: (N, A) of all default boxes.
        positive: (N, A) bool.

    Returns:
        (N, A) bool. Deterministic: the first of equal losses are taken.
    """
    order = loss.detach().masked_fill(positive, -torch.inf).argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(order.size(1), device=order.device).expand_as(order))
    return (rank < ratio * positive.sum(1, keepdim=True)) & ~positive


def _choose(candidates: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    permutation = torch.randperm(len(candidates), generator=generator, device=candidates.device)
    return candidates[permutation[:count]].sort().values
