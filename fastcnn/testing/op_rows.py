"""An op and its rivals on a layer's input, compared before anything is timed."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastcnn.testing.benches import BACKWARD, DTYPES, LAYOUTS, Bench, Prepared, one_line
from fastcnn.testing.compare import assert_close_to
from fastcnn.testing.specs import SPECS, Case, OpSpec

# A reference whose call takes longer is compared with, not timed: its ratio says little, and it holds up the rest.
SLOWEST_REFERENCE = 3.0

Arguments = tuple[Any, ...]
Results = tuple[Tensor, ...]


def prepare_op(bench: Bench, *, compile: bool = True) -> Prepared:
    """An op, the ops people use today, and ``torch.compile`` of PyTorch's own; the reference where there are none.

    What all are compared with is the first rival's result in at least float32. A rival that does not take the dtype
    runs in float32 between two casts, as autocast runs it.

    Args:
        bench: of kind "op".
        compile: whether ``torch.compile`` is a rival.

    Raises:
        AssertionError: a result that differs by more than rounding.
    """
    spec = SPECS[bench.subject]
    case = next(case for case in spec.layers if case.name == bench.layer)
    backward = bench.direction == BACKWARD
    inputs = _inputs(bench, case)
    prepared = Prepared({}, context=torch.enable_grad if backward else torch.inference_mode)
    rivals = dict(spec.peer) or {"reference": spec.reference}
    with prepared.context():
        result = spec.function(*inputs[0], **case.kwargs)
        grad = None
        if backward:
            generator = torch.Generator().manual_seed(1)
            grad = torch.empty_like(result).copy_(torch.randn(result.shape, generator=generator))
        else:
            prepared.notes["bytes"] = sum(t.nbytes for t in (*inputs[0], result) if isinstance(t, Tensor))
        start = time.perf_counter()
        wide = tuple(_widen(argument) for argument in inputs[0])
        exact = _call(next(iter(rivals.values())), [wide], case, None if grad is None else _widen(grad))()
        seconds = time.perf_counter() - start
        if "reference" in rivals and seconds > SLOWEST_REFERENCE:
            del rivals["reference"]
            prepared.missing["reference"] = f"takes {seconds:.0f} s a call: compared with, not timed"
        if compile and "torch" in spec.peer:
            rivals["compile"] = torch.compile(spec.peer["torch"], dynamic=False)
        for name, function in {"fastcnn": spec.function, **rivals}.items():
            try:
                name, call, results = _try(name, function, inputs, case, grad)
            except Exception as error:  # A missing compiler shows as any of several errors.
                if name == "fastcnn":
                    raise
                prepared.missing[name] = one_line(error)
                continue
            _check(spec, f"{bench.group}: {name}", results, exact)
            prepared.calls[name] = call
    return prepared


def _inputs(bench: Bench, case: Case) -> list[Arguments]:
    """The arguments; on a GPU enough sets of them that no call finds its own in the second-level cache."""
    device = torch.device(bench.device)

    def make(seed: int) -> Arguments:
        first, *rest = case.make(DTYPES[bench.dtype], bench.device, torch.Generator().manual_seed(seed))
        if bench.layout:
            first = first.contiguous(memory_format=LAYOUTS[bench.layout])
        return first.requires_grad_(bench.direction == BACKWARD), *rest

    inputs = [make(0)]
    if device.type == "cuda":
        size = sum(a.nbytes for a in inputs[0] if isinstance(a, Tensor))
        cache = torch.cuda.get_device_properties(device).L2_cache_size
        inputs += [make(seed) for seed in range(1, min(1 + math.ceil(2 * cache / max(size, 1)), 16))]
    return inputs


def _call(
    function: Callable[..., Tensor], inputs: Sequence[Arguments], case: Case, grad: Tensor | None
) -> Callable[[], Results]:
    turn = itertools.cycle(inputs)

    def forward() -> Results:
        return (function(*next(turn), **case.kwargs),)

    def forward_backward() -> Results:
        args = next(turn)
        result = function(*args, **case.kwargs)
        return result, *torch.autograd.grad(result, args[0], grad)

    return forward if grad is None else forward_backward


def _try(
    name: str, function: Callable[..., Tensor], inputs: Sequence[Arguments], case: Case, grad: Tensor | None
) -> tuple[str, Callable[[], Results], Results]:
    """A row and its results on the first inputs, through float32 where the rival does not take the dtype as it is."""
    try:
        results = _call(function, inputs[:1], case, grad)()
    except Exception:
        if name == "fastcnn" or inputs[0][0].dtype == torch.float32:
            raise
        narrow = function

        def function(first: Tensor, *rest: Any, **kwargs: Any) -> Tensor:
            return narrow(first.float(), *map(_widen, rest), **kwargs).to(first.dtype)

        name += " via float32"
        results = _call(function, inputs[:1], case, grad)()
    return name, _call(function, inputs, case, grad), results


def _widen(argument: Any) -> Any:
    if not isinstance(argument, Tensor) or argument.dtype not in (torch.float16, torch.bfloat16):
        return argument
    return argument.detach().float().requires_grad_(argument.requires_grad)


def _check(spec: OpSpec, what: str, results: Results, exact: Results) -> None:
    if spec.exact:
        assert torch.equal(results[0], exact[0]), f"{what}: differs"
        return
    # A gradient sums what many outputs give back; as many, on average, as there are outputs for an input.
    spread = math.ceil(exact[0].numel() / max(exact[-1].numel(), 1))
    for part, actual, wanted in zip(("result", "gradient"), results, exact, strict=False):
        reduction = spec.reduction * (spread if part == "gradient" else 1)
        assert_close_to(actual.detach(), wanted.detach().double(), reduction=reduction, what=f"{what}: {part}")
