"""Imports run one way, names agree: the house as README draws it, read from the sources."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# What each package may import of fastcnn; a module may always import its own package.
ALLOWED = {
    "kernels": set(),
    # Of state dicts and any module, so it needs none of the others.
    "fastcnn/compress": set(),
    "fastcnn/ops": {"_backend", "kernels"},
    "fastcnn/nn": {"ops"},
    "fastcnn/models": {"nn", "ops"},
    "fastcnn/data": {"models", "ops"},
    "fastcnn/metrics": {"data", "models", "ops"},
    "fastcnn/train": {"data", "metrics", "models", "_progress"},
    "fastcnn/visualize": {"models", "nn", "ops"},
    "fastcnn/testing": {"_progress", "ops", "nn", "models", "data", "_backend", "__version__", "reference_mode"},
    "tests": None,
    "bench": None,
}


def imported(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_run_one_way(package):
    own = {"kernels": "kernels"}.get(package, package.rpartition("/")[2])
    for path in (ROOT / package).rglob("*.py"):
        for name in imported(path):
            first, _, rest = name.partition(".")
            assert first != "kernels", f"{path}: fastcnn.kernels, never the top-level folder"
            if package in ("tests", "bench"):
                assert first != {"tests": "bench", "bench": "tests"}[package], f"{path} imports {name}"
            elif first == "fastcnn":
                part = rest.split(".")[0]
                assert part == own or part in ALLOWED[package], f"{path} imports {name}"


def test_triton_is_imported_by_kernels_only():
    for path in (ROOT / "fastcnn").rglob("*.py"):
        assert not [n for n in imported(path) if n.split(".")[0] == "triton"], path


def test_one_op_has_one_name():
    """Public function = schema = file = csrc folder = row of the table."""
    from fastcnn import ops
    from fastcnn.ops import _library
    from fastcnn.testing.specs import SPECS

    assert set(ops.__all__) == set(SPECS)
    for name in ops.__all__:
        assert name in _library.ops
        assert (ROOT / f"fastcnn/ops/{name}.py").exists()
        assert (ROOT / f"csrc/{name}/{name}_cpu.cpp").exists()
        op = _library.ops[name]
        assert op.cuda == (ROOT / f"csrc/{name}/{name}_cuda.cu").exists()
        assert not op.triton or (ROOT / f"kernels/{op.triton}.py").exists()


def test_cuda_sources_register_what_is_said_to_have_a_kernel():
    """Backward ops among them; what is missing on either side, the reference would compute without a word."""
    from fastcnn.ops import _library

    sources = "".join(path.read_text() for path in (ROOT / "csrc").rglob("*.cu"))
    registered = sorted(re.findall(r'm\.impl\("(\w+)"', sources))
    assert registered == sorted(name for name, op in _library.ops.items() if op.cuda)


def test_every_public_function_is_documented():
    from fastcnn import ops

    for name in ops.__all__:
        doc = getattr(ops, name).__doc__
        for section in ("Args:", "Returns:", "Raises:", "eterministic"):
            assert section in doc, f"{name}: its docstring does not say {section!r}"


def test_readme_names_what_is_there():
    readme = (ROOT / "README.md").read_text()
    from fastcnn import ops
    from fastcnn.models import list_models

    for name in (*ops.__all__, *list_models()):
        assert f"`{name}`" in readme, f"README does not list {name}"
    for line in readme.splitlines():
        if line.startswith(
            (
                "    csrc/",
                "    kernels/",
                "    fastcnn/",
                "    tests/",
                "    bench/",
                "    docs/",
                "    examples/",
            )
        ):
            assert (ROOT / line.split()[0]).exists(), f"README: {line.split()[0]} does not exist"
