"""What a network from images to images or maps of classes is held against: expected/<family>.py has a family's rows."""

import runpy
from pathlib import Path
from typing import NamedTuple

TASKS = ("segmentation", "super_resolution", "enhancement")


class Dense(NamedTuple):
    """
    params, macs: of the network as ``create(name)`` builds it, at its own input size or at `counted`, the argument of
        :func:`fastcnn.models.summary`.
    sizes: (sides of an input, sides of its output), which :func:`same` makes where they are equal.
    channels: of the output; None are the row's ``num_classes`` of a segmentation and its ``in_channels`` otherwise.
    golden: the record of a public implementation's keys and output, in tests/golden, without ".json".
    small: options for tests by value, which take seconds with fewer layers and channels.
    sides: of the images of these.
    trace: (path of a module, its output's shape without the batch) at the network's own input size.
    frozen: beginnings of the names of parameters that get no gradient.
    norms_left: batch norms that ``fuse()`` cannot fold.
    variants: (overrides, params, macs or None) of networks that are the row with other options.
    any_size: whether it takes images of other sizes than `sides`.
    heavy: its tests by value are marked slow.
    """

    params: int
    macs: int
    sizes: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    channels: int | None = None
    golden: str | None = None
    small: dict[str, object] = {}  # noqa: RUF012
    sides: tuple[int, ...] = (65, 50)
    counted: tuple[int, ...] | None = None
    trace: tuple[tuple[str, tuple[int, ...]], ...] = ()
    frozen: tuple[str, ...] = ()
    norms_left: int = 0
    variants: tuple[tuple[dict[str, object], int, int | None], ...] = ()
    any_size: bool = True
    heavy: bool = False


def same(*sizes):
    return tuple((size, size) for size in sizes)


ANY = same((64, 64), (97, 130), (33, 70))

FAMILIES: dict[str, dict[str, Dense]] = {
    path.stem: runpy.run_path(str(path))["EXPECTED"] for path in sorted(Path(__file__).parent.glob("expected/*.py"))
}
EXPECTED = {name: row for rows in FAMILIES.values() for name, row in rows.items()}
FIRST = [next(iter(rows)) for rows in FAMILIES.values()]
