"""What a run can go on from: plain tensors and numbers, read without running pickled code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from fastcnn.models._weights import read_pickle

VERSION = 2


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Replaces the file at once, so that a run that is killed leaves the old or the new one."""
    partial = path.with_name(f"{path.name}.part")
    torch.save({"version": VERSION} | content, partial)
    os.replace(partial, path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What :func:`write_checkpoint` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another file, or a damaged one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {str(path)!r} to resume from")
    content = read_pickle(path)
    if not isinstance(content, dict) or content.get("version") != VERSION:
        raise ValueError(f"{path.name} is no checkpoint of this version of fastcnn train")
    return content
