"""The package imports and every op works whatever is missing, and the report says what and why."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastcnn
from fastcnn.ops import _library

PACKAGE = Path(fastcnn.__file__).parent
USE_EVERY_OP = """
import torch, fastcnn
x = torch.randn(1, 4, 9, 9, requires_grad=True)
fastcnn.ops.hardswish(x).sum().backward()
fastcnn.ops.hardswish(torch.randn(1 << 20).half())
fastcnn.ops.roi_align(x, torch.tensor([[0., 1, 1, 5, 5]]), 3).sum().backward()
assert fastcnn.ops.nms(torch.tensor([[0., 0, 1, 1]] * 3), torch.rand(3), 0.5).numel() == 1
print(fastcnn.report())
"""


def run(code: str, cwd=None, **env: str) -> subprocess.CompletedProcess:
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def test_switched_off():
    result = run(USE_EVERY_OP, FASTCNN_NATIVE="0")
    assert "switched off by FASTCNN_NATIVE=0" in result.stdout
    for op in ("hardswish", "roi_align", "nms"):
        assert result.stderr.count(f"fastcnn.{op} runs its PyTorch reference on cpu") == 1, "say it once"


@pytest.fixture
def copy_of_the_package(tmp_path):
    """The sources, as an install without a compiler has them; what is built stays behind."""
    for folder in (PACKAGE, PACKAGE.parent / "kernels"):
        shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return tmp_path


# The copy must come before an editable install of the package, whose finder goes first.
FROM_HERE = (
    "import sys; sys.path.insert(0, '.'); sys.meta_path = [f for f in sys.meta_path if 'editable' not in str(f)]\n"
)


def test_no_compiler(copy_of_the_package):
    result = run(FROM_HERE + USE_EVERY_OP, cwd=copy_of_the_package)
    assert "not built: this install had no C++ compiler" in result.stdout


def test_broken_extension(copy_of_the_package):
    (copy_of_the_package / "fastcnn/_C.abi3.so").write_bytes(b"not a library")
    result = run(FROM_HERE + USE_EVERY_OP, cwd=copy_of_the_package)
    assert "does not load beside torch" in result.stdout
    assert "invalid ELF header" in result.stdout or "too short" in result.stdout


def test_no_triton():
    result = run("import sys; sys.modules['triton'] = None\n" + USE_EVERY_OP)
    assert "not installed: pip install 'fastcnn[triton]'" in result.stdout


def test_import_needs_only_torch_and_numpy():
    """Nor does importing compile anything, or load Triton."""
    code = (
        "import sys, torch, numpy; before = set(sys.modules); import fastcnn\n"
        "new = {m.partition('.')[0] for m in set(sys.modules) - before}\n"
        "print(sorted(m for m in new if m not in sys.stdlib_module_names and not m.startswith('_')))"
    )
    assert set(ast.literal_eval(run(code).stdout)) <= {"fastcnn", "torch", "numpy"}


def test_report_lists_every_op_on_every_device():
    report = fastcnn.report()
    assert set(report.ops) == set(_library.ops)
    assert all(set(devices) == {"cpu", "cuda"} for devices in report.ops.values())
    assert str(report) == repr(report)


def test_reference_mode_ends_with_an_error():
    with pytest.raises(KeyError), fastcnn.reference_mode():
        raise KeyError
    assert _library.mode.name == "auto"
