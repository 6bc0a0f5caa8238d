"""The row of ``multi_scale_roi_align``: its maps are the first arguments, one by one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcnn import ops
from fastcnn.ops.multi_scale_roi_align import levels_of
from fastcnn.testing.spec import Case, OpSpec, normal, random_rois, reference_of, torchvision_peer

_LEVELS = 4


def _case(name: str, shape: tuple[int, ...], count: int, size: Any, finest: float, **kwargs: Any) -> Case:
    """`shape` is that of the finest map, `finest` its scale."""

    def make(dtype, device, g):
        n, channels, height, width = shape
        maps = [normal(n, channels, height >> i, width >> i)(dtype, device, g) for i in range(_LEVELS)]
        rois = random_rois(count, max(n, 1), height / finest, width / finest, g)
        return *maps, rois[rois[:, 0].argsort(stable=True)].to(device), size

    return Case(name, make, {"scales": [finest / 2**i for i in range(_LEVELS)], **kwargs})


def _function(*args: Any, **kwargs: Any) -> Tensor:
    *features, rois, size = args
    return ops.multi_scale_roi_align(features, rois, size, **kwargs)


def _with_torchvision(*args: Any, scales, sampling_ratio=-1, canonical_scale=224, canonical_level=4, aligned=False):
    """Its boxes are a list, and its scales are worked out from the sizes of images."""
    from torchvision.ops.poolers import LevelMapper, _multiscale_roi_align

    *features, rois, size = args
    boxes = [rois[rois[:, 0] == i, 1:] for i in range(features[0].size(0))]
    if not boxes:
        return features[0].new_empty(0, features[0].size(1), size, size)
    first, last = (int(-torch.tensor(scales[i]).log2().item()) for i in (0, -1))
    mapper = LevelMapper(first, last, canonical_scale, canonical_level)
    return _multiscale_roi_align(features, boxes, (size, size), sampling_ratio, scales, mapper)


def _overload(*args, scales, sampling_ratio=-1, canonical_scale=224, canonical_level=4, aligned=False):
    *features, rois, size = args
    levels = levels_of(rois, scales, canonical_scale, canonical_level)
    return torch.ops.fastcnn.multi_scale_roi_align.default, (
        features,
        rois,
        levels,
        scales,
        size,
        size,
        sampling_ratio,
        aligned,
    )


SPEC = OpSpec(
    name="multi_scale_roi_align",
    function=_function,
    reference=reference_of(_function),
    cases=(
        _case("adaptive", (2, 5, 20, 24), 12, 3, 1 / 4, canonical_scale=16, canonical_level=3),
        _case("sampling 2", (1, 19, 24, 16), 15, 7, 1 / 4, sampling_ratio=2, canonical_scale=16, canonical_level=3),
        _case("all in one level", (2, 70, 16, 16), 6, 2, 1 / 4, sampling_ratio=2),
        _case("no boxes", (1, 3, 8, 8), 0, 2, 1 / 4),
        _case("no images", (0, 3, 8, 8), 0, 2, 1 / 4),
        _case("no channels", (1, 0, 8, 8), 2, 2, 1 / 4),
    ),
    layers=tuple(
        _case(
            f"{count} boxes of {n}x256x{side}x{side} and 3 coarser maps, 7x7, sampling 2",
            (n, 256, side, side),
            count,
            7,
            1 / 4,
            sampling_ratio=2,
        )
        for n, side, count in ((1, 200, 1000), (2, 200, 512), (1, 200, 100))
    ),
    overload=_overload,
    maps=_LEVELS,
    gradients=tuple(range(_LEVELS)),
    gradgrad=True,
    peer={"torchvision": _with_torchvision} if torchvision_peer("roi_align") else {},
    reduction=16,
)
