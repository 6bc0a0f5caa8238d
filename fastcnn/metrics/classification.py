"""How good labels are: the share of images whose label is not among a classifier's best k."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class TopK:
    """Top-k errors over all images: Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015.

    A class whose score equals the label's goes before it, and a NaN is the lowest of a label and the highest of
    another class, so that a classifier that gives all classes one score is always wrong. Deterministic.

    Args:
        ks: how many guesses, each from 1.

    Attributes:
        hits: int64, for each of ``ks`` the images whose label was guessed.
        count: of images.

    Raises:
        ValueError: no k, or one below 1.
    """

    def __init__(self, ks: Sequence[int] = (1, 5)) -> None:
        self.ks = tuple(ks)
        if not self.ks or min(self.ks) < 1:
            raise ValueError(f"ks must be at least 1, one or more, got {ks!r}")
        self.reset()

    def reset(self) -> None:
        """Forgets all images."""
        self.hits, self.count = torch.zeros(len(self.ks), dtype=torch.int64), 0

    def update(self, scores: Tensor, target: Tensor) -> None:
        """Adds images: scores (N, num_classes), logits or probabilities, and integer labels (N).

        Raises:
            TypeError: floating labels.
            ValueError: other shapes, a label that is out of range, or more guesses than classes.
        """
        if target.is_floating_point():
            raise TypeError(f"target must be integers, got {target.dtype}")
        if scores.dim() != 2 or target.shape != scores.shape[:1]:
            shapes = f"{tuple(scores.shape)} and {tuple(target.shape)}"
            raise ValueError(f"scores and target must be (N, num_classes) and (N,), got {shapes}")
        classes = scores.size(1)
        if max(self.ks) > classes:
            raise ValueError(f"the best {max(self.ks)} are wanted, of {classes} classes")
        if bool(((target < 0) | (target >= classes)).any()):
            raise ValueError(f"labels must be from 0 to {classes - 1}, got {target.tolist()}")
        # Written so that what is compared with a NaN goes before the label; the label itself is one of them.
        before = (~(scores < scores.gather(1, target.long()[:, None]))).sum(1) - 1
        self.hits += torch.stack([(before < k).sum() for k in self.ks]).cpu()
        self.count += len(target)

    def merge(self, *others: TopK) -> None:
        """Adds what others have seen, those of other processes say.

        Raises:
            ValueError: other ``ks``.
        """
        for other in others:
            if other.ks != self.ks:
                raise ValueError(f"errors of the best {self.ks} and of the best {other.ks} do not merge")
            self.hits, self.count = self.hits + other.hits, self.count + other.count

    def compute(self) -> dict[str, float]:
        """``{"top1_error": ..., "top5_error": ...}``, from 0 to 1; NaN without an image."""
        shares = 1 - self.hits.double() / self.count
        return {f"top{k}_error": share for k, share in zip(self.ks, shares.tolist(), strict=True)}


def topk_error(scores: Tensor, target: Tensor, k: int = 1) -> float:
    """The share of images (N) whose label is not among the best k of their scores (N, num_classes); see :class:`TopK`,
    arguments and what is raised among it."""
    metric = TopK((k,))
    metric.update(scores, target)
    return metric.compute()[f"top{k}_error"]
