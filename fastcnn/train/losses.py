"""Losses of classifiers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def classification_loss(
    outputs: Tensor | Sequence[Tensor],
    target: Tensor,
    label_smoothing: float = 0.0,
    auxiliary_weight: float = 0.3,
) -> Tensor:
    """Cross-entropy of what a classifier gives, in training mode or in eval mode: () of at least float32.

    Of the auxiliary classifiers that training mode brings, each counts ``auxiliary_weight``: 0.3 is GoogLeNet's
    (Szegedy et al., CVPR 2015, section 5). With smoothing the target is ``1 - label_smoothing`` of the label and the
    rest of all classes alike (Szegedy et al., Rethinking the Inception Architecture, CVPR 2016, section 7, with 0.1).
    Deterministic on a CPU.

    Args:
        outputs: logits (N, num_classes), or (logits, first auxiliary logits, ...) as :class:`ConvNet` has it.
        target: int64 labels (N), or probabilities (N, num_classes), those of mixed images say.
        label_smoothing: from 0 to 1.
        auxiliary_weight: not negative.

    Raises:
        ValueError: no logits, a smoothing out of range, or a negative weight.
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be from 0 to 1, got {label_smoothing}")
    if not auxiliary_weight >= 0:
        raise ValueError(f"auxiliary_weight must not be negative, got {auxiliary_weight}")
    logits = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
    if not logits:
        raise ValueError("classification_loss takes logits, or (logits, auxiliary logits, ...), got none")
    losses = [
        F.cross_entropy(
            each.to(torch.promote_types(each.dtype, torch.float32)), target, label_smoothing=label_smoothing
        )
        for each in logits
    ]
    return losses[0] + auxiliary_weight * sum(losses[1:], torch.zeros_like(losses[0]))
