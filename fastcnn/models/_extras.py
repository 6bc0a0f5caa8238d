"""Packages of extras, ``detection`` for the most part, imported where they are used."""

from __future__ import annotations

import importlib
from typing import Any


def extra(module: str, what: str, package: str, name: str = "detection") -> Any:
    """The module; ImportError, in one line that says how to install it, where it is not."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ImportError(f"{what} needs {package}: pip install 'fastcnn[{name}]'") from None
