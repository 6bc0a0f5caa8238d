"""Losses of embeddings on a sphere, and of networks that compete."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# The least square of a sine: a root has no finite slope at 0.
_LEAST = 1e-7


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def additive_angular_margin_logits(
    cosines: Tensor, target: Tensor, scale: float = 64.0, margin: float = 0.5, *, easy_margin: bool = False
) -> Tensor:
    """``scale * cos(theta + margin)`` of each sample's own class, ``scale * cos(theta)`` of all others.

    Beyond an angle of pi - margin, where cos(theta + margin) would grow again, a class gets
    ``cos(theta) - margin * sin(margin)``, which still falls (with a step down); with ``easy_margin`` the margin is for
    angles below pi / 2 alone. Margin 0 leaves scaled cosines. Half types, also under autocast, are computed and
    returned in float32. Gradients are finite everywhere, cosines of 1 and -1 among them, where the true slope is not:
    there a sine counts as constant. Deterministic on a CPU. Source: Deng et al., ArcFace, CVPR 2019, equation 3; the
    rule beyond pi - margin is the authors' code's.

    Args:
        cosines: (N, C), floating, in [-1, 1] up to rounding.
        target: (N), int64, in [0, C).
        scale: positive.
        margin: radians, in [0, pi / 2].

    Returns:
        (N, C), for a cross entropy with ``target``.

    Raises:
        ValueError: other shapes, or a scale or margin out of range.
        TypeError: another dtype.
    """
    if cosines.dim() != 2 or target.shape != cosines.shape[:1]:
        raise ValueError(f"expected (N, C) and (N), got {tuple(cosines.shape)} and {tuple(target.shape)}")
    if not cosines.is_floating_point() or target.dtype != torch.int64:
        raise TypeError(f"expected floating cosines and an int64 target, got {cosines.dtype} and {target.dtype}")
    _check_margin(scale, margin)
    cosines, index = _wide(cosines), target[:, None]
    own = cosines.gather(1, index)
    sine = (1 - own.square()).clamp(min=_LEAST).sqrt()
    turned = own * math.cos(margin) - sine * math.sin(margin)
    if easy_margin:
        turned = torch.where(own > 0, turned, own)
    else:
        turned = torch.where(own > -math.cos(margin), turned, own - margin * math.sin(margin))
    return scale * cosines.scatter(1, index, turned)


def _check_margin(scale: float, margin: float) -> None:
    if not scale > 0 or not 0 <= margin <= math.pi / 2:
        raise ValueError(f"scale must be positive and margin in [0, pi / 2], got {scale} and {margin}")


def additive_angular_margin_loss(
    cosines: Tensor,
    target: Tensor,
    scale: float = 64.0,
    margin: float = 0.5,
    *,
    easy_margin: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """The cross entropy of :func:`additive_angular_margin_logits`, whose arguments and errors it has.

    A scalar, or (N) where ``reduction`` is "none". With margin 0 the normalised softmax loss.
    """
    logits = additive_angular_margin_logits(cosines, target, scale, margin, easy_margin=easy_margin)
    return F.cross_entropy(logits, target, reduction=reduction)


class ArcMarginHead(nn.Module):
    """A centre for each class on the sphere of embeddings: training's last layer of a face network.

    ``forward(embeddings, target)``: (N, in_features), of any length, and (N) int64 to logits (N, num_classes) by
    :func:`additive_angular_margin_logits`; without a target to scaled cosines. Half types, also under autocast, are
    computed and returned in float32. An embedding or centre of zeros has cosines of 0. Source: Deng et al., ArcFace,
    CVPR 2019, section 2.1.

    Args:
        in_features: length of an embedding.
        num_classes: persons.
        scale, margin, easy_margin: see there.

    Raises:
        ValueError: embeddings of another shape, and what that function raises.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        scale: float = 64.0,
        margin: float = 0.5,
        *,
        easy_margin: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        _check_margin(scale, margin)
        self.scale, self.margin, self.easy_margin = scale, margin, easy_margin
        self.weight = nn.Parameter(torch.empty(num_classes, in_features, device=device, dtype=dtype))
        nn.init.normal_(self.weight, std=0.01)

    def forward(self, embeddings: Tensor, target: Tensor | None = None) -> Tensor:
        if embeddings.dim() != 2 or embeddings.shape[1] != self.weight.shape[1]:
            raise ValueError(f"ArcMarginHead takes (N, {self.weight.shape[1]}), got {tuple(embeddings.shape)}")
        with torch.autocast(embeddings.device.type, enabled=False):
            cosines = F.linear(F.normalize(_wide(embeddings)), F.normalize(_wide(self.weight)))
            if target is None:
                return self.scale * cosines
            return additive_angular_margin_logits(
                cosines, target, self.scale, self.margin, easy_margin=self.easy_margin
            )

    def extra_repr(self) -> str:
        classes, features = self.weight.shape
        return f"{features}, {classes}, scale={self.scale}, margin={self.margin}, easy_margin={self.easy_margin}"


def discriminator_loss(real: Tensor, generated: Tensor) -> Tensor:
    """``-log D(real) - log(1 - D(generated))``, means, of logits of any shape; a scalar, finite for any finite logits.

    Source: Goodfellow et al., Generative Adversarial Nets, NIPS 2014, equation 1.
    """
    return F.softplus(-real).mean() + F.softplus(generated).mean()


def generator_loss(generated: Tensor) -> Tensor:
    """``-log D(generated)``, the mean, of logits of any shape; a scalar.

    Its gradient does not vanish where the discriminator is sure: Goodfellow et al., NIPS 2014, section 3.
    """
    return F.softplus(-generated).mean()
