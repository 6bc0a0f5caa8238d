"""Detectors on a photograph, from its pixels to boxes: fused, as they are, in plain PyTorch and with reference ops."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcnn.models import create
from fastcnn.models.detection.detector import Detector
from fastcnn.models.detection.postprocess import Detections
from fastcnn.nn import MultiScaleRoIAlign
from fastcnn.ops import _library
from fastcnn.testing.benches import Bench, Prepared
from fastcnn.testing.detector_cases import CASES, DetectorCase
from fastcnn.testing.network_rows import channels_last, plain_torch

_STD = 2.0  # Of the logits of classes.
_SAME = 0.98  # Of detections that must be found by all; others lie at a threshold, and rounding decides.
_APART = 1e-3  # Scores, and corners over the image's sides, of what counts as the same detection.


def prepare_detector(
    bench: Bench, image: Tensor, *, weights: Mapping[str, str | PathLike[str]] | None = None
) -> Prepared:
    """A detector from images to detections, for inference in float32 on a CPU.

    Of one image, the rows are ``fastcnn``, after ``fuse()``; "unfused", the same before; "eager", the same of
    ``torch.nn`` layers with our ops for RoIs and suppression, which PyTorch has none of; the last two but "eager" in
    channels_last; and "reference", the unfused network in NCHW within :func:`fastcnn.reference_mode`. Of several,
    ``fastcnn`` takes them at once, and "one by one" is the same network called for each.

    Args:
        bench: of kind "detector", a case of CASES.
        image: uint8 pixels ``[3, H, W]``; a batch has it rolled sideways by equal steps.
        weights: files by name of network; where there is none, seeded random weights, see :func:`calibrate`.

    Raises:
        AssertionError: detections that differ by more than rounding.
    """
    case = next(case for case in CASES[bench.subject] if case.layer == bench.layer)
    torch.manual_seed(0)
    file = (weights or {}).get(bench.subject)
    net = create(bench.subject, weights=file, **case.options).eval()
    images = [image.roll(i * image.shape[-1] // case.images, -1).float() / 255 for i in range(case.images)]
    if file is None:
        calibrate(net, images, case)
    twin = plain_torch(net, keep=(MultiScaleRoIAlign,))
    ours = channels_last(copy.deepcopy(net)).fuse()  # type: ignore[operator]
    if case.images > 1:
        calls = {"fastcnn": lambda: ours(images), "one by one": lambda: [ours([each])[0] for each in images]}
    else:
        others = {"eager": twin, "eager channels_last": channels_last(copy.deepcopy(twin))}
        calls = {name: _run(each, images) for name, each in (("fastcnn", ours), *others.items())}
        calls["unfused"] = _run(channels_last(copy.deepcopy(net)), images)
        calls["reference"] = _in_reference_mode(_run(net, images))
    prepared = Prepared(calls, context=torch.inference_mode)
    with prepared.context():
        last = list(calls)[-1]
        wanted = calls[last]()
        for name in list(calls)[:-1]:
            assert_same_detections(calls[name](), wanted, images, what=f"{bench.group}: {name} and {last}")
    prepared.notes["detections"] = [len(each["boxes"]) for each in wanted]
    prepared.notes["weights"] = "untrained (seed 0)" if file is None else "loaded"
    return prepared


@torch.no_grad()
def calibrate(net: Any, images: Sequence[Tensor], case: DetectorCase) -> None:
    """Makes an untrained detector, in place, one whose suppression has as much to do as a trained one's.

    Its norms get the statistics of the images, and the layers of classes are scaled and shifted so that logits spread
    and ``case.candidates`` scores of an image are above the threshold.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train().momentum = None  # The mean of all batches: of the one that comes.
    net.forward_layers(_batch(net, [*images, *(image.flip(-1) for image in images)]))
    for norm in norms:
        norm.eval().momentum = 0.1
    if case.classes is None:
        return
    within: list[Any] = [m for m in net.get_submodule(case.classes).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    # Others there, which have no bias or other widths, make features.
    layers = [m for m in within if m.bias is not None and m.weight.size(0) % net.num_classes == 0]
    logits: list[Tensor] = []

    def see(layer: Any, inputs: Any, output: Tensor) -> None:
        factor, mean = _STD / output.std(), output.mean()
        layer.weight *= factor
        layer.bias.sub_(mean).mul_(factor)
        logits.append((output - mean).mul_(factor).movedim(1, -1).reshape(-1, net.num_classes))

    # Of a map the first; levels of a pyramid share a layer, which is changed once.
    hooks = [layer.register_forward_hook(_once(see)) for layer in layers]
    net(images)
    for hook in hooks:
        hook.remove()
    joined, count = torch.cat(logits), case.candidates * len(images)
    # Between one candidate and the next, or rounding would decide about the last.
    shift = (_shift(joined, net, count) + _shift(joined, net, count + 1)) / 2
    for layer in layers:
        bias = layer.bias.view(-1, net.num_classes)
        bias[:, :1] += shift if net.has_background else 0
        bias += 0 if net.has_background else shift


def _once(hook: Callable[..., None]) -> Callable[..., None]:
    seen: set[nn.Module] = set()

    def run(layer: nn.Module, *rest: Any) -> None:
        if layer not in seen:
            seen.add(layer)
            hook(layer, *rest)

    return run


def _shift(logits: Tensor, net: Any, candidates: int) -> float:
    """What to add to the background's logits, or where there is none to all, by bisection."""
    background, low, high = net.has_background, -50.0, 50.0
    for _ in range(40):
        middle = (low + high) / 2
        if background:
            scores = torch.cat((logits[:, :1] + middle, logits[:, 1:]), 1).softmax(1)[:, 1:]
        else:
            scores = (logits + middle).sigmoid()
        many = int((scores > net.row.score_threshold).sum()) > candidates
        low, high = (middle, high) if many == background else (low, middle)
    return low


def _batch(net: Any, images: Sequence[Tensor]) -> Tensor:
    if isinstance(net, Detector):
        return net.transform(images)[0]
    return F.interpolate(torch.stack(list(images)), (net.size,) * 2)


def _run(net: nn.Module, images: Sequence[Tensor]) -> Callable[[], Detections]:
    return lambda: net(images)  # type: ignore[no-any-return]


def _in_reference_mode(run: Callable[[], Detections]) -> Callable[[], Detections]:
    def call() -> Detections:
        with _library.reference_mode():
            return run()

    return call


def assert_same_detections(
    found: Detections,
    wanted: Detections,
    images: Sequence[Tensor],
    *,
    what: str,
    most: float = _APART,
    share: float = _SAME,
) -> None:
    """Raises AssertionError unless nearly all detections of each image are the same: class, box, score and mask.

    Args:
        most: difference of scores and masks, and of corners over the image's sides.
        share: of the detections of an image.
    """
    for first, second, image in zip(found, wanted, images, strict=True):
        sides = first["boxes"].new_tensor([image.shape[2], image.shape[1]] * 2)
        boxes = ((first["boxes"][:, None] - second["boxes"]) / sides).abs().amax(-1)
        same = (boxes <= most) & ((first["scores"][:, None] - second["scores"]).abs() <= most)
        same &= first["labels"][:, None] == second["labels"]
        if "masks" in first and same.numel():
            nearest = same.int().argmax(1)
            apart = (first["masks"] - second["masks"][nearest]).abs().mean((1, 2, 3))
            same &= (apart <= most)[:, None]
        for axis, name in ((1, "found"), (0, "wanted")):
            agree = same.any(axis).double().mean().item() if same.size(1 - axis) else 1.0
            assert agree >= share, f"{what}: {agree:.1%} of the detections {name} are the same, expected {share:.0%}"
