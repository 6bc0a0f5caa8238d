"""The registry of networks: every row of every family's table, by name."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fastcnn.models._classes import DARKNET_CLASSES
from fastcnn.models._metadata import FORBIDDEN, decode_options, read_metadata, write_safetensors
from fastcnn.models._net import ConvNet, Row
from fastcnn.models._published import (
    PUBLISHED,
    Published,
    fetch,
    find_by_file,
    find_packaged,
    find_published,
    is_tag,
    locate,
)
from fastcnn.models._weights import copy_weights, read_state_dict


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
        weights: a ``.safetensors``, ``.pth`` or ``.pt`` file, see :func:`load_weights`, or Darknet's ``.weights``; or a
            tag of published weights, one of :func:`list_weights` or "DEFAULT" for the newest: from the package, or
            fetched from download.pytorch.org into ``torch.hub``'s cache, with the hash checked. Published weights (also
            from a file that has their name) and files of :func:`save_weights` bring options, preprocessing among
            them, and the names of ``ConvNet.classes``.
        features_only: return feature maps instead of logits: True for the deepest of each stride, or their
            names; see :meth:`ConvNet.keep_features`.
        device, dtype: of the parameters; ``device="meta"`` allocates nothing.
        overrides: any other field of the network's row, e.g. ``in_channels=1``.

    Raises:
        ValueError: an unknown name or a bad value, or a file that is of another network.
        TypeError: an unknown override, or a value of the wrong type.
        RuntimeError: published weights cannot be fetched, or have another hash.
    """
    entry = find_entry(name)
    brought = _brought(name, entry.row, weights)
    overrides = {**brought.options, **overrides}
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
    if brought.published is not None:
        absent = tuple(f"{child}." for child in brought.published.optional if not hasattr(net, child))
        state = fetch(brought.published) if brought.file is None else read_state_dict(brought.file)
        copy_weights(net, {key: value for key, value in state.items() if not key.startswith(absent)}, brought.name)
    elif brought.file is not None and brought.file.suffix == ".weights":
        # A module of the networks, which import this one.
        from fastcnn.models.detection.darknet_weights import load_darknet_weights

        load_darknet_weights(net, brought.file)
        net.classes = DARKNET_CLASSES.get(net.num_classes, ()) if net.row.task == "detection" else ()
    elif brought.file is not None:
        copy_weights(net, read_state_dict(brought.file), brought.name)
    net.classes = brought.classes or net.classes
    return net


class _Brought(NamedTuple):
    """What weights bring: ``file`` is None where they are fetched, ``name`` is what messages call them."""

    options: dict[str, Any]
    classes: tuple[str, ...] = ()
    published: Published | None = None
    file: Path | None = None
    name: str = ""


def _brought(name: str, row: Row, weights: str | PathLike[str] | None) -> _Brought:
    if weights is None:
        return _Brought({})
    if is_tag(weights):
        published: Published | None = find_published(name, str(weights))
        assert published is not None
        file, called = locate(published) if published.is_packaged else None, f"{name}'s {weights}"
    else:
        file, called = Path(weights), Path(weights).name
        published = find_by_file(name, file)
    options: dict[str, Any] = {}
    classes: tuple[str, ...] = ()
    if published is not None:
        judged = {} if published.preprocess is None else {"preprocess": published.preprocess}
        options, classes = {**judged, **published.overrides}, published.categories
    if file is not None and file.suffix == ".safetensors":
        saved = read_metadata(file)
        if saved["network"] not in (None, name):
            raise ValueError(f"{called} is of {saved['network']}, not of {name}")
        options |= decode_options(row, saved["options"])
        classes = saved["classes"] or classes
    return _Brought(options, classes, published, file, called)


def create_from(weights: str | PathLike[str] | None = None, **options: Any) -> ConvNet:
    """:func:`create` of the network that a file of :func:`save_weights` names; None is the one in the package.

    Raises:
        ValueError: the file names none, or none lies in the package; and what :func:`create` raises.
    """
    if weights is None:
        name, tag = find_packaged()
        return create(name, weights=tag, **options)
    if is_tag(weights):
        raise ValueError(f"{str(weights)!r} is a tag: name its network")
    network = read_metadata(weights)["network"] if Path(weights).suffix == ".safetensors" else None
    if network is None:
        raise ValueError(f"{Path(weights).name} does not say which network it is of: name it")
    return create(network, weights=weights, **options)


def save_weights(
    net: ConvNet,
    path: str | PathLike[str],
    *,
    network: str,
    options: Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
) -> None:
    """Writes a ``.safetensors`` file, in the format of :mod:`fastcnn.models._metadata`, that :func:`create` and
    :func:`create_from` make the same network of. Tensors keep their dtype.

    Args:
        net: not fused, on a real device.
        network: the name it was created by.
        options: what it was created with; None is every field of its row that is not the registered one.
        classes: a name for each label, "__background__" first where class 0 is that; None is ``net.classes``.

    Raises:
        ImportError: without the extra ``weights``.
        TypeError: options that a file cannot hold: give the network a row of its own.
        ValueError: an unknown network, another suffix, another number of classes, or a network that cannot be saved.
    """
    row = find_entry(network).row
    if net.is_fused or net.features_only or any(value.is_meta for value in net.state_dict().values()):
        raise ValueError(f"a {type(net).__name__} that is fused, features_only or on the meta device is not saved")
    if type(net.row) is not type(row):
        raise ValueError(f"this {type(net).__name__} is no {network}")
    if options is None:
        fields = (field.name for field in dataclasses.fields(row))
        options = {key: getattr(net.row, key) for key in fields if getattr(net.row, key) != getattr(row, key)}
    options = {key: value for key, value in options.items() if key not in FORBIDDEN}
    names = net.classes if classes is None else tuple(classes)
    if names and len(names) != net.num_classes:
        raise ValueError(f"classes must be a name for each of {net.num_classes} labels, got {len(names)}")
    write_safetensors(net.state_dict(), path, network, options, names)
