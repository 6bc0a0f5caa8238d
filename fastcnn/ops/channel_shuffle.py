"""Channel shuffle: the channels of all groups in turn (ShuffleNet, Zhang et al. 2018, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

from fastcnn.ops import _checks, _library

_SMALL = 1 << 16  # Elements below which what our backward pass costs more to call is not won back.
_mode = _library.mode
_torch = torch.channel_shuffle


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """Makes channel ``i * (C / groups) + j`` channel ``j * groups + i``, as torch's function of that name.

    Args:
        input: ``[N, C, *]`` with at least one dimension after the channels; any dtype. channels_last is kept.
        groups: how many groups of channels there are; divides C.

    Returns:
        A tensor of the shape, dtype and memory format of `input`.

    Raises:
        ValueError: fewer than three dimensions, or channels that cannot be divided.
        TypeError: not a tensor, or not an int.

    Moves elements and computes nothing: exact and deterministic. Differentiable any number of times. Of a contiguous
    tensor PyTorch's kernel copies whole planes at the speed of memory, and this function calls it.
    """
    if _mode.name == "auto" and type(groups) is int and isinstance(input, Tensor) and _torch_is_as_fast(input):
        try:
            return _torch(input, groups)
        except RuntimeError:  # What is wrong with the arguments is said below.
            if _is_valid(input, groups):
                raise
    if not isinstance(input, Tensor):
        raise TypeError(f"channel_shuffle: expected input to be a tensor, got {type(input).__name__}")
    if type(groups) is not int:
        _checks.integer("channel_shuffle", groups=groups)
        groups = int(groups)
    if input.dim() < 3:
        raise ValueError(f"channel_shuffle: expected input of shape [N, C, *], got {tuple(input.shape)}")
    if not _is_valid(input, groups):
        raise ValueError(f"channel_shuffle: expected groups that divide {input.size(1)} channels, got {groups}")
    return _library.call(_op, input, groups)


def _torch_is_as_fast(input: Tensor) -> bool:
    return input.is_contiguous() or (input.requires_grad and input.numel() < _SMALL and torch.is_grad_enabled())


def _is_valid(input: Tensor, groups: int) -> bool:
    return input.dim() >= 3 and groups >= 1 and input.size(1) % groups == 0


def shuffled(input: Tensor, groups: int) -> Tensor:
    """The shuffle in plain PyTorch."""
    shape = input.shape
    split = input.reshape(shape[0], groups, shape[1] // groups, *shape[2:])
    return split.transpose(1, 2).reshape(shape)


def _reference(input: Tensor, groups: int) -> Tensor:
    result, each = _empty_like(input), input.size(1) // groups
    # One copy, whatever the memory formats.
    result.unflatten(1, (each, groups)).copy_(input.unflatten(1, (groups, each)).transpose(1, 2))
    return result


def _empty_like(input: Tensor) -> Tensor:
    layout = suggest_memory_format(input) if input.dim() == 4 else torch.contiguous_format
    return torch.empty_like(input, memory_format=layout)


_op = _library.define(
    "channel_shuffle(Tensor input, SymInt groups) -> Tensor",
    reference=_reference,
    fake=lambda input, groups: _empty_like(input),
    torch_rule={
        "CPU": "PyTorch's own kernel for contiguous tensors, at the speed of memory, and small ones in training",
        "CUDA": "nothing is computed, so that a kernel of our own would be the copy that PyTorch makes of a view",
    },
)


def _setup_context(ctx, inputs, output):
    input, groups = inputs
    ctx.inverse = input.size(1) // groups


def _backward(ctx, grad):
    return _library.call(_op, grad, ctx.inverse), None


_library.autograd(_op, _backward, _setup_context)
