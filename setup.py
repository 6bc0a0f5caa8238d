"""Builds the compiled extension; everything else about the package is in pyproject.toml.

FASTCNN_NATIVE=auto (default) builds the C++ kernels where a compiler and PyTorch's headers are, and installs without
them where they are not; 1 makes a failure an error; 0 does not try. FASTCNN_CUDA=auto|0|1 does the same for CUDA.
FASTCNN_CUDA_ARCHS="80 90" builds for these GPUs only, which is quicker than for all.
FASTCNN_SANITIZE=1 builds with AddressSanitizer and UndefinedBehaviorSanitizer, for `make asan`.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from setuptools import Command, Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

NATIVE = os.environ.get("FASTCNN_NATIVE", "auto")
CUDA = os.environ.get("FASTCNN_CUDA", "auto")

MACROS = [
    ("TORCH_TARGET_VERSION", "0x020b000000000000"),  # The stable ABI of torch 2.11.
    ("Py_LIMITED_API", "0x030a0000"),
]
CXX_FLAGS = [
    "-std=c++20",
    "-O3",
    "-g0",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-Wall",
    "-Wno-unknown-warning-option",
    "-Wno-psabi",
    "-Wno-maybe-uninitialized",
    "-Wno-uninitialized",  # g++ 12 warns of its own AVX-512 header.
]
LINK_FLAGS = []
if os.environ.get("FASTCNN_SANITIZE") == "1":
    LINK_FLAGS = ["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"]
    CXX_FLAGS += [*LINK_FLAGS, "-O1", "-g1", "-fno-omit-frame-pointer"]
    # Python's own flags define signed overflow, which would hide it.
    CXX_FLAGS += ["-fno-wrapv", "-fno-wrapv-pointer"]
    # g++ took ten minutes for a file of many unrolled loops: AddressSanitizer's checks are calls now, and what it sees
    # better is left to it.
    CXX_FLAGS += ["--param", "asan-instrumentation-with-call-threshold=0", "-fno-sanitize=object-size,pointer-overflow"]
ISA_FLAGS = {"baseline": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    MACROS.append(("FASTCNN_X86_LEVELS", None))
    ISA_FLAGS["avx2"] = ["-mavx2", "-mfma", "-mf16c"]
    ISA_FLAGS["avx512"] = [*ISA_FLAGS["avx2"], "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]

# Suppression must round every step as written, so that it agrees with torchvision to the bit.
KERNEL_FLAGS = {"csrc/nms/nms_kernel.cpp": ["-ffp-contract=off"]}
KERNELS = sorted(str(path) for path in Path("csrc").glob("*/*_kernel.cpp"))
SOURCES = [
    "csrc/module.cpp",
    *sorted(
        str(p)
        for pattern in ("*_cpu.cpp", "isa.cpp", "memory.cpp", "tensor.cpp")
        for p in Path("csrc").glob(f"*/{pattern}")
    ),
]

CUDA_SOURCES = sorted(str(path) for path in Path("csrc").glob("*/*_cuda.cu"))
CUDA_ARCHS = tuple(os.environ.get("FASTCNN_CUDA_ARCHS", "80 86 89 90 100").split())
NVCC_FLAGS = [
    "-std=c++20",
    "-O3",
    "-DUSE_CUDA",
    "--threads=0",
    "--expt-relaxed-constexpr",
    "-Xcompiler=-fPIC,-fvisibility=hidden",
]
NVCC_FLAGS += [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in CUDA_ARCHS]
NVCC_FLAGS += [f"-gencode=arch=compute_{CUDA_ARCHS[-1]},code=compute_{CUDA_ARCHS[-1]}"]


def torch_dir() -> Path | None:
    """Where PyTorch lies, found without importing it: an isolated build has no torch, the environment around it may."""
    spec = find_spec("torch")
    candidates = [Path(spec.origin).parent] if spec and spec.origin else []
    candidates += [Path(sysconfig.get_paths()[key], "torch") for key in ("platlib", "purelib")]
    if "VIRTUAL_ENV" in os.environ:
        candidates += sorted(Path(os.environ["VIRTUAL_ENV"]).glob("lib/python3*/site-packages/torch"))
    return next((c for c in candidates if (c / "include/torch/csrc/stable/library.h").exists()), None)


TORCH = torch_dir()
INCLUDE_DIRS = [str(TORCH / "include")] if TORCH else []


def nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME")
    return shutil.which("nvcc", path=os.path.join(home, "bin") if home else None)


def cuda_library_dirs() -> list[str]:
    """Where nvcc's own libraries are. It is asked, since nvcc on PATH may be a link or a script far from them."""
    said = subprocess.run([nvcc(), "--dryrun", CUDA_SOURCES[0]], capture_output=True, text=True).stderr
    top = re.search(r"TOP=(.*)", said)
    found = [f"{top[1].strip()}/{name}" for name in ("lib64", "lib")] if top else []
    return [*found, *re.findall(r'"-L([^"]*)"', said)]


def compile_cuda(source: str, output: str, extra: list[str]) -> None:
    defines = [f"-D{name}" if value is None else f"-D{name}={value}" for name, value in MACROS]
    includes = [f"-I{directory}" for directory in INCLUDE_DIRS]
    command = [nvcc(), "-c", source, "-o", output, *NVCC_FLAGS, *defines, *includes, *extra]
    if subprocess.run(command).returncode:
        # The one error that setuptools lets an optional extension have: an nvcc too old must not stop the installation.
        raise CompileError(f"nvcc failed: {' '.join(command)}")


class BuildKernels(build_ext):
    """Compiles every kernel for every level, several at once, and only what changed since the last build."""

    def build_extension(self, ext):
        cpu = ext.name == "fastcnn._C"
        jobs = [(source, "glue", []) for source in ext.sources]
        if cpu:
            for isa, flags in ISA_FLAGS.items():
                define = f"-DFASTCNN_ISA={isa}"
                jobs += [(kernel, isa, [define, *flags, *KERNEL_FLAGS.get(kernel, [])]) for kernel in KERNELS]
        ext.sources = []
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            # The first to begin, since they take longest.
            cuda = pool.map(self.compile_one_cuda, () if cpu else CUDA_SOURCES)
            ext.extra_objects += [*pool.map(lambda job: self.compile_one(*job), jobs), *cuda]
        super().build_extension(ext)

    def compile_one(self, source: str, directory: str, flags: list[str]) -> str:
        output = Path(self.build_temp, directory)
        compiled = output / source.replace(".cpp", ".o")
        if not up_to_date(compiled):
            flags = [*CXX_FLAGS, "-MMD", *flags]
            self.compiler.compile([source], str(output), macros=MACROS, include_dirs=INCLUDE_DIRS, extra_postargs=flags)
        return str(compiled)

    def compile_one_cuda(self, source: str) -> str:
        compiled = Path(self.build_temp, Path(source).stem + ".o")
        compiled.parent.mkdir(parents=True, exist_ok=True)
        compile_cuda(source, str(compiled), [])
        return str(compiled)


def up_to_date(compiled: Path) -> bool:
    """Whether the object is newer than this file and all that the compiler noted to have read for it."""
    noted = compiled.with_suffix(".d")
    if not (compiled.exists() and noted.exists()):
        return False
    read = noted.read_text().replace("\\\n", " ").split()[1:]
    built = compiled.stat().st_mtime
    return all(os.path.exists(f) and os.path.getmtime(f) < built for f in ("setup.py", *read))


class CudaCheck(Command):
    """Compiles every CUDA source for every architecture; needs nvcc, but neither a GPU nor a CUDA build of torch.

    A kernel that spills registers or keeps an array in local memory is an error: no kernel does.
    """

    user_options: ClassVar[list] = []

    def initialize_options(self):
        pass

    def finalize_options(self):
        if nvcc() is None or TORCH is None:
            sys.exit("cuda_check: needs nvcc on PATH (or CUDA_HOME) and PyTorch in this environment")

    def run(self):
        strict = ["-Werror=all-warnings", "-Xptxas=-warn-spills,-warn-lmem-usage"]
        with tempfile.TemporaryDirectory() as directory:
            for source in CUDA_SOURCES:
                print(f"cuda_check: {source} for sm_{', sm_'.join(CUDA_ARCHS)}", flush=True)
                compile_cuda(source, os.path.join(directory, "check.o"), strict)
        print(f"cuda_check: {len(CUDA_SOURCES)} sources compiled for {len(CUDA_ARCHS)} architectures")


def extensions() -> list[Extension]:
    if NATIVE == "0":
        return []
    if TORCH is None:
        if NATIVE == "1":
            sys.exit("FASTCNN_NATIVE=1: PyTorch >= 2.11 must be installed before building (its headers are needed)")
        print(
            "fastcnn: no PyTorch found beside this build; installing without compiled kernels",
            file=sys.stderr,
        )
        return []
    common = {
        "define_macros": MACROS,
        "include_dirs": INCLUDE_DIRS,
        "library_dirs": [str(TORCH / "lib")],
        "extra_link_args": LINK_FLAGS,
        "depends": ["setup.py", *sorted(str(path) for path in Path("csrc").glob("*/*"))],
        "py_limited_api": True,
        "language": "c++",
        "optional": NATIVE != "1",
    }
    found = [Extension("fastcnn._C", SOURCES, libraries=["torch", "torch_cpu"], **common)]
    has_cuda = nvcc() is not None and (TORCH / "lib/libtorch_cuda.so").exists()
    if CUDA == "1" and not has_cuda:
        sys.exit("FASTCNN_CUDA=1: needs nvcc on PATH (or CUDA_HOME) and a CUDA build of PyTorch")
    if CUDA != "0" and has_cuda:
        common["library_dirs"] = [*common["library_dirs"], *cuda_library_dirs()]
        # A symbol nobody defines is found here, not when a user imports.
        common["extra_link_args"] = ["-Wl,-z,defs"]
        libraries = ["torch", "torch_cpu", "torch_cuda", "cudart_static", "rt", "dl", "pthread"]
        found.append(Extension("fastcnn._C_cuda", ["csrc/common/tensor.cpp"], libraries=libraries, **common))
    return found


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildKernels, "cuda_check": CudaCheck},
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if NATIVE != "0" and TORCH else {},
)
