"""What augmentation draws: numbers of torch's default generator."""

from __future__ import annotations

import torch


def probability(p: float) -> float:
    if not 0 <= p <= 1:
        raise ValueError(f"p must be from 0 to 1, got {p}")
    return p


def happens(p: float) -> bool:
    return torch.rand(()).item() < p


def uniform(least: float, largest: float) -> float:
    return least + (largest - least) * torch.rand(()).item()


def below(end: int) -> int:
    return int(torch.randint(end, ()))
