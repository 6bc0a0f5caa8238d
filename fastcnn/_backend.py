"""Loads what was compiled, remembers why something was not, and says what runs where."""

from __future__ import annotations

import importlib.util
import logging
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

logger = logging.getLogger("fastcnn")

_noted: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class Part:
    """One thing that may be missing: whether it is there, and what it is or why it is not."""

    available: bool
    detail: str


def _load_cpu() -> Part:
    if os.environ.get("FASTCNN_NATIVE") == "0":
        return Part(False, "switched off by FASTCNN_NATIVE=0")
    if importlib.util.find_spec("fastcnn._C") is None:
        return Part(False, "not built: this install had no C++ compiler, or FASTCNN_NATIVE=0")
    try:
        from fastcnn import _C  # type: ignore[attr-defined]
    except Exception as error:  # A broken library must never keep the package from importing.
        return Part(False, f"does not load beside torch {torch.__version__}: {_one_line(error)}")
    wanted = os.environ.get("FASTCNN_ISA", _C.isa)
    if wanted != _C.isa:
        return Part(True, f"{_C.isa} kernels (FASTCNN_ISA={wanted} is not a level of this CPU)")
    return Part(True, f"{_C.isa} kernels")


def _load_cuda() -> Part:
    if os.environ.get("FASTCNN_NATIVE") == "0":
        return Part(False, "switched off by FASTCNN_NATIVE=0")
    libraries = sorted(Path(__file__).parent.glob("_C_cuda*.so"))
    if not libraries:
        return Part(False, "not built: needs nvcc and a CUDA build of torch at build time")
    if torch.version.cuda is None:
        return Part(False, f"built, but torch {torch.__version__} has no CUDA")
    try:
        torch.ops.load_library(str(libraries[0]))
    except Exception as error:
        return Part(False, f"does not load beside torch {torch.__version__}: {_one_line(error)}")
    return Part(True, "CUDA C++ kernels")


def _find_triton() -> Part:
    if importlib.util.find_spec("triton") is None:
        return Part(False, "not installed: pip install 'fastcnn[triton]'")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return Part(True, f"triton {version('triton')}")
    except PackageNotFoundError:
        return Part(True, "triton")


def _one_line(error: BaseException) -> str:
    # torch wraps what the loader said, which is what one needs to know.
    error = error.__cause__ or error
    return " ".join(str(error).split()) or type(error).__name__


cpu = _load_cpu()
cuda = _load_cuda()
triton = _find_triton()


def empty_cache() -> None:
    """Returns to the system the memory that is kept for large results of ops on a CPU and is not in use.

    Results of 1 MB and more, on Linux, lie in memory that is kept when they are freed, since memory fresh from the
    system takes longer to clear than most ops take. At most an eighth of the memory there is, or ``FASTCNN_CACHE_MB``
    megabytes (of 2^20 bytes; 0 keeps none), read once from the environment, stays so while unused.
    """
    if cpu.available:
        from fastcnn import _C  # type: ignore[attr-defined]

        _C.empty_cache()


def note_fallback(op: str, device: str, reason: str) -> None:
    """Logs, once per op and device, that the reference runs where a kernel could have."""
    if (op, device) not in _noted:
        _noted.add((op, device))
        logger.warning("%s runs its PyTorch reference on %s: %s", op, device, reason)


@dataclass(frozen=True)
class Report:
    """What runs where and why not more; `str()` of it is the table `fastcnn doctor` prints."""

    versions: dict[str, str]
    parts: dict[str, Part]
    ops: dict[str, dict[str, str]]

    def __str__(self) -> str:
        lines = ["fastcnn " + self.versions["fastcnn"]]
        lines += [f"  {name:<10} {value}" for name, value in self.versions.items() if name != "fastcnn"]
        lines.append("parts")
        lines += [f"  {name:<10} {'yes' if p.available else 'no ':<3}  {p.detail}" for name, p in self.parts.items()]
        lines.append("ops")
        width = max(len(name) for name in self.ops)
        for name, devices in self.ops.items():
            lines.append(f"  {name:<{width}}  " + "   ".join(f"{device}: {what}" for device, what in devices.items()))
        return "\n".join(lines)

    __repr__ = __str__


def report() -> Report:
    """Says which kernels run on which device here, and for every part that is missing why.

    Returns:
        A :class:`Report`; print it, or read its fields. Computed from what was loaded, nothing is run.
    """
    from fastcnn import __version__
    from fastcnn.ops import _library

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none that torch can use"
    versions = {
        "fastcnn": __version__,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "platform": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
        "gpu": gpu,
    }
    parts = {"cpu": cpu, "cuda": cuda, "triton": triton}
    ops = {op.name: {"cpu": op.where("CPU"), "cuda": op.where("CUDA")} for op in _library.ops.values()}
    return Report(versions, parts, ops)
