"""Loads published weights from a file, strictly, and without ever running code that the file brings."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fastcnn.models._net import ConvNet

N = TypeVar("N", bound=nn.Module)
T = TypeVar("T")

# Training scripts save the weights beside the optimiser's state, under one of these keys.
NESTED_UNDER = ("state_dict", "model")


def load_weights(model: N, path: str | PathLike[str]) -> N:
    """Copies a file's weights into ``model``, cast to its dtype and device; returns the model.

    Reads ``.safetensors`` (needs the extra ``weights``) and ``.pth`` / ``.pt`` (only plain tensors; a file
    that would have to run pickled code is refused). Keys are torchvision's, where it has the network, and
    must match exactly, except that ``num_batches_tracked`` may be missing, as in old files, and that a
    ``features_only`` network ignores the weights of the layers that it dropped. When it raises, the model is
    unchanged.

    Raises:
        FileNotFoundError: no such file.
        ImportError: a ``.safetensors`` file without the extra.
        ValueError: not a file of weights, or weights of another network.
    """
    return copy_weights(model, read_state_dict(path), Path(path).name)


def copy_weights(model: N, state: dict[str, Tensor], name: str) -> N:
    """:func:`load_weights` of tensors already read from the file ``name``."""
    for pattern, today in model.old_keys if isinstance(model, ConvNet) else ():
        state = {re.sub(pattern, today, key): value for key, value in state.items()}
    dropped = tuple(f"{path}." for path in model.dropped_paths) if isinstance(model, ConvNet) else ()
    state = {key: value for key, value in state.items() if not key.startswith(dropped)} if dropped else state
    _check_num_classes(model, state, name)
    _check_match(model, state, name)
    model.load_state_dict(state, strict=True)
    return model


def read_state_dict(path: str | PathLike[str]) -> dict[str, Tensor]:
    """A file's tensors by key, on the CPU. Formats and errors are those of :func:`load_weights`."""
    readers = {".safetensors": _read_safetensors, ".pth": read_pickle, ".pt": read_pickle}
    if Path(path).suffix not in readers:
        raise ValueError(f"weights must be a {', '.join(readers)} file, got {fspath(path)!r}")
    path = existing_file(path)
    state = readers[path.suffix](path)
    if isinstance(state, dict):
        state = next((state[key] for key in NESTED_UNDER if isinstance(state.get(key), dict)), state)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path.name} holds no state dict: a mapping of names to tensors is needed")
    return state


def existing_file(path: str | PathLike[str]) -> Path:
    """The path of a file with something in it; a FileNotFoundError or ValueError says why it is none."""
    path = Path(fspath(path))
    if not path.exists():
        raise FileNotFoundError(f"no weights file {str(path)!r}")
    if not path.is_file():
        raise ValueError(f"{str(path)!r} is a directory, not a weights file")
    if path.stat().st_size == 0:
        raise ValueError(f"{str(path)!r} is empty")
    return path


def open_safetensors(path: Path, read: Callable[[Any], T]) -> T:
    """What ``read`` makes of an open ``.safetensors`` file."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise ImportError("reading .safetensors files needs: pip install fastcnn[weights]") from error
    try:
        with safe_open(path, "pt") as file:
            return read(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name} is no readable safetensors file: {_first_line(error)}") from None


def _read_safetensors(path: Path) -> object:
    return open_safetensors(path, lambda file: {key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118


def read_pickle(path: Path) -> object:
    """What ``torch.save`` wrote of tensors and plain values; a ValueError for anything else."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch reports both a damaged pickle and one that names a forbidden class this way.
        reason = f"is damaged, or needs pickled code, which is never run: {_first_line(error.__cause__ or error)}"
    except Exception as error:
        # A damaged pickle can raise anything: IndexError, struct.error, AssertionError and more were seen.
        reason = f"is no readable PyTorch file, perhaps cut short: {_first_line(error)}"
    raise ValueError(f"{path.name} {reason}")


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]


def _check_num_classes(model: nn.Module, state: dict[str, Tensor], name: str) -> None:
    if not isinstance(model, ConvNet) or model.features_only:
        return
    classifier = state.get(f"{model.classifier_path}.weight")
    outputs, wanted = model.outputs_per_class, model.num_classes
    if classifier is not None and classifier.dim() in (2, 4) and classifier.shape[0] != outputs * wanted:
        found = classifier.shape[0] // outputs
        raise ValueError(
            f"{name} has {found} classes, the network {wanted}: build it with num_classes={found}, "
            f"load the weights, then call replace_head({wanted})"
        )


def _check_match(model: nn.Module, state: dict[str, Tensor], name: str) -> None:
    own = model.state_dict()
    if any(value.is_meta for value in own.values()):
        raise ValueError("weights cannot be loaded into a network on the meta device; build it on a real one")
    problems = [f"no {key!r}" for key in own if key not in state and not key.endswith("num_batches_tracked")]
    problems += [f"unexpected {key!r}" for key in state if key not in own]
    problems += [
        f"{key!r} is {tuple(state[key].shape)}, not {tuple(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    if problems:
        more = f" (and {len(problems) - 1} more differences)" if len(problems) > 1 else ""
        raise ValueError(f"{name} does not fit this {type(model).__name__}: {problems[0]}{more}")
