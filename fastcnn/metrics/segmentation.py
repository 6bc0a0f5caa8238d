"""How good maps of classes are: Long et al., Fully Convolutional Networks, CVPR 2015, section 5."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class SegmentationMetrics:
    """Pixel accuracy, mean accuracy, mean IU and frequency-weighted IU, of one confusion matrix over all images.

    With n_ij pixels of class i taken for j and t_i = sum_j n_ij, the IU (intersection over union) of a class is
    n_ii / (t_i + sum_j n_ji - n_ii). A class that no pixel is of and none was taken for has no IU and counts in no
    mean; one that no pixel is of but some were taken for has an IU of 0, which counts, and no accuracy, which does
    not. Deterministic: sums of whole numbers.

    Args:
        num_classes: labels 0 to ``num_classes - 1``, the background among them.
        ignore_index: of pixels that count neither way, whatever was predicted there; 255 is VOC's border.

    Attributes:
        matrix: int64 (num_classes, num_classes) on the CPU: rows are the truth, columns what was predicted.

    Raises:
        ValueError: no class, or an ``ignore_index`` that is one of them.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        if 0 <= ignore_index < num_classes:
            raise ValueError(f"ignore_index {ignore_index} is one of {num_classes} classes")
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.reset()

    def reset(self) -> None:
        """Forgets all images."""
        self.matrix = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Adds images.

        Args:
            prediction: labels, integers of the target's shape; or logits or probabilities, floating, with classes
                before the last two axes: (num_classes, H, W) or (N, num_classes, H, W). Of equal ones the first wins.
            target: labels (H, W) or (N, H, W), integers.

        Raises:
            TypeError: a floating target.
            ValueError: other shapes or numbers of classes, or a label that is out of range and not ignored.
        """
        if target.is_floating_point():
            raise TypeError(f"target must be integers, got {target.dtype}")
        if prediction.is_floating_point():
            if prediction.dim() < 3 or prediction.size(-3) != self.num_classes:
                shape = tuple(prediction.shape)
                raise ValueError(f"logits must be (N, {self.num_classes}, H, W) or without N, got {shape}")
            prediction = prediction.argmax(-3)
        if prediction.shape != target.shape:
            raise ValueError(
                f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} must be of one shape"
            )
        counts = target != self.ignore_index
        found, wanted = prediction[counts].long(), target[counts].long()
        for name, labels in (("prediction", found), ("target", wanted)):
            wrong = labels[(labels < 0) | (labels >= self.num_classes)]
            if wrong.numel():
                raise ValueError(f"{name} has the label {int(wrong[0])}, of {self.num_classes} classes")
        pairs = torch.bincount(wanted * self.num_classes + found, minlength=self.num_classes**2)
        self.matrix += pairs.reshape(self.num_classes, -1).cpu()

    def merge(self, *others: SegmentationMetrics) -> None:
        """Adds what others have seen, those of other processes say.

        Raises:
            ValueError: another number of classes.
        """
        for other in others:
            if other.num_classes != self.num_classes:
                raise ValueError(f"metrics of {self.num_classes} and of {other.num_classes} classes do not merge")
            self.matrix += other.matrix

    def compute(self) -> dict[str, Any]:
        """``pixel_accuracy``, ``mean_accuracy``, ``mean_iu`` and ``frequency_weighted_iu``, from 0 to 1, NaN without a
        pixel; and ``iu``, a dict of label to that of the class, NaN where it has none."""
        matrix = self.matrix.double()
        right, truth = matrix.diag(), matrix.sum(1)
        union = truth + matrix.sum(0) - right
        iu = right / union
        return {
            "pixel_accuracy": (right.sum() / truth.sum()).item(),
            "mean_accuracy": (right / truth).nanmean().item(),
            "mean_iu": iu.nanmean().item(),
            # A class of no pixel weighs nothing, also where it has no IU.
            "frequency_weighted_iu": ((truth * iu).nansum() / truth.sum()).item(),
            "iu": dict(enumerate(iu.tolist())),
        }
