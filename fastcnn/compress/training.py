"""Training under pruning and under shared weights, as parametrisations that can be made permanent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from fastcnn.compress._clusters import check_bits, check_weight, share
from fastcnn.compress._paths import by_path

N = TypeVar("N", bound=nn.Module)


class Mask(nn.Module):
    """Multiplies a weight by a mask of zeros and ones, so that it stays pruned while the others train."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        # Not a product: that of zero with a weight that training took to infinity is NaN.
        return weight.masked_fill(~self.mask, 0.0)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


class SharedWeights(nn.Module):
    """A weight as an index into shared values: the parameter is the values, 1-D, and zeros stay zeros."""

    codes: Tensor

    def __init__(self, name: str, weight: Tensor, bits: int) -> None:
        super().__init__()
        self.name, self.bits = name, bits
        self.register_buffer("codes", torch.zeros(weight.shape, dtype=torch.uint8, device=weight.device))

    def forward(self, values: Tensor) -> Tensor:
        return F.pad(values, (1, 0))[self.codes.long()]

    def right_inverse(self, weight: Tensor) -> Tensor:
        values, positions, codes = share(self.name, weight, self.bits)
        self.codes.zero_().view(-1)[torch.from_numpy(positions)] = torch.from_numpy(codes).to(self.codes.device)
        return values.to(weight.device)


def prune(model: N, sparsity: float | Mapping[str, float]) -> N:
    """Sets the smallest weights of each layer to zero and keeps them so in training; returns the model.

    Every weight of two or more dimensions is pruned by itself to ``round(sparsity * numel)`` zeros, those of least
    magnitude, so zeros from before are the first. :func:`make_permanent` ends the masking; pruning again replaces the
    masks. An optimiser made before goes on with the same parameters. Deterministic on a CPU; where weights are as
    large, a GPU may choose others. Source: Han et al., Learning both Weights and Connections for Efficient Neural
    Networks, NIPS 2015, section 3; its retraining is yours.

    Args:
        sparsity: the share of zeros, in [0, 1]; or by path, as of :func:`compress`.

    Raises:
        ValueError: a sparsity out of range; a path without weights; NaN or infinity; a weight on the meta device. The
            model is then unchanged.
    """
    layers = _layers(model)
    wanted = by_path(layers, sparsity)
    for name, zeros in wanted.items():
        if isinstance(zeros, bool) or not isinstance(zeros, int | float) or not 0 <= zeros <= 1:  # NaN is not, either.
            raise ValueError(f"sparsity of {name!r} must be from 0 to 1, got {zeros!r}")
        check_weight(name, _weight(layers[name]))
    make_permanent(model)
    for name, zeros in wanted.items():
        weight = _weight(layers[name])
        kept = weight.numel() - round(zeros * weight.numel())
        mask = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
        mask[weight.detach().abs().flatten().topk(kept, sorted=False).indices] = True
        parametrize.register_parametrization(layers[name], "weight", Mask(mask.reshape(weight.shape)))
    return model


def share_weights(model: N, bits: int | Mapping[str, int]) -> N:
    """Makes each layer's weights share at most 2^bits - 1 values, which are what trains; returns the model.

    The clusters are those of :func:`compress`, and stay; the gradient of a shared value is the sum of those of its
    weights; zeros stay zeros. Make the optimiser after it: the parameters are others, 1-D and few. Then
    ``compress(model, bits)`` keeps the trained values exactly, and :func:`make_permanent` makes plain weights of them.
    Clusters are deterministic; the gradient is on a CPU, and on a GPU under
    ``torch.use_deterministic_algorithms(True)``. Source: Han et al., 2016, section 3.3.

    Args:
        bits: from 1 to 8; or by path, as of :func:`compress`.

    Raises:
        ValueError: bits out of range; a path without weights; NaN or infinity; a weight on the meta device. The
            model is then unchanged.
    """
    layers = _layers(model)
    wanted = by_path(layers, bits)
    for name, each in wanted.items():
        check_bits(name, each)
        check_weight(name, _weight(layers[name]))
    make_permanent(model)
    for name, each in wanted.items():
        shared = SharedWeights(name, _weight(layers[name]), each)
        parametrize.register_parametrization(layers[name], "weight", shared)
    return model


def make_permanent(model: N) -> N:
    """Ends what :func:`prune` and :func:`share_weights` do, leaving plain weights as they are now; returns the model.

    Zeros are no longer kept in training. A model without either is left alone.
    """
    for module in list(model.modules()):
        if _is_ours(module):
            # PyTorch deletes a property of the class, which deep copies of the module share; so this one gets its own.
            parametrized = type(module)
            own = {key: value for key, value in vars(parametrized).items() if key not in ("__dict__", "__weakref__")}
            module.__class__ = type(parametrized.__name__, parametrized.__bases__, own)
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    return model


def plain_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The state dict that the model would have after :func:`make_permanent`; it is not changed."""
    ours = {f"{path}.".removeprefix("."): m for path, m in model.named_modules(remove_duplicate=False) if _is_ours(m)}
    plain: dict[str, Tensor] = {}
    for key, tensor in model.state_dict().items():
        path, _, rest = key.partition("parametrizations.weight.")
        if not rest or path not in ours:
            plain[key] = tensor
        elif f"{path}weight" not in plain:
            plain[f"{path}weight"] = _weight(ours[path]).detach()
    return plain


def _is_ours(module: nn.Module) -> bool:
    if not parametrize.is_parametrized(module, "weight"):
        return False
    chain = module.parametrizations["weight"]  # type: ignore[index]
    return all(isinstance(step, Mask | SharedWeights) for step in chain)


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that own a weight of two or more dimensions, by its key in a plain state dict."""
    return {
        f"{path}.weight".removeprefix("."): module
        for path, module in model.named_modules()
        if (_is_ours(module) or module._parameters.get("weight") is not None) and _weight(module).dim() > 1
    }


def _weight(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight
