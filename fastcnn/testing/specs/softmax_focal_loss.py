"""The row of ``softmax_focal_loss``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcnn import ops
from fastcnn.testing.spec import Case, OpSpec, normal, reference_of


def _case(
    name: str,
    *shape: int,
    weighted: bool = False,
    ignored: float = 0.2,
    **kwargs,
) -> Case:
    def make(dtype, device, g):
        size = (shape[0], *shape[2:])
        target = torch.randint(shape[1], size, generator=g)
        drop = torch.rand(size, generator=g) < ignored
        drop.view(-1)[:1] = False  # The mean over nothing is NaN.
        target = torch.where(drop, kwargs.get("ignore_index", -100), target)
        alpha = torch.rand(shape[1], generator=g).to(device, dtype) if weighted else None
        x = 2 * normal(*shape)(dtype, device, g)
        return x, target.to(device), alpha

    return Case(name, make, kwargs, images=len(shape) == 4)


def composite(
    inputs: Tensor,
    targets: Tensor,
    alpha: Tensor | None = None,
    gamma: float = 2.0,
    reduction: str = "none",
    ignore_index: int = -100,
) -> Tensor:
    """The usual expression over ``F.cross_entropy``."""
    entropy = F.cross_entropy(inputs, targets, reduction="none", ignore_index=ignore_index)
    loss = (1 - torch.exp(-entropy)) ** gamma * entropy
    if alpha is not None:
        loss = alpha[targets.clamp(0, inputs.size(1) - 1)] * loss  # Where ignored, the loss is 0.
    if reduction == "mean":
        return loss.sum() / (targets != ignore_index).sum()
    return loss if reduction == "none" else loss.sum()


def _overload(x, targets, alpha=None, gamma=2.0, reduction="none", ignore_index=-100):
    code = ("none", "mean", "sum").index(reduction)
    return torch.ops.fastcnn.softmax_focal_loss.default, (x, targets, alpha, gamma, code, ignore_index)


SPEC = OpSpec(
    name="softmax_focal_loss",
    function=ops.softmax_focal_loss,
    reference=reference_of(ops.softmax_focal_loss),
    cases=(
        _case("4d", 2, 5, 7, 9),
        _case("4d, weights", 2, 19, 5, 5, weighted=True),
        _case("4d, mean", 3, 3, 4, 5, weighted=True, reduction="mean", gamma=1.0),
        _case("4d, sum of several blocks", 1, 4, 23, 31, reduction="sum"),
        _case("rows", 37, 19, weighted=True),
        _case("rows, mean", 70, 80, reduction="mean"),
        _case("rows, sum", 33, 21, reduction="sum", gamma=0.0),
        _case("rows, several blocks", 700, 6),
        _case("rows, two classes", 21, 2, gamma=1.5),
        _case("rows, one class", 5, 1, gamma=0.5),
        _case("rows, gamma 3", 9, 33, gamma=3.0),
        _case("rows, a thousand classes", 70, 1000),
        _case("positions and classes", 2, 7, 11),
        _case("5d", 1, 3, 2, 3, 5, ignore_index=255, weighted=True),
        _case("no rows", 0, 5),
        _case("no positions", 2, 5, 0, 3),
    ),
    layers=(
        _case("detection 100000x81, sum", 100_000, 81, ignored=0, reduction="sum"),
        _case("imagenet 256x1000, mean", 256, 1000, ignored=0, reduction="mean"),
        _case("cityscapes 4x19x256x512, mean", 4, 19, 256, 512, reduction="mean", ignored=0.05),
        _case("cityscapes 4x19x256x512, weights", 4, 19, 256, 512, weighted=True, ignored=0.05),
        _case("two classes 4x2x512x512, mean", 4, 2, 512, 512, ignored=0, reduction="mean"),
        _case("cifar 128x10, mean", 128, 10, ignored=0, reduction="mean"),
    ),
    overload=_overload,
    gradgrad=True,
    autocast="float32",
    peer={"torch": composite},
    reduction=4,
)
