"""The row of ``sigmoid_focal_loss``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcnn import ops
from fastcnn.testing.spec import Case, OpSpec, normal, reference_of


def _dense(name: str, *shape: int, soft: bool = False, scale: float = 3, **kwargs) -> Case:
    def make(dtype, device, g):
        x = scale * normal(*shape)(dtype, device, g)
        y = torch.rand(shape, generator=g, dtype=torch.float64)
        return x, (y if soft else y < 0.2).to(device, dtype)

    return Case(name, make, kwargs, images=len(shape) == 4)


def _classes(name: str, *shape: int, **kwargs) -> Case:
    def make(dtype, device, g):
        index = torch.randint(-1, max(shape[-1], 0), shape[:-1], generator=g)
        return 3 * normal(*shape)(dtype, device, g), index.to(device)

    return Case(name, make, kwargs, images=len(shape) == 4)


def composite(
    inputs: Tensor,
    targets: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    reduction: str = "none",
    ignore_index: int = -100,
) -> Tensor:
    """As torchvision computes it, in plain PyTorch; class indices through ``F.one_hot``."""
    y, valid = targets, None
    if not targets.is_floating_point():
        valid = (targets != ignore_index).unsqueeze(-1)
        hot = F.one_hot(torch.where(targets < 0, inputs.size(-1), targets), inputs.size(-1) + 1)
        y = hot[..., :-1].to(inputs.dtype)
    p = torch.sigmoid(inputs)
    p_t = p * y + (1 - p) * (1 - y)
    loss = F.binary_cross_entropy_with_logits(inputs, y, reduction="none") * (1 - p_t) ** gamma
    if alpha >= 0:
        loss = (alpha * y + (1 - alpha) * (1 - y)) * loss
    if valid is not None and ignore_index == -1:  # Else no index of ours is ignored.
        loss = torch.where(valid, loss, 0)
        if reduction == "mean":
            return loss.sum() / (valid.sum() * inputs.size(-1))
    return loss if reduction == "none" else loss.mean() if reduction == "mean" else loss.sum()


def _overload(x, y, alpha=0.25, gamma=2.0, reduction="none", ignore_index=-100):
    code = ("none", "mean", "sum").index(reduction)
    return torch.ops.fastcnn.sigmoid_focal_loss.default, (x, y, alpha, gamma, code, ignore_index)


SPEC = OpSpec(
    name="sigmoid_focal_loss",
    function=ops.sigmoid_focal_loss,
    reference=reference_of(ops.sigmoid_focal_loss),
    cases=(
        _dense("hard", 2, 5, 7, 9),
        _dense("soft", 3, 19, 5, 3, soft=True, gamma=1.5, alpha=0.6),
        _dense("mean", 37, 80, reduction="mean", alpha=-1.0),
        _dense("sum", 2, 3, 11, 5, reduction="sum", gamma=1.0),
        _dense("gamma 0", 67, gamma=0.0),
        _dense("gamma 1/2", 67, gamma=0.5),
        _dense("gamma 3", 67, gamma=3.0, scale=1),
        _dense("several chunks", 2, 19, 33, 31),
        _dense("sum of several chunks", 70, 91, reduction="sum"),
        _dense("empty", 0, 3, 4, 4),
        _dense("scalar"),
        _classes("classes", 37, 19),
        _classes("classes, 4d", 2, 3, 5, 4, gamma=1.0),
        _classes("classes, mean", 9, 80, reduction="mean", ignore_index=-1),
        _classes("classes, sum", 33, 21, reduction="sum", gamma=0.0),
        _classes("classes, several chunks", 40, 97, ignore_index=-1),
        _classes("classes, one", 21, 1),
        _classes("classes, wider than a chunk", 2, 2500),
        _classes("classes, no rows", 0, 5),
        Case("no classes", lambda d, device, g: (normal(3, 0)(d, device, g), torch.full((3,), -1, device=device))),
    ),
    layers=(
        _dense("retinanet 100000x80", 100_000, 80),
        _dense("retinanet 100000x80, mean", 100_000, 80, reduction="mean"),
        _dense("retinanet 100000x80, sum", 100_000, 80, reduction="sum"),
        _classes("retinanet 100000x80, classes", 100_000, 80),
        _classes("retinanet 100000x80, classes, sum", 100_000, 80, reduction="sum"),
        _dense("segmentation 8x1x256x256, mean", 8, 1, 256, 256, reduction="mean"),
        _dense("soft targets 20000x91, gamma 1.5, sum", 20_000, 91, soft=True, gamma=1.5, reduction="sum"),
        _dense("200x20, sum", 200, 20, reduction="sum"),
    ),
    overload=_overload,
    gradgrad=True,
    autocast="float32",
    peer={"torch": composite},
    reduction=4,
)
