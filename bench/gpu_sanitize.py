"""Kernels that share memory or wait for one another, on small inputs: what compute-sanitizer watches for gpu-check.

    compute-sanitizer --tool memcheck python bench/gpu_sanitize.py

Set PYTORCH_NO_CUDA_MEMORY_CACHING=1 for memcheck: within PyTorch's pool a kernel may go beyond its tensors unseen.
Exit status: 0, or 1 where kernels are missing or an op never ran.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # A plain checkout, with nothing installed.

import torch

import fastcnn
from fastcnn.ops import _library
from fastcnn.testing.spec import Case, OpSpec, in_format, outputs
from fastcnn.testing.specs import SPECS

OPS = (
    "nms",
    "squeeze_excite",
    "roi_align",
    "batched_nms",
    "multi_scale_roi_align",
    "batched_nms_padded",
    "roi_pool",
)


def calls(device: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """The first case of every op, then the second of every one, and so on, in two dtypes and layouts."""
    for cases in itertools.zip_longest(*(SPECS[name].cases for name in OPS)):
        for name, case in zip(OPS, cases, strict=True):
            if case is None:
                continue
            layouts = (torch.contiguous_format, torch.channels_last) if SPECS[name].gradients else (None,)
            for dtype, layout in itertools.product((torch.float32, torch.float16), layouts):
                yield f"{name}, {case.name}, {dtype}, {layout}", _call(SPECS[name], case, dtype, layout, device)


def _call(
    spec: OpSpec, case: Case, dtype: torch.dtype, layout: torch.memory_format | None, device: str
) -> Callable[[], None]:
    def call() -> None:
        # Made on the CPU: what is watched are our kernels, not PyTorch's.
        args = case.make(dtype, "cpu", torch.Generator().manual_seed(0))
        args = args if layout is None else in_format(spec, args, layout)
        args = tuple(a.to(device) if isinstance(a, torch.Tensor) else a for a in args)
        leaves = [args[i].requires_grad_() for i in spec.gradients if isinstance(args[i], torch.Tensor)]
        result = outputs(spec.function(*args, **case.kwargs))
        if leaves:
            torch.autograd.grad(result[0], leaves, torch.ones_like(result[0]))

    return call


def write(file: Path | None, ran: list[str], left_out: list[str]) -> list[str]:
    """Says what ran and what did not, in `file` by name; returns the ops that never ran."""
    never = [op for op in OPS if not any(name.startswith(f"{op}, ") for name in ran)]
    print(f"gpu_sanitize: {len(ran)} calls, {len(left_out)} left out for want of time")
    if never:
        print(f"gpu_sanitize: NEVER RAN: {', '.join(never)}", file=sys.stderr)
    if file is not None:
        counts = {"calls": len(ran), "calls_left_out": len(left_out)}
        file.write_text(json.dumps({**counts, "never_ran": never, "ran": ran, "left_out": left_out}, indent=1) + "\n")
    return never


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no call after that long")
    parser.add_argument("--json", type=Path, help="writes to this file what ran and what was left out")
    options = parser.parse_args()
    missing = [f"{name}: {part.detail}" for name, part in fastcnn.report().parts.items() if not part.available]
    if options.device == "cuda" and missing:
        print(f"gpu_sanitize: kernels are missing: {'; '.join(missing)}", file=sys.stderr)
        return 1
    start, every, ran = time.monotonic(), list(calls(options.device)), list[str]()
    try:
        with _library.kernel_mode():
            for name, call in every:
                if time.monotonic() - start > options.seconds:
                    break
                print(name, flush=True)
                call()
                if options.device == "cuda":
                    torch.cuda.synchronize()
                ran.append(name)
    finally:  # Of a run cut short, too.
        never = write(options.json, ran, [name for name, _ in every[len(ran) :]])
    return int(bool(never))


if __name__ == "__main__":
    sys.exit(main())
