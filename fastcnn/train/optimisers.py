"""Optimisers of a recipe, and the rate at each step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from fastcnn.train.recipes import CUT, CUTS, Recipe


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
        return torch.optim.RMSprop(groups, recipe.lr, alpha=0.9, eps=1.0, momentum=recipe.momentum)
    return torch.optim.AdamW(groups, recipe.lr)


def rate(step: int, recipe: Recipe, cuts: int = 0) -> float:
    """The share of the highest rate at a step from 0: a line up, then what ``recipe.schedule`` says.

    Args:
        cuts: of the schedule "plateau", see :func:`count_cuts`.
    """
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    if recipe.schedule == "plateau":
        return CUT**cuts
    if recipe.schedule == "step":
        return CUT ** sum(step >= share * recipe.steps for share in recipe.drops())
    done = (step - recipe.warmup) / max(recipe.steps - recipe.warmup, 1)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def count_cuts(figures: Sequence[float], patience: int, rises: bool = True) -> int:
    """How often the schedule "plateau" has cut the rate after these figures of checks, at most three times.

    A cut is made after ``patience`` checks in a row that were no better than the best, which then count anew.
    """
    best, waited, cuts = -math.inf, 0, 0
    for figure in figures:
        figure = figure if rises else -figure
        if figure > best:
            best, waited = figure, 0
        else:
            waited += 1
        if waited == patience:
            waited, cuts = 0, min(cuts + 1, CUTS)
    return cuts


def clip(parameters: Sequence[nn.Parameter], recipe: Recipe, lr: float) -> None:
    """Cuts gradients down, as ``recipe.adjustable_clip`` and ``recipe.clip`` say, in this order."""
    if recipe.adjustable_clip and lr:
        nn.utils.clip_grad_value_(parameters, recipe.adjustable_clip / lr)
    if recipe.clip:
        nn.utils.clip_grad_norm_(parameters, recipe.clip)
