"""What is benched: every layer of every op's spec, every classifier, in each dtype, layout and direction; detectors."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from fastcnn.models import list_models
from fastcnn.models._lectures_accuracy import ACCURACIES
from fastcnn.testing.detector_cases import CASES
from fastcnn.testing.spec import OpSpec
from fastcnn.testing.specs import SPECS

# BACKWARD is timed by itself, after one forward pass; specs name more such directions, of some gradients only.
FORWARD, BOTH, BACKWARD = "forward", "forward+backward", "backward"
USUAL = (FORWARD, BOTH)
DIRECTIONS = (*USUAL, BACKWARD, *dict.fromkeys(itertools.chain(*(spec.alone for spec in SPECS.values()))))
HALVES = ("bfloat16", "float16")
DTYPES = {name: getattr(torch, name) for name in ("float32", *HALVES)}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

# PyTorch's 16-bit convolutions on a CPU take seconds a step.
NETWORK_DTYPES = {"cpu": ("float32",), "cuda": ("float32", "bfloat16")}
# Inference one image at a time, and in batches; training in batches that the device can hold.
BATCHES = {"cpu": {FORWARD: (1, 16), BOTH: (16,)}, "cuda": {FORWARD: (1, 32), BOTH: (32,)}}


# Networks that one name selects: detectors, those whose time goes into what fastcnn has kernels for, and those whose
# accuracy lectures print.
SELECTIONS: dict[str, tuple[str, ...]] = {
    "detectors": tuple(CASES),
    "quoted": tuple(accuracy.network for accuracy in ACCURACIES if accuracy.side is None),
    "efficient": (
        "mobilenet_v1",
        "mobilenet_v2",
        "mobilenet_v3_large",
        "mobilenet_v3_small",
        "shufflenet_v1_g3",
        "shufflenet_v2_x1_0",
        "mnasnet1_0",
        "efficientnet_b0",
        "squeezenet1_0",
        "xception",
    ),
}


@dataclass(frozen=True)
class Bench:
    """One comparison: a subject (op, network or detector) on one input. `layout` is empty where rivals choose theirs.

    `against` is empty where the rivals are what people use today, or "float32": ours, on the same values.
    """

    kind: str
    subject: str
    layer: str
    dtype: str
    layout: str
    direction: str
    device: str
    against: str = ""

    @property
    def group(self) -> str:
        parts = (self.subject, self.layer, self.dtype, self.layout, self.direction)
        return ", ".join(part for part in parts if part) + (f" against {self.against}" if self.against else "")


@dataclass
class Prepared:
    """A bench ready to be timed; all of its calls gave the same result.

    Attributes:
        calls: by name; ``fastcnn`` is ours.
        missing: rivals that do not run here, with the reason.
        notes: what else is worth recording: ``bytes`` and ``flops`` of the call, top-5 indices.
        context: what to time within.
        copies: of their input, that calls go through in turn.
        pause: seconds to wait before the call that goes untimed before a sample.
    """

    calls: dict[str, Callable[[], Any]]
    missing: dict[str, str] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    context: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    copies: int = 1
    pause: float = 0.0


def list_benches(device: str = "cpu") -> list[Bench]:
    """Every bench there is for a device type, ops first."""
    return [*_op_benches(device), *_network_benches(device), *_detector_benches(device)]


def half_benches(device: str = "cpu") -> list[Bench]:
    """Every op in each 16-bit dtype against itself in float32."""
    benches = [b for b in _op_benches(device) if b.dtype == "float32"]
    return [dataclasses.replace(b, dtype=dtype, against="float32") for b in benches for dtype in HALVES]


def _op_benches(device: str) -> Iterable[Bench]:
    for spec in SPECS.values():
        dtypes = ("float32",) if spec.exact else tuple(DTYPES)
        directions = (*USUAL, BACKWARD, *spec.alone) if spec.gradients else (FORWARD,)
        takes_images = _takes_images(spec)
        for case in spec.layers:
            layouts = tuple(LAYOUTS) if takes_images and case.images else ("",)
            for dtype, layout, direction in itertools.product(dtypes, layouts, directions):
                yield Bench("op", spec.name, case.name, dtype, layout, direction, device)


def _takes_images(spec: OpSpec) -> bool:
    first = spec.cases[0].make(torch.float32, "cpu", torch.Generator())[0]
    return bool(first.dim() == 4)


def _network_benches(device: str) -> Iterable[Bench]:
    for name in list_models(task="classification"):
        for dtype in NETWORK_DTYPES[torch.device(device).type]:
            for direction, batches in BATCHES[torch.device(device).type].items():
                for batch in batches:
                    yield Bench("network", name, f"batch {batch}", dtype, "", direction, device)


def _detector_benches(device: str) -> Iterable[Bench]:
    if torch.device(device).type == "cpu":
        for name, cases in CASES.items():
            for case in cases:
                yield Bench("detector", name, case.layer, "float32", "", FORWARD, device)


# One layer of each op that shows what it is for; the second is for an op whose only rival is its slow reference.
_QUICK_LAYERS = {
    "hardswish": ("mobilenet_v3 16x240x28x28",) * 2,
    "roi_align": (
        "1000 boxes of 1x256x200x200, 7x7, sampling 2",
        "100 boxes of 1x256x50x50, 7x7, sampling 2",
    ),
    "nms": ("6000 boxes",) * 2,
}
_QUICK_NETWORKS = ("mobilenet_v3_large", "resnet50")


def quick_benches(device: str = "cpu") -> list[Bench]:
    """Three ops and two networks on one image, forward, in float32: what a first look shows."""
    layers = {name: choice[0 if SPECS[name].peer else 1] for name, choice in _QUICK_LAYERS.items()}
    layers |= dict.fromkeys(_QUICK_NETWORKS, "batch 1")
    return [
        bench
        for bench in list_benches(device)
        if bench.layer == layers.get(bench.subject)
        and (bench.dtype, bench.direction) == ("float32", FORWARD)
        and bench.layout in ("", "contiguous")
    ]


def one_line(error: BaseException) -> str:
    """The first line of an error's text, for a table."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
