"""How a large batch runs through a network's first stages: in parts, so that their maps stay in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fastcnn.nn.fused import is_hooked, takes
from fastcnn.nn.program import KNOWN

# Bytes: the last cache of the machines that this was timed on.
_CACHE = 32 << 20


class Prefix(NamedTuple):
    """The first ``stages`` of a network, through which ``images`` go at a time."""

    stages: int
    images: int


def find_prefix(
    features: Sequence[tuple[Any, Sequence[nn.Module]]], input: Tensor, names: Sequence[str]
) -> Prefix | None:
    """What of a fused network's features, each with its layers, is better run on a part of the batch; None if nothing.

    It is where the largest map of the whole batch does not fit the cache: the first stages, up to one from which on
    maps take less than half of it. Each has more bytes of an image's map than of weights, which every part reads anew;
    the last map, which is copied once more, is at most half as large as the largest; none is one of ``names``, which
    are wanted of the whole batch; and in none does an image depend on the others, or somebody hear of calls.
    """
    if input.dim() != 4 or input.size(0) == 1 or not takes(input, 4, input.size(1)):
        return None
    images, sides = input.size(0), input.shape[2:]
    sizes = [4 * stage.channels * prod(ceil(side / stage.stride) for side in sides) for stage, _ in features]
    if max(sizes) * images <= _CACHE:
        return None
    for index, ((stage, layers), size) in enumerate(zip(features, sizes, strict=True)):
        if stage.name in names or _weights(layers) > size or not all(map(_is_by_image, layers)):
            del sizes[index:]
            break
    large = [index for index, size in enumerate(sizes) if size * images > _CACHE // 2]
    stages = min(large[-1] + 2, len(sizes)) if large else 0
    while stages and 2 * sizes[stages - 1] > max(sizes[:stages]):
        stages -= 1
    if not stages or max(sizes[:stages]) * images <= _CACHE:
        return None
    at_a_time = max(_CACHE // max(sizes[:stages]) // 4, 1)
    return Prefix(stages, at_a_time) if at_a_time < images else None


def _weights(layers: Sequence[nn.Module]) -> int:
    """Bytes."""
    return sum(4 * parameter.numel() for layer in layers for parameter in layer.parameters())


def _is_by_image(layer: nn.Module) -> bool:
    """Whether the layer gives for each image what it gives for it alone, and nobody hears of its calls."""
    return all(
        type(module).__module__.startswith(KNOWN)
        and (not module.training or type(module) is nn.Identity)  # What has been folded is in no mode.
        and not (isinstance(module, _BatchNorm) and module.running_var is None)
        and not is_hooked(module)
        for module in layer.modules()
    )
