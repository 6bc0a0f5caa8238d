"""Folds what follows a convolution into it, for inference."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fastcnn.nn.fused import FusedConv2d, FusedLinear, FusedMean2d
from fastcnn.nn.grouped import FusedGroupedConv2d
from fastcnn.nn.layers import DepthwiseConv2d, GroupedConv2dShuffle, PointwiseConv2d
from fastcnn.nn.norms import ACTIVATION_OF

M = TypeVar("M", bound=nn.Module)


@torch.no_grad()
def _fold(conv: nn.Conv2d, norm: _BatchNorm) -> None:
    # Half types fold in float32, so that each weight is rounded once.
    wide = torch.promote_types(conv.weight.dtype, torch.float32)
    assert norm.running_mean is not None and norm.running_var is not None
    scale = (norm.running_var.to(wide) + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.to(wide)
    bias = -norm.running_mean.to(wide) * scale
    if norm.bias is not None:
        bias = bias + norm.bias.to(wide)
    if conv.bias is not None:
        bias = bias + conv.bias.to(wide) * scale
    weight = conv.weight.to(wide) * scale.reshape(-1, *[1] * (conv.weight.dim() - 1))
    like = conv.weight
    conv.weight = nn.Parameter(weight.to(like.dtype), requires_grad=like.requires_grad)
    conv.bias = nn.Parameter(bias.to(like.dtype), requires_grad=like.requires_grad)


def _descendant(module: nn.Module, path: str) -> Any:
    try:
        return module.get_submodule(path)
    except AttributeError:  # ConvNet.keep_features() has dropped it.
        return None


# What a convolution's kernel does to its result.
_ABSORBED: dict[type, dict[type, str]] = {
    DepthwiseConv2d: ACTIVATION_OF,
    FusedConv2d: {**ACTIVATION_OF, nn.LeakyReLU: "leaky_relu"},
    GroupedConv2dShuffle: {nn.ReLU: "relu"},
    FusedGroupedConv2d: {nn.ReLU: "relu"},
}


def _absorb(conv: Any, after: nn.Module | None) -> bool:
    """Whether ``conv`` now also does what ``after`` does."""
    if isinstance(after, nn.Identity):
        return True
    if isinstance(conv, GroupedConv2dShuffle) and conv.shuffle_groups == 1 and isinstance(after, nn.ChannelShuffle):
        conv.shuffle_groups = after.groups
        return True
    activation = _ABSORBED.get(type(conv), {}).get(type(after))  # type: ignore[arg-type]
    slope = getattr(after, "negative_slope", 0.0)
    if activation is None or conv.activation is not None or not 0 <= slope <= 1:
        return False
    conv.activation = activation
    if slope:
        conv.negative_slope = slope
    return True


def _does_more(conv: nn.Module) -> bool:
    return bool(getattr(conv, "activation", None)) or getattr(conv, "shuffle_groups", 1) != 1


def fold_conv_norm(model: M) -> M:
    """Folds what follows convolutions into them, in place, for inference; returns ``model``.

    A module says which of its children follow one another in ``conv_chains``, a tuple of (convolution name, names of
    what comes next...); each may be a grandchild: "conv3.pointwise". A batch norm that comes first is folded: the
    convolution then has its scale in the weight, and a bias. Of what comes next the convolution takes over, in their
    order and up to the first that it cannot, the activation and the channel shuffle that its kernel can do: a
    :class:`DepthwiseConv2d` and a :class:`FusedConv2d` any activation that they have, the latter the leaky ReLU too, a
    :class:`GroupedConv2dShuffle` ReLU and the shuffle. Every :class:`torch.nn.Conv2d` of one group becomes such a
    :class:`FusedConv2d`, every grouped 1x1 one a :class:`FusedGroupedConv2d`, every :class:`torch.nn.Linear` a
    :class:`FusedLinear`, and every :class:`torch.nn.AdaptiveAvgPool2d` a :class:`FusedMean2d`.

    An ``nn.Identity`` takes the place of each, so the state dict has no keys of the norm any more. Outputs are those
    of eval mode up to rounding. Norms that depend on the batch (no running statistics) or are no batch norms stay,
    and so do those that activate by themselves and those behind a convolution that activates or shuffles by itself.
    Calling it again is a no-op.

    Raises:
        RuntimeError: a norm to be folded is in training mode; nothing has been folded then.
    """
    chains = []
    for path, module in model.named_modules():
        for conv_name, *after in getattr(module, "conv_chains", ()):
            conv = _descendant(module, conv_name)
            norm = _descendant(module, after[0]) if after else None
            if conv is None or norm is None or _does_more(conv) or _does_more(norm):
                continue
            if isinstance(norm, _BatchNorm) and norm.running_var is not None and norm.training:
                name = f"{path}.{after[0]}".lstrip(".")
                raise RuntimeError(f"fuse() needs eval mode, but {name!r} is training: call .eval() first")
            chains.append((module, conv, after))
    for layer in model.modules():
        if type(layer) in (nn.Conv2d, PointwiseConv2d) and layer.groups == 1 and layer.padding_mode == "zeros":
            layer.__class__ = FusedConv2d
        elif type(layer) is nn.Linear:
            layer.__class__ = FusedLinear
        elif type(layer) is GroupedConv2dShuffle and layer.kernel_size == (1, 1):
            layer.__class__ = FusedGroupedConv2d
        elif type(layer) is nn.AdaptiveAvgPool2d:
            layer.__class__ = FusedMean2d
    for module, conv, after in chains:
        norm = _descendant(module, after[0])
        if isinstance(norm, _BatchNorm) and norm.running_var is not None:
            _fold(conv, norm)
            module.set_submodule(after[0], nn.Identity())
            after = after[1:]
        for name in after:
            if not _absorb(conv, _descendant(module, name)):
                break
            module.set_submodule(name, nn.Identity())
    return model
