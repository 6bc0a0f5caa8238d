"""Layers by name, and the maps that come out of them."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from fastcnn.models import ConvNet


def path_of(net: ConvNet, layer: str | None) -> str:
    """The path of a layer's module; None is the last feature, a feature's name the last module that leads to it.

    Raises:
        ValueError: no such layer, with close matches.
    """
    features = {feature.name: feature.modules[-1] for feature in net.feature_chain}
    if layer is None:
        if not features:
            raise ValueError(f"{type(net).__name__} names no features: give a layer")
        return list(features.values())[-1]
    if layer in features:
        return features[layer]
    paths = [path for path, _ in net.named_modules() if path]
    if layer in paths:
        return layer
    close = difflib.get_close_matches(str(layer), [*features, *paths], n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"its features are {', '.join(features)}"
    raise ValueError(f"{type(net).__name__} has no layer {layer!r}; {hint}")


def check(net: ConvNet, input: Tensor | None = None) -> None:
    """Raises a ValueError for a network in training mode, or an input it does not take."""
    if net.training:
        raise ValueError(f"this {type(net).__name__} is in training mode: call eval() first")
    if input is not None and (input.dim() != 4 or input.size(1) != net.in_channels or 0 in input.shape):
        raise ValueError(f"{type(net).__name__} takes (N, {net.in_channels}, H, W), got {tuple(input.shape)}")


@contextlib.contextmanager
def watch(module: nn.Module, see: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """Within it, ``see`` gets each output of the module, and may give another in its place.

    Raises:
        ValueError: an output that is no map (N, C, H, W).
    """

    def hook(layer: nn.Module, inputs: Any, output: Any) -> Tensor | None:
        if not isinstance(output, Tensor) or output.dim() != 4:
            found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"a {type(layer).__name__} gives no map (N, C, H, W) but {found}")
        return see(output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def check_channel(channel: int, channels: int, layer: str) -> None:
    if not 0 <= channel < channels:
        raise ValueError(f"{layer} has channels 0 to {channels - 1}, got {channel}")
