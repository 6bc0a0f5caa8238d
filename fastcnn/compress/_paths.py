"""Settings by path: one for everything, or a mapping of which the longest fitting path counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


def by_path(names: Iterable[str], setting: T | Mapping[str, T]) -> dict[str, T]:
    """The setting of each name; names that no path of a mapping fits are left out.

    A path fits the key of a state dict that it is, and those below it: ``"classifier"`` fits
    ``"classifier.0.weight"``; the empty path fits all.

    Raises:
        ValueError: a path that fits no name.
    """
    names = list(names)
    if not isinstance(setting, Mapping):
        return dict.fromkeys(names, setting)
    found: dict[str, T] = {}
    for path in sorted(setting, key=len):  # Longer paths later, over the shorter.
        fitting = [name for name in names if path in ("", name) or name.startswith(f"{path}.")]
        if not fitting:
            raise ValueError(f"there is no weight tensor at or below {path!r}")
        found.update(dict.fromkeys(fitting, setting[path]))
    return found
