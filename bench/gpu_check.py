"""``make gpu-check``: builds with CUDA, runs the GPU tests and benches, writes JSON to $OUT or bench/results.

Needs a GPU, a CUDA build of torch, nvcc and pytest; no network, no installation. Every step has its own time, and all
of them together less than nine minutes. Exit status: 0, 1 where a step failed, 2 without a GPU.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # A plain checkout, with nothing installed.

import torch  # noqa: E402

from fastcnn.testing.environment import environment  # noqa: E402
from fastcnn.testing.steps import Step, run_steps  # noqa: E402


def steps(out: Path) -> list[Step]:
    path = {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
    bench = ["-m", "fastcnn", "bench", "--device", "cuda", "--plain"]
    if importlib.util.find_spec("skimage") is None:
        bench += ["--image", "noise"]
    ops = ["--op", "hardswish", "roi_align", "nms", "--dtype", "float32", "float16"]
    networks = ["--model", "resnet50", "mobilenet_v3_large"]

    eager = [*networks, "--dtype", "float32", "bfloat16", "--no-compile"]

    def report(name: str) -> list[str]:
        return ["--json", str(out / f"{name}.json")]

    def bench_step(name: str, file: str, options: list[str], budget: float, within: int, seconds: int) -> Step:
        limits = ["--budget", str(budget), "--within", str(within)]
        return Step(name, [*bench, *options, *limits, *report(file)], seconds, path)

    build = ["setup.py", "build_ext", "--inplace"]
    return [
        Step("build the kernels, CUDA included", build, 150, {"FASTCNN_NATIVE": "1", "FASTCNN_CUDA": "1"}),
        Step("GPU tests", ["-m", "pytest", "tests", "-m", "gpu", "-q"], 130, path),
        bench_step("bench ops", "gpu_ops", [*ops, "--no-compile"], 0.3, within=80, seconds=95),
        bench_step("bench networks, eager", "gpu_networks", eager, 0.5, within=45, seconds=60),
        bench_step("bench, torch.compile included", "gpu_quick", ["--quick"], 0.5, within=60, seconds=90),
    ]


def main() -> int:
    if not torch.cuda.is_available():
        print(f"gpu-check: no GPU that torch {torch.__version__} can use; nothing was checked", file=sys.stderr)
        return 2
    out = Path(os.environ.get("OUT", ROOT / "bench/results")).resolve()
    out.mkdir(parents=True, exist_ok=True)
    outcomes = run_steps(steps(out), ROOT)
    record = {"environment": environment(), "steps": outcomes}
    (out / "gpu_check.json").write_text(json.dumps(record, indent=1) + "\n")
    return int(any(outcome["status"] != "ok" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
