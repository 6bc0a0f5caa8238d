"""What the papers trained with, where torch has none of it or leaves it open."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch


class RMSprop(torch.optim.Optimizer):
    """RMSProp of Szegedy et al., Rethinking the Inception Architecture, CVPR 2016, section 8, as TensorFlow has it.

    With v at first 1 and m at first 0, a step is ``v = decay * v + (1 - decay) * g**2``, ``m = momentum * m +
    lr * g / sqrt(v + eps)``, ``w = w - m``. ``torch.optim.RMSprop`` has ``eps`` outside the root and v at first 0, by
    which the first steps, and with an ``eps`` of 1 all of them, are others. Deterministic.

    Args:
        params: as of every optimiser of torch.
        lr: the paper's 0.045 is multiplied by 0.94 every two epochs.
        decay: of the mean square.
        eps: added to it.
        momentum: of the steps; 0.9 in Sandler et al., MobileNetV2, CVPR 2018, section 6.1.
        weight_decay: times the weight is added to the gradient.

    Raises:
        ValueError: a setting that is negative, or a decay or momentum of 1 or more.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.045,
        decay: float = 0.9,
        eps: float = 1.0,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        settings = {"lr": lr, "decay": decay, "eps": eps, "momentum": momentum, "weight_decay": weight_decay}
        for name, value in settings.items():
            if not 0 <= value < (1 if name in ("decay", "momentum") else float("inf")):
                raise ValueError(f"{name} must not be negative, decay and momentum below 1, got {name}={value}")
        super().__init__(params, settings)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of all parameters that have a gradient; returns what ``closure`` does."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._step(weight, weight.grad, group)
        return loss

    def _step(self, weight: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["square"] = torch.ones_like(weight)
        if group["weight_decay"]:
            gradient = gradient.add(weight, alpha=group["weight_decay"])
        state["square"].mul_(group["decay"]).addcmul_(gradient, gradient, value=1 - group["decay"])
        change = group["lr"] * gradient / (state["square"] + group["eps"]).sqrt()
        if group["momentum"]:
            before = state.setdefault("moved", torch.zeros_like(weight))
            change = before.mul_(group["momentum"]).add_(change)
        weight.sub_(change)


def reduce_on_plateau(
    optimizer: torch.optim.Optimizer, patience: int = 10, times: int = 3
) -> torch.optim.lr_scheduler.ReduceLROnPlateau:
    """Divides the rate by 10 when the error stops improving, at most ``times``: Krizhevsky et al., NIPS 2012, section
    5, who did so by hand "three times prior to termination"; with SGD of momentum 0.9 and weight decay 0.0005.

    Call ``step(error)`` of the result after every test on held-out images.

    Args:
        patience: tests without a lower error that are waited for.
        times: how often, from 1.

    Raises:
        ValueError: a patience that is negative, or ``times`` below 1.
    """
    if patience < 0 or times < 1:
        raise ValueError(f"patience must not be negative and times at least 1, got {patience} and {times}")
    least = [group["lr"] * 0.1**times for group in optimizer.param_groups]
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=patience, min_lr=least)
