"""What a measurement depends on, recorded beside it; nothing that names the machine or its owner."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from fastcnn import __version__, _backend
from fastcnn.testing.runtimes import RUNTIMES


def environment() -> dict[str, Any]:
    """Versions, processor, kernels in use, threads and GPU; None where there is nothing to say."""
    gpu = torch.cuda.is_available()
    parts = {"cpu": _backend.cpu, "cuda": _backend.cuda}
    return {
        "fastcnn": __version__,
        "commit": _commit(),
        "torch": torch.__version__,
        "triton": _version("triton"),
        "torchvision": _torchvision(),
        **{name: _version(name) for name in RUNTIMES},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "threads": torch.get_num_threads(),
        "kernels": {name: part.detail if part.available else None for name, part in parts.items()},
        "gpu": torch.cuda.get_device_name() if gpu else None,
        "driver": _driver() if gpu else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if gpu else None,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torchvision() -> str | None:
    try:
        import torchvision
    except Exception:  # Its wheel may be built for another torch, which shows as any of several errors.
        return None
    return torchvision.__version__


def _cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def _commit() -> str | None:
    root = Path(_backend.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    commit = _output("git", "-C", str(root), "rev-parse", "--short=12", "HEAD")
    changed = _output("git", "-C", str(root), "status", "--porcelain", "--untracked-files=no")
    return f"{commit} with changes" if commit and changed else commit


def _driver() -> str | None:
    lines = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return lines.splitlines()[0] if lines else None


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
