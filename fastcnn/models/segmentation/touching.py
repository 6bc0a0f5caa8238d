"""Weights of pixels that make a network learn the gaps between touching cells."""

from __future__ import annotations

import torch
from torch import Tensor


def weight_map(
    labels: Tensor, w0: float = 10.0, sigma: float = 5.0, class_weights: tuple[float, float] | None = None
) -> Tensor:
    """``w(x) = w_c(x) + w0 * exp(-(d1 + d2)^2 / (2 sigma^2))``: float32 (H, W), to multiply the loss by.

    d1 and d2 are the distances in pixels to the nearest cell and to the one after it, between pixels' centres. The
    second term is of background pixels alone: cells are not what is to be separated. Deterministic. Source: Ronneberger
    et al., U-Net, MICCAI 2015, equation 2.

    Args:
        labels: integers (H, W): 0 is background, each other value a cell.
        w0, sigma: of the paper.
        class_weights: w_c of background and cells; default: what gives both the same sum and a mean of 1, which is 1
            where there is only one of them.

    Raises:
        ValueError: labels of another shape or dtype, or a ``sigma`` that is not positive.
    """
    if labels.dim() != 2 or labels.is_floating_point():
        raise ValueError(f"labels must be integers (H, W), got {labels.dtype} {tuple(labels.shape)}")
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    inside = labels != 0
    shares = [1 - inside.double().mean().item(), inside.double().mean().item()]
    balanced = [1 / (2 * share) if 0 < share < 1 else 1.0 for share in shares]
    background, cell = balanced if class_weights is None else class_weights
    weights = torch.where(inside, float(cell), float(background)).double()
    cells = labels.unique()
    cells = cells[cells != 0]
    if len(cells) > 1:
        nearest = torch.full((2, *labels.shape), torch.inf, dtype=torch.float64, device=labels.device)
        for each in cells:
            both = torch.cat((nearest, _squared_distance(labels == each)[None]))
            nearest = both.topk(2, 0, largest=False).values
        term = w0 * torch.exp(-nearest.sqrt().sum(0).square() / (2 * sigma**2))
        weights += term.masked_fill(inside, 0.0)
    return weights.float()


def _squared_distance(mask: Tensor) -> Tensor:
    """To the nearest pixel of the mask, exactly: the least over a column first, then over each row of these."""
    cost = torch.where(mask, 0.0, torch.inf).double()
    for _ in range(2):
        at = torch.arange(cost.shape[0], dtype=torch.float64, device=mask.device)
        steps = (at[:, None] - at).square()
        # Column by column: all at once would take the cube of the side.
        cost = torch.stack([(steps + column).amin(1) for column in cost.unbind(1)])
    return cost
