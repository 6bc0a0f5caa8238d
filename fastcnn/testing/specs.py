"""The table of ops: for each, what it is called with, what it is compared with, and what peers there are.

Tests and benches read the same rows, so an op gets the whole contract suite and its benches by being listed here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcnn import ops


@dataclass(frozen=True)
class Case:
    """One call: ``make(dtype, device, generator)`` gives the positional arguments, the first being the main tensor."""

    name: str
    make: Callable[[torch.dtype, str, torch.Generator], tuple[Any, ...]]
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OpSpec:
    """Everything tests and benches need to know of one op.

    Attributes:
        name: of the public function, the schema, the source files and the bench group.
        function: the public function.
        reference: the same computed in plain PyTorch, on arguments of any floating dtype.
        cases: small inputs that go through every branch; first arguments of 4-d cases also come in other layouts.
        layers: inputs of real networks, for benches.
        overload: the defined op and how a case's arguments become its arguments, for ``opcheck``.
        differentiable: whether the first argument gets a gradient; `gradgrad`, whether twice.
        peer: the op people use today, by name; called with the same arguments.
        exact: whether equality with the reference is to the bit.
        reduction: how many products an output sums, which scales tolerances.
    """

    name: str
    function: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    cases: tuple[Case, ...]
    layers: tuple[Case, ...]
    overload: Callable[..., tuple[Any, tuple[Any, ...]]]
    differentiable: bool = True
    gradgrad: bool = False
    peer: dict[str, Callable[..., Tensor]] = field(default_factory=dict)
    exact: bool = False
    reduction: int = 1


def _normal(*shape: int) -> Callable[..., Tensor]:
    return lambda dtype, device, g: torch.randn(shape, generator=g, dtype=torch.float64).to(device, dtype)


def random_rois(count: int, images: int, height: float, width: float, generator: torch.Generator) -> Tensor:
    """``[count, 5]`` RoIs of mixed sizes, some beyond the map, with corners on a grid of 1/64."""
    size = torch.exp2(torch.rand(count, 2, generator=generator) * 4 - 4.5) * torch.tensor([width, height])
    centre = torch.rand(count, 2, generator=generator) * torch.tensor([width, height])
    image = torch.randint(images, (count, 1), generator=generator)
    corners = torch.cat([centre - size / 2, centre + size / 2], 1).mul(64).round() / 64
    return torch.cat([image, corners], 1)


def _roi_case(name: str, shape: tuple[int, ...], count: int, size: Any, scale=1.0, ratio=-1, aligned=False) -> Case:
    def make(dtype, device, g):
        x = _normal(*shape)(dtype, device, g)
        rois = random_rois(count, max(shape[0], 1), shape[2] / scale, shape[3] / scale, g).to(device)
        return x, rois, size

    return Case(name, make, {"spatial_scale": scale, "sampling_ratio": ratio, "aligned": aligned})


def random_boxes(count: int, generator: torch.Generator, image: float = 1000.0, largest: float = 100.0) -> Tensor:
    """``[count, 4]`` boxes, uniform in place and size."""
    corner = torch.rand(count, 2, generator=generator) * image
    return torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * largest], 1)


def _nms_case(name: str, count: int, threshold: float = 0.5, image: float = 1000.0, levels: int = 0) -> Case:
    def make(dtype, device, g):
        boxes = random_boxes(count, g, image)
        scores = torch.rand(count, generator=g)
        if levels:  # Quantised scores tie often.
            scores = (scores * levels).round() / levels
        return boxes.to(device, dtype), scores.to(device, dtype), threshold

    return Case(name, make)


def _torchvision() -> Any:
    try:
        import torchvision

        return torchvision.ops
    except Exception:  # Its wheel may be built for another torch, which shows as any of several errors.
        return None


def _torchvision_peer(name: str) -> dict[str, Callable[..., Tensor]]:
    peers = _torchvision()
    return {"torchvision": getattr(peers, name)} if peers else {}


def _roi_align_overload(x, rois, size, spatial_scale, sampling_ratio, aligned):
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


def _reference_of(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def call(*args: Any, **kwargs: Any) -> Tensor:
        from fastcnn import reference_mode

        with reference_mode():
            return function(*args, **kwargs)

    return call


def _knees(dtype: torch.dtype, device: str, g: torch.Generator) -> tuple[Tensor]:
    return (torch.linspace(-4, 4, 65, dtype=torch.float64).to(device, dtype),)


SPECS: dict[str, OpSpec] = {
    spec.name: spec
    for spec in (
        OpSpec(
            name="hardswish",
            function=ops.hardswish,
            reference=_reference_of(ops.hardswish),
            cases=(
                Case("4d", lambda *a: (3 * _normal(2, 5, 7, 9)(*a),)),
                Case("vector tail", lambda *a: (3 * _normal(67)(*a),)),
                Case("knees", _knees),
                Case("large", lambda *a: (3 * _normal(2, 19, 33, 31)(*a),)),
                Case("empty", lambda *a: (_normal(0, 3, 4, 4)(*a),)),
                Case("scalar", lambda *a: (_normal()(*a),)),
            ),
            layers=(
                Case("mobilenet_v3 16x240x28x28", lambda *a: (_normal(16, 240, 28, 28)(*a),)),
                Case("mobilenet_v3 16x16x112x112", lambda *a: (_normal(16, 16, 112, 112)(*a),)),
                Case("mobilenet_v3 1x672x14x14", lambda *a: (_normal(1, 672, 14, 14)(*a),)),
            ),
            overload=lambda x: (torch.ops.fastcnn.hardswish.default, (x,)),
            peer={"torch": F.hardswish},
        ),
        OpSpec(
            name="roi_align",
            function=ops.roi_align,
            reference=_reference_of(ops.roi_align),
            cases=(
                _roi_case("adaptive", (2, 5, 13, 11), 7, 3, scale=0.25),
                _roi_case("adaptive aligned", (2, 19, 17, 23), 9, (3, 5), scale=0.5, aligned=True),
                _roi_case("sampling 2", (1, 70, 20, 18), 6, 7, ratio=2, aligned=True),
                _roi_case("sampling 3", (3, 4, 9, 40), 8, (2, 1), ratio=3),
                _roi_case("narrow map", (2, 3, 5, 2), 5, 2, ratio=2),
                _roi_case("one channel", (2, 1, 8, 8), 5, 2, ratio=2),
                _roi_case("one pixel", (1, 4, 1, 1), 3, 2),
                _roi_case("no boxes", (1, 3, 6, 6), 0, 2),
                _roi_case("no images", (0, 3, 6, 6), 0, 2),
                _roi_case("no channels", (1, 0, 6, 6), 2, 2),
            ),
            layers=tuple(
                _roi_case(
                    f"{count} boxes of 1x256x{side}x{side}, 7x7, sampling {ratio}",
                    (1, 256, side, side),
                    count,
                    7,
                    scale=side / 800,
                    ratio=ratio,
                )
                for side in (200, 50)
                for count in (1000, 100)
                for ratio in (2, -1)
            ),
            overload=_roi_align_overload,
            gradgrad=True,
            peer=_torchvision_peer("roi_align"),
            reduction=16,
        ),
        OpSpec(
            name="nms",
            function=ops.nms,
            reference=_reference_of(ops.nms),
            cases=(
                _nms_case("uniform", 300),
                _nms_case("dense", 700, image=150.0),
                _nms_case("ties", 300, 0.3, image=200.0, levels=8),
                _nms_case("threshold 0", 200, 0.0),
                _nms_case("threshold 0.05", 200, 0.05, image=200.0),
                _nms_case("threshold 0.9", 200, 0.9, image=50.0),
                _nms_case("threshold 1", 200, 1.0, image=50.0),
                _nms_case("threshold -1", 50, -1.0),
                _nms_case("one box", 1),
                _nms_case("no boxes", 0),
            ),
            layers=tuple(_nms_case(f"{n} boxes", n) for n in (1000, 6000, 24564, 100_000)),
            overload=lambda boxes, scores, threshold: (
                torch.ops.fastcnn.nms.default,
                (boxes, scores, threshold),
            ),
            differentiable=False,
            peer=_torchvision_peer("nms"),
            exact=True,
        ),
    )
}
