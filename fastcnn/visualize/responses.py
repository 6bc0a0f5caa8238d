"""The images that a channel answers most strongly: what it looks for, and where it is."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastcnn.models import ConvNet
from fastcnn.visualize._layers import check, check_channel, path_of, watch
from fastcnn.visualize.fields import ReceptiveField, receptive_field


class Response(NamedTuple):
    """A channel's strongest response to one image.

    Attributes:
        image: its number.
        score: the activation.
        row, column: of it in the map: where.
        box: (x1, y1, x2, y2), the pixels of the input it is made of: what.
    """

    image: int
    score: float
    row: int
    column: int
    box: tuple[int, int, int, int]


def strongest_responses(
    net: ConvNet, images: Iterable[Tensor], layer: str, channel: int, k: int = 9, *, batch_size: int = 16
) -> list[Response]:
    """The ``k`` images with the highest activation of a channel, the highest first, each at its strongest place.

    Of equal ones the first image, and in it the first place, counts. Images are not kept, so a data set of any length
    does; they may differ in size. Deterministic.

    Args:
        net: in eval mode, not fused.
        images: preprocessed, (C, H, W) each; also one tensor (N, C, H, W).
        layer: a feature's name or a module's path.
        channel: of its map.
        batch_size: images of one size that are run together.

    Raises:
        ValueError: training mode, no image or one it does not take, an unknown layer or channel, ``k`` or
            ``batch_size`` below 1, or a layer whose :func:`receptive_field` is not known.

    Source: Zeiler and Fergus, ECCV 2014, section 4, whose figure 2 has the top 9.
    """
    if k < 1 or batch_size < 1:
        raise ValueError(f"k and batch_size must be at least 1, got {k} and {batch_size}")
    check(net)
    path = path_of(net, layer)
    fields: dict[tuple[int, int], ReceptiveField] = {}
    best: list[tuple[float, int, Response]] = []
    count = 0
    for batch in _batches(images, batch_size):
        size = (batch.size(2), batch.size(3))
        if size not in fields:
            check(net, batch)
            fields[size] = receptive_field(net, layer, size)
        maps = _maps(net, path, batch)
        check_channel(channel, maps.size(1), layer)
        scores, places = maps[:, channel].flatten(1).max(1)
        for score, place in zip(scores.tolist(), places.tolist(), strict=True):
            row, column = divmod(place, maps.size(3))
            found = Response(count, score, row, column, fields[size].box(row, column, size))
            heapq.heappush(best, (score, -count, found))
            if len(best) > k:
                heapq.heappop(best)
            count += 1
    if not count:
        raise ValueError("strongest_responses needs at least one image")
    return [found for *_, found in sorted(best, reverse=True)]


def patches(images: Sequence[Tensor], responses: Iterable[Response]) -> list[Tensor]:
    """What the responses are to: of each one's image, (C, H, W), the pixels in its box."""
    return [images[found.image][:, y1:y2, x1:x2] for found in responses for x1, y1, x2, y2 in [found.box]]


class _Reached(Exception):
    pass


def _maps(net: ConvNet, path: str, batch: Tensor) -> Tensor:
    maps: list[Tensor] = []

    def see(output: Tensor) -> None:
        maps.append(output.clone())
        raise _Reached  # The rest of the network is not needed.

    with torch.no_grad(), watch(net.get_submodule(path), see):
        try:
            net(batch)
        except _Reached:
            return maps[0]
    raise ValueError(f"{path} is not run by this {type(net).__name__}")


def _batches(images: Iterable[Tensor], batch_size: int) -> Iterator[Tensor]:
    waiting: list[Tensor] = []
    for image in images:
        if image.dim() != 3:
            raise ValueError(f"images must be (C, H, W) each, got {tuple(image.shape)}")
        if waiting and (len(waiting) == batch_size or image.shape != waiting[0].shape):
            yield torch.stack(waiting)
            waiting = []
        waiting.append(image)
    if waiting:
        yield torch.stack(waiting)
