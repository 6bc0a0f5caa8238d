"""The row of ``roi_pool``."""

from __future__ import annotations

from typing import Any

import torch

from fastcnn import ops
from fastcnn.testing.spec import KINKS, Case, OpSpec, normal, random_rois, reference_of, torchvision_peer


def _case(name: str, shape: tuple[int, ...], count: int, size: Any, scale=1.0, ties=False) -> Case:
    def make(dtype, device, g):
        x = normal(*shape)(dtype, device, g)
        if ties:
            x = x.round()
        return x, random_rois(count, max(shape[0], 1), shape[2] / scale, shape[3] / scale, g).to(device), size

    return Case(name, make, {"spatial_scale": scale}, no_gradcheck=KINKS if ties else "")


def _overload(x, rois, size, spatial_scale):
    height, width = (size, size) if isinstance(size, int) else size
    return torch.ops.fastcnn.roi_pool.default, (x, rois, spatial_scale, height, width)


SPEC = OpSpec(
    name="roi_pool",
    function=ops.roi_pool,
    reference=reference_of(ops.roi_pool),
    cases=(
        _case("few boxes", (2, 19, 17, 23), 3, (3, 5), scale=0.5),
        _case("many boxes", (2, 5, 13, 11), 30, 3, scale=0.25),
        _case("blocks of channels", (1, 70, 20, 18), 30, 7),
        _case("large", (1, 21, 70, 64), 60, 9),
        _case("ties", (2, 18, 20, 33), 12, (2, 3), ties=True),
        _case("narrow map", (2, 3, 5, 2), 5, 2),
        _case("one channel", (2, 1, 8, 8), 5, 2),
        _case("one pixel", (1, 4, 1, 1), 3, 2),
        _case("no boxes", (1, 3, 6, 6), 0, 2),
        _case("no images", (0, 3, 6, 6), 0, 2),
        _case("no channels", (1, 0, 6, 6), 2, 2),
    ),
    layers=tuple(
        _case(f"{count} boxes of {n}x256x{side}x{side}, 7x7", (n, 256, side, side), count, 7, scale=side / 800)
        for n, side, count in ((1, 200, 1000), (1, 200, 100), (1, 50, 1000), (1, 50, 100), (2, 50, 512))
    ),
    overload=_overload,
    peer=torchvision_peer("roi_pool"),
)
