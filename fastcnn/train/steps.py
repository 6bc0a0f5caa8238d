"""What a recipe says of a step: the optimiser, its rate, and how gradients are cut down."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from fastcnn.train.optimizers import RMSprop, reduce_on_plateau
from fastcnn.train.recipes import Recipe


def make_optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Decays matrices and kernels, not norms and biases."""
    learnt = [parameter for parameter in net.parameters() if parameter.requires_grad]
    groups = [
        {"params": [each for each in learnt if each.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [each for each in learnt if each.dim() <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, recipe.lr, momentum=recipe.momentum)
    if recipe.optimizer == "rmsprop":
        return RMSprop(groups, recipe.lr, momentum=recipe.momentum)
    return torch.optim.AdamW(groups, recipe.lr)


def rate(step: int, recipe: Recipe, errors: Sequence[float] = ()) -> float:
    """The share of the highest rate at a step from 0: a line up, then what ``recipe.schedule`` says.

    Args:
        errors: of all checks before, for the schedule "plateau".
    """
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    if recipe.schedule == "plateau":
        return _on_plateau(errors, recipe.patience)
    if recipe.schedule == "step":
        return 0.1 ** sum(step >= share * recipe.steps for share in recipe.drops())
    done = (step - recipe.warmup) / max(recipe.steps - recipe.warmup, 1)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def _on_plateau(errors: Sequence[float], patience: int) -> float:
    """Of the checks alone, so that a run that goes on needs no state."""
    share = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1.0)
    schedule = reduce_on_plateau(share, patience)
    for error in errors:
        schedule.step(error)
    return float(share.param_groups[0]["lr"])


def clip(parameters: Sequence[nn.Parameter], recipe: Recipe, lr: float) -> None:
    """Cuts gradients down, as ``recipe.adjustable_clip`` and ``recipe.clip`` say, in this order."""
    if recipe.adjustable_clip and lr:
        nn.utils.clip_grad_value_(parameters, recipe.adjustable_clip / lr)
    if recipe.clip:
        nn.utils.clip_grad_norm_(parameters, recipe.clip)
