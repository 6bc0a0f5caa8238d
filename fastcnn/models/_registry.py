"""The registry of networks: every row of every family's table, by name."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple

import torch

from fastcnn.models._net import ConvNet, Row
from fastcnn.models._published import PUBLISHED, fetch, find_published, is_tag
from fastcnn.models._weights import copy_weights, load_weights


class Entry(NamedTuple):
    row: Row
    build: Callable[..., ConvNet]


_ENTRIES: dict[str, Entry] = {}


def register(rows: Mapping[str, Row], build: Callable[..., ConvNet]) -> None:
    """Adds a family's table. ``build(row, device=, dtype=)`` makes a network: usually the family's class."""
    for name, row in rows.items():
        if name in _ENTRIES:
            raise ValueError(f"network {name!r} is registered twice")
        _ENTRIES[name] = Entry(row, build)


def find_entry(name: str) -> Entry:
    """The entry of a network; an unknown name raises a ValueError with close matches."""
    if name in _ENTRIES:
        return _ENTRIES[name]
    close = difflib.get_close_matches(str(name), _ENTRIES, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "list_models() names them all"
    raise ValueError(f"no network is called {name!r}; {hint}")


def list_models(pattern: str = "*", *, task: str | None = None) -> list[str]:
    """The names of the networks that match a shell pattern ("resnet*") and a task, sorted."""
    return sorted(
        name
        for name, entry in _ENTRIES.items()
        if fnmatch.fnmatchcase(name, pattern) and task in (None, entry.row.task)
    )


def list_weights(name: str) -> list[str]:
    """The tags of a network's published weights, from the oldest to the newest; none where none are known.

    Raises:
        ValueError: an unknown name.
    """
    find_entry(name)
    return list(PUBLISHED.get(name, ()))


def create(
    name: str,
    num_classes: int | None = None,
    weights: str | PathLike[str] | None = None,
    *,
    features_only: bool | Sequence[str] = False,
    device: Any = None,
    dtype: torch.dtype | None = None,
    **overrides: Any,
) -> ConvNet:
    """Builds a network, in training mode, freshly initialised unless ``weights`` are given.

    Args:
        name: one of :func:`list_models`.
        num_classes: outputs of the head; the published number when None.
        weights: a ``.safetensors``, ``.pth`` or ``.pt`` file, see :func:`load_weights`; or a tag of published weights,
            one of :func:`list_weights` or "DEFAULT" for the newest, which bring their preprocessing: fetched from
            download.pytorch.org into ``torch.hub``'s cache, with the hash checked.
        features_only: return feature maps instead of logits: True for the deepest of each stride, or their
            names; see :meth:`ConvNet.keep_features`.
        device, dtype: of the parameters; ``device="meta"`` allocates nothing.
        overrides: any other field of the network's row, e.g. ``in_channels=1``.

    Raises:
        ValueError: an unknown name or a bad value.
        TypeError: an unknown override, or a value of the wrong type.
        RuntimeError: published weights cannot be fetched, or have another hash.
    """
    entry = find_entry(name)
    published = find_published(name, str(weights)) if is_tag(weights) else None
    if published is not None:
        judged = {} if published.preprocess is None else {"preprocess": published.preprocess}
        overrides = {**judged, **published.overrides, **overrides}
    if num_classes is not None:
        overrides["num_classes"] = num_classes
    if dtype is not None and not dtype.is_floating_point:
        raise ValueError(f"networks have a floating dtype, got {dtype}")
    allowed = {field.name for field in dataclasses.fields(entry.row)} - {"source", "task"}
    if unknown := sorted(overrides.keys() - allowed):
        raise TypeError(f"{name} has no option {unknown[0]!r}; it has {', '.join(sorted(allowed))}")
    net = entry.build(dataclasses.replace(entry.row, **overrides), device=device, dtype=dtype)
    if features_only is not False:
        net.keep_features(features_only)
    if published is not None:
        absent = tuple(f"{child}." for child in published.optional if not hasattr(net, child))
        state = {key: value for key, value in fetch(published).items() if not key.startswith(absent)}
        copy_weights(net, state, f"{name}'s {weights}")
    elif weights is not None:
        load_weights(net, weights)
    return net
