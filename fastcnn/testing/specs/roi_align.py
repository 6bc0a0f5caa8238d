"""The row of ``roi_align``."""

from __future__ import annotations

from typing import Any

import torch

from fastcnn import ops
from fastcnn.testing.spec import Case, OpSpec, normal, random_rois, reference_of, torchvision_peer


def _case(name: str, shape: tuple[int, ...], count: int, size: Any, scale=1.0, ratio=-1, aligned=False) -> Case:
    def make(dtype, device, g):
        x = normal(*shape)(dtype, device, g)
        rois = random_rois(count, max(shape[0], 1), shape[2] / scale, shape[3] / scale, g).to(device)
        return x, rois, size

    return Case(name, make, {"spatial_scale": scale, "sampling_ratio": ratio, "aligned": aligned})


def _overload(x, rois, size, spatial_scale, sampling_ratio, aligned):
    height, width = (size, size) if isinstance(size, int) else size
    return torch.ops.fastcnn.roi_align.default, (
        x,
        rois,
        spatial_scale,
        height,
        width,
        sampling_ratio,
        aligned,
    )


SPEC = OpSpec(
    name="roi_align",
    function=ops.roi_align,
    reference=reference_of(ops.roi_align),
    cases=(
        _case("adaptive", (2, 5, 13, 11), 7, 3, scale=0.25),
        _case("adaptive aligned", (2, 19, 17, 23), 9, (3, 5), scale=0.5, aligned=True),
        _case("sampling 2", (1, 70, 20, 18), 6, 7, ratio=2, aligned=True),
        _case("sampling 3", (3, 4, 9, 40), 8, (2, 1), ratio=3),
        _case("many boxes", (2, 21, 11, 13), 60, 3, ratio=2),
        _case("many boxes of a large map", (1, 19, 70, 64), 150, 5, ratio=2),
        _case("narrow map", (2, 3, 5, 2), 5, 2, ratio=2),
        _case("one channel", (2, 1, 8, 8), 5, 2, ratio=2),
        _case("one pixel", (1, 4, 1, 1), 3, 2),
        _case("no boxes", (1, 3, 6, 6), 0, 2),
        _case("no images", (0, 3, 6, 6), 0, 2),
        _case("no channels", (1, 0, 6, 6), 2, 2),
    ),
    layers=tuple(
        _case(
            f"{count} boxes of {n}x256x{side}x{side}, 7x7, sampling {ratio}",
            (n, 256, side, side),
            count,
            7,
            scale=side / 800,
            ratio=ratio,
        )
        for n, side, count in ((1, 200, 1000), (1, 200, 100), (1, 50, 1000), (1, 50, 100), (2, 50, 512))
        for ratio in (2, -1)
    ),
    overload=_overload,
    gradgrad=True,
    peer=torchvision_peer("roi_align"),
    reduction=16,
)
