"""Networks that are a table of named steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from fastcnn.models._net import Feature
from fastcnn.models._pooled import PooledNet
from fastcnn.nn.branches import Pool, Step


def add_layers(
    parent: nn.Module, layers: Mapping[str, Step], chain: list[Feature], channels: int, prefix: str = "", **factory: Any
) -> int:
    """Adds a table's modules to ``parent`` and a feature for each to ``chain``; returns the channels of the last.

    A pooling is no feature of its own but the way to the next. ``prefix`` is ``parent``'s path, with the dot.
    """
    stride = chain[-1].stride if chain else 1
    modules: tuple[str, ...] = ()
    for name, step in layers.items():
        module, channels = step.build(channels, **factory)
        parent.add_module(name, module)
        stride *= step.stride
        modules += (prefix + name,)
        if not isinstance(step, Pool):
            chain.append(Feature(prefix + name, channels, stride, modules))
            modules = ()
    return channels


def add_network(net: PooledNet, layers: Mapping[str, Step], child: str = "", **factory: Any) -> None:
    """Makes ``net`` of a table's modules, which its child of that name gets where there is one, and of the head."""
    row: Any = net.row
    chain: list[Feature] = []
    parent, prefix = (net.get_submodule(child), f"{child}.") if child else (net, "")
    channels = add_layers(parent, layers, chain, row.in_channels, prefix, **factory)
    net.feature_chain = tuple(chain)
    net.add_head(channels, row.dropout, **factory)
    net.init_weights(net)
