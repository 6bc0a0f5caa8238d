"""Low-rank factors of linear layers by singular value decomposition."""

from __future__ import annotations

import math

import torch
from torch import nn


def factorize_linear(layer: nn.Linear, *, rank: int | None = None, compression: float | None = None) -> nn.Sequential:
    """A linear layer as two with fewer weights, by the singular value decomposition W = U S V^T cut off at a rank.

    The first is S V^T, without a bias, from ``in_features`` to ``rank``; the second U, with the layer's bias. Of all
    pairs of that rank it is the nearest: the spectral norm of what is lost is the first singular value dropped, its
    Frobenius norm the root of the sum of squares of those dropped. Dtype and device are the layer's (16-bit types are
    decomposed in float32), and so is ``training``. On the meta device, of shapes alone. Deterministic on a CPU. Time
    and memory are those of :func:`torch.linalg.svd`: a minute or more for AlexNet's first linear layer.

    Args:
        rank: of the product, from 1 to that of a full decomposition.
        compression: in place of a rank, how many times fewer weights, biases not counted: the largest rank that
            gives it.

    Raises:
        TypeError: no linear layer.
        ValueError: not one of rank and compression; one out of range; NaN or infinity.

    Source: Denton et al., Exploiting Linear Structure Within Convolutional Networks for Efficient Evaluation, 2014,
    section 3.2; Girshick, Fast R-CNN, 2015, section 3.1.
    """
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"a linear layer is needed, got {type(layer).__name__}")
    weight, bias = layer.weight.detach(), layer.bias
    ins, outs = layer.in_features, layer.out_features
    if (rank is None) == (compression is None):
        raise ValueError(f"give one of rank and compression, got {rank!r} and {compression!r}")
    if compression is not None:
        if not 0 < compression < math.inf:
            raise ValueError(f"compression must be positive, got {compression!r}")
        rank = min(int(weight.numel() / (compression * (ins + outs))), ins, outs)
        if rank < 1:
            raise ValueError(f"{outs}x{ins} weights cannot be made {compression:g} times fewer: rank 1 is more")
    if type(rank) is not int or not 1 <= rank <= min(ins, outs):
        raise ValueError(f"rank of {outs}x{ins} weights must be from 1 to {min(ins, outs)}, got {rank!r}")
    if not weight.is_meta and not torch.isfinite(weight).all():
        raise ValueError("the layer's weight holds NaN or infinity")
    u, s, vt = torch.linalg.svd(weight.to(torch.promote_types(weight.dtype, torch.float32)), full_matrices=False)
    factory = {"device": weight.device, "dtype": weight.dtype}
    first = nn.Linear(ins, rank, bias=False, **factory)  # type: ignore[arg-type]
    second = nn.Linear(rank, outs, bias=bias is not None, **factory)  # type: ignore[arg-type]
    with torch.no_grad():
        first.weight.copy_(s[:rank, None] * vt[:rank])
        second.weight.copy_(u[:, :rank])
        if bias is not None:
            second.bias.copy_(bias)
    return nn.Sequential(first, second).train(layer.training)
