"""CUDA kernels compiled for the CPU under cuda_emulator.h, and what their tests share."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

DTYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}


def compiled(source: str, directory: Path) -> ctypes.CDLL:
    """The library of a file beside this one; skips the test where there is no compiler."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler: the CUDA kernels cannot be emulated")
    library = directory / f"{source}.so"
    flags = ["-std=c++20", "-O1", "-U_FORTIFY_SOURCE", "-fno-strict-aliasing", "-ffp-contract=off", "-fPIC", "-shared"]
    subprocess.run([compiler, *flags, str(Path(__file__).with_name(source)), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def pointer(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


class Guarded:
    """A tensor full of NaN (integers: -7) inside a larger one, whose other elements must stay as they are."""

    def __init__(self, size, dtype, layout=torch.contiguous_format):
        numel = 1
        for n in size:
            numel *= n
        self.fill = float("nan") if dtype.is_floating_point else -7
        self.memory = torch.full((numel + 128,), self.fill, dtype=dtype)
        strides = torch.empty(size, device="meta", memory_format=layout).stride()
        self.tensor = self.memory[64 : 64 + numel].as_strided(size, strides, 64)

    def checked(self) -> torch.Tensor:
        outside = torch.cat([self.memory[:64], self.memory[-64:]])
        torch.testing.assert_close(outside, torch.full_like(outside, self.fill), equal_nan=True, msg="out of bounds")
        return self.tensor
