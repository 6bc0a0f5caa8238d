"""The CUDA kernels, compiled for the CPU under cuda_emulator.h: their logic is tested without a GPU."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def kernels(tmp_path_factory):
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler: the CUDA kernels cannot be emulated")
    library = tmp_path_factory.mktemp("emulator") / "kernels.so"
    flags = ["-std=c++20", "-O1", "-U_FORTIFY_SOURCE", "-fno-strict-aliasing", "-ffp-contract=off", "-fPIC", "-shared"]
    sources = sorted(map(str, HERE.glob("emulated_*.cpp")))
    subprocess.run([compiler, *flags, *sources, "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))
