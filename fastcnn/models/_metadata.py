"""What a ``.safetensors`` file of ours says of its weights, so that the file alone makes the network again.

Its metadata, strings to strings as the format has them, are JSON under three keys: ``network``, a name of
:func:`fastcnn.models.list_models`; ``options``, the fields of the network's row that are not the registered ones, with
lists for tuples and an object of its fields for a dataclass such as ``Preprocess``; ``classes``, a name for each label,
"__background__" among them where class 0 is that. Other people's files have none of them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypedDict

from torch import Tensor

from fastcnn.models._net import Row
from fastcnn.models._weights import existing_file, open_safetensors

# Not for a file to say: they lead to other files or name where the row is from.
FORBIDDEN = ("backbone_weights", "source", "task")


class Metadata(TypedDict):
    """``network`` is None where the file does not say."""

    network: str | None
    options: dict[str, Any]
    classes: tuple[str, ...]


def read_metadata(path: str | PathLike[str]) -> Metadata:
    """Of a ``.safetensors`` file; ``options`` are as JSON has them, see :func:`decode_options`. Reads no weights.

    Raises:
        FileNotFoundError: no such file.
        ImportError: without the extra ``weights``.
        ValueError: no safetensors file, or metadata under our keys that are not in the format of this module.
    """
    path = existing_file(path)
    found = open_safetensors(path, lambda file: file.metadata() or {})
    parts = {}
    for key, empty in (("network", None), ("options", {}), ("classes", [])):
        try:
            parts[key] = json.loads(found[key]) if key in found else empty
        except ValueError:
            raise ValueError(f"{path.name}: its {key} are no JSON: {found[key][:40]!r}") from None
    network, options, classes = parts.values()
    if not (network is None or isinstance(network, str)):
        raise ValueError(f"{path.name}: its network must be a name, got {network!r}")
    if not isinstance(options, dict) or any(key in options for key in FORBIDDEN):
        raise ValueError(f"{path.name}: its options must be an object without {', '.join(FORBIDDEN)}, got {options!r}")
    if not isinstance(classes, list) or not all(isinstance(name, str) and name.isprintable() for name in classes):
        raise ValueError(f"{path.name}: its classes must be a list of printable names, got {classes!r}")
    return {"network": network, "options": options, "classes": tuple(classes)}


def write_safetensors(
    state: Mapping[str, Tensor],
    path: str | PathLike[str],
    network: str,
    options: Mapping[str, Any],
    names: Sequence[str],
) -> None:
    """Writes tensors and :class:`Metadata`.

    Raises:
        ImportError: without the extra ``weights``.
        TypeError: an option that JSON does not have.
        ValueError: a file of another suffix.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"weights are saved to a .safetensors file, got {str(path)!r}")
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise ImportError("writing .safetensors files needs: pip install fastcnn[weights]") from error
    parts = {"network": network, "options": _plain(options, "options"), "classes": list(names)}
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    save_file(tensors, path, {"format": "pt", **{key: json.dumps(value) for key, value in parts.items()}})


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if type(value) in (list, tuple):  # A NamedTuple would come back as a tuple without names.
        return [_plain(each, where) for each in value]
    if isinstance(value, Mapping):
        return {key: _plain(each, f"{where}[{key!r}]") for key, each in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: _plain(getattr(value, field.name), f"{where}.{field.name}") for field in fields}
    raise TypeError(f"{where} is no number, text, tuple or dataclass that a file can hold, got {value!r}")


def decode_options(row: Row, options: Mapping[str, Any]) -> dict[str, Any]:
    """Fields for ``dataclasses.replace(row, ...)``: tuples again, and dataclasses of the kind that the row has."""
    fields = {}
    for name, value in options.items():
        current = getattr(row, name, None)
        if isinstance(value, dict) and dataclasses.is_dataclass(current) and not isinstance(current, type):
            fields[name] = dataclasses.replace(current, **decode_options(current, value))  # type: ignore[arg-type]
        else:
            fields[name] = _tuples(value)
    return fields


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
