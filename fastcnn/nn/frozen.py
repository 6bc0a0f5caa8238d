"""Batch norms for detectors, whose batches are too small for statistics of their own."""

from __future__ import annotations

from typing import Any

from torch import nn


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """A :class:`torch.nn.BatchNorm2d` of constants: never in training mode, and its parameters get no gradient.

    Keys are those of a batch norm; those of torchvision's layer of this name have no ``num_batches_tracked``. Source:
    He et al., Deep Residual Learning, CVPR 2016, appendix A, "the BN layers are fixed during training".
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FrozenBatchNorm2d:
        return super().train(False)


def set_norms(
    module: nn.Module, *, eps: float | None = None, momentum: float | None = None, frozen: bool = False
) -> None:
    """Changes all batch norms of ``module``, in place: what is None stays, ``frozen`` makes constants of them."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eps = norm.eps if eps is None else eps
            norm.momentum = norm.momentum if momentum is None else momentum
            if frozen:
                norm.__class__ = FrozenBatchNorm2d
                norm.requires_grad_(False).eval()
