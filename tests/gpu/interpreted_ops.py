"""Run by test_triton_interpreter.py, in a process where TRITON_INTERPRET=1: ops whose kernels take CPU tensors there.

Every case of the contract suite and the tests of what is special go through the public functions. All memory that a
call allocates or is given lies between NaN, and is NaN itself until it is written.
"""

import os
from importlib import import_module

os.environ["FASTCNN_NATIVE"] = "0"  # The kernels in C++ are not to answer.

import pytest
import test_contract as contract
import test_local_response_norm as normalisation_tests
import test_sigmoid_focal_loss as sigmoid_tests
import test_softmax_focal_loss as softmax_tests
import test_squeeze_excite as squeeze_tests
import torch
from canaries import Canaries

from fastcnn.kernels import _focal
from fastcnn.kernels._configs import FOCAL
from fastcnn.ops import _library
from fastcnn.testing import compare
from fastcnn.testing.specs import SPECS

OPS = [
    "grouped_conv2d_shuffle",
    "local_response_norm",
    "sigmoid_focal_loss",
    "softmax_focal_loss",
    "squeeze_excite",
]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
ALL = [(SPECS[name], case) for name in OPS for case in SPECS[name].cases]
SHORT = [pytest.param(spec, case, id=f"{spec.name}-{case.name}") for spec, case in ALL if "several" not in case.name]
LONG = {"squeeze_excite-wide", "squeeze_excite-odd and large"}  # Too long to be run in all layouts of all arguments.
LAYOUTS = [param for param in SHORT if param.values[1].name != "scalar" and param.id not in LONG]
FORMATS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
# In float32 and, by turns in one of the layouts, a 16-bit dtype, between which kernels only convert otherwise.
GRADIENTS = [
    pytest.param(*param.values, dtype, layout, id=f"{param.id}-{dtype}-{name}")
    for i, param in enumerate(SHORT)
    for j, (name, layout) in enumerate(FORMATS.items())
    for dtype in (torch.float32, *((DTYPES[1 + i // 2 % 2],) if (i + j) % 2 else ()))
]
launched: list[str] = []


def family(name):
    return {op for op in _library.ops if op == name or op.startswith(f"{name}_backward")}


def enrol(name):
    for op in family(name):

        def run(*args, op=op):
            launched.append(op)
            with Canaries() as canaries:
                return _library.run_triton(op, name, _library.ops[op].reference, *map(canaries.guard, args))

        _library.library.impl(op, run, "CPU")


for op_name in OPS:
    enrol(op_name)


@pytest.fixture(autouse=True)
def _kernels_run():
    launched.clear()
    with _library.kernel_mode():
        yield


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("spec, case", SHORT)
def test_values(spec, case, dtype):
    contract.test_values(spec, case, dtype, "cpu")
    assert set(launched) == {spec.name}


@pytest.mark.parametrize("spec, case, dtype, layout", GRADIENTS)
def test_gradients(spec, case, dtype, layout):
    contract.test_gradients(spec, case, dtype, layout, "cpu")
    assert set(launched) == family(spec.name)


@pytest.mark.parametrize("spec, case", LAYOUTS)
def test_layouts(spec, case):
    contract.test_layouts(spec, case)


@pytest.mark.parametrize("name", OPS)
def test_float64_runs_the_reference(name):
    contract.test_gradients(SPECS[name], SPECS[name].cases[0], torch.float64, torch.contiguous_format, "cpu")


class TestSigmoidFocalLoss(sigmoid_tests.TestValues):
    test_no_such_class = None  # An index beyond the classes is background on a GPU.


def test_softmax_focal_loss_of_targets_that_are_no_class():
    x = torch.randn(6, 5).requires_grad_()
    loss = SPECS["softmax_focal_loss"].function(x, torch.tensor([4, -1, 5, 255, 0, 1 << 40]), ignore_index=255)
    (grad,) = torch.autograd.grad(loss.nansum(), x)
    assert loss.isnan().tolist() == [False, True, True, False, False, True]
    assert loss[3] == 0 and not grad[3].any() and grad[[0, 4]].isfinite().all()


test_softmax_focal_loss_of_what_is_not_finite = softmax_tests.test_what_is_not_finite


def compare_both(name, tensors, *rest, dtype=torch.float32):
    """Value and gradient of the function and, in float64, of its reference."""
    spec, x = SPECS[name], tensors[0].to(dtype)
    wide = x.detach().double().requires_grad_()
    x = x.detach().requires_grad_()
    out = spec.function(x, *tensors[1:], *rest)
    widened = [t.double() if t.is_floating_point() else t for t in tensors[1:]]
    exact = spec.reference(wide, *widened, *rest)
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    grads = (
        torch.autograd.grad(out, x, cotangent.to(dtype)),
        torch.autograd.grad(exact, wide, cotangent.to(dtype).double()),
    )
    compare.assert_close_to(out.detach(), exact.detach(), reduction=16)
    compare.assert_close_to(grads[0][0], grads[1][0], reduction=64)


SHAPES = [(1, 70, 3, 5), (2, 33, 1, 9), (1, 5, 1, 130), (1, 130, 1, 1), (2, 16, 8, 8), (1, 17, 5, 13)]


@pytest.mark.parametrize("layout", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_normalisation_across_tiles(shape, layout):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=layout)
    for size, beta in ((5, 0.75), (2, 0.5), (8, 1.0)):
        compare_both("local_response_norm", [x], size, 0.7, beta, 1.5)


test_normalisation_of_what_is_not_finite = normalisation_tests.test_what_is_not_finite


@pytest.mark.parametrize("k", [1.0, 0.0, -2.0])
def test_normalisation_without_a_power_of_what_is_not_finite(k):
    """Apart from the others, as the kernel in C++ gives NaN there."""
    normalisation_tests.test_what_is_not_finite(0.0, k)


def test_wide_windows_run_the_reference():
    compare_both("local_response_norm", [torch.randn(1, 12, 2, 3)], 10, 0.7, 0.75, 1.5)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_focal_loss_at_the_ends_of_blocks(dtype, reduction):
    g = torch.Generator().manual_seed(0)
    block = FOCAL[dtype.itemsize].block
    for count in (1, block - 1, block, block + 1, 3 * block):
        x, y = 3 * torch.randn(count, generator=g), torch.rand(count, generator=g).to(dtype)
        compare_both("sigmoid_focal_loss", [x, y], 0.3, 1.5, reduction, dtype=dtype)
    for rows, classes in ((block // 8 + 1, 8), (block // 16, 16), (block // 3, 5), (1, 2 * block + 24), (31, 91)):
        x, index = 3 * torch.randn(rows, classes, generator=g), torch.randint(-2, classes, (rows,), generator=g)
        compare_both("sigmoid_focal_loss", [x, index], 0.3, 2.0, reduction, -2, dtype=dtype)


@pytest.mark.parametrize("name", [name for name in OPS if name not in ("grouped_conv2d_shuffle", "squeeze_excite")])
def test_raw_calls_check_shapes(name):
    module = import_module(f"fastcnn.kernels.{name}")
    _, args = SPECS[name].overload(*contract.arguments(SPECS[name].cases[0], torch.float32))
    with pytest.raises(RuntimeError, match=f"{name}_backward: expected"):
        getattr(module, f"{name}_backward")(args[0][:1], *args)
    if name != "local_response_norm":
        with pytest.raises(RuntimeError, match=f"{name}: expected"):
            getattr(module, name)(args[0], args[1][:1], *args[2:])


def test_sums_of_many_programs_have_one_order(monkeypatch):
    """More blocks than programs, so that each goes through several."""
    monkeypatch.setattr(_focal, "PARTIAL_SUMS", 3)
    g = torch.Generator().manual_seed(0)
    x, y = 3 * torch.randn(5000, generator=g), torch.rand(5000, generator=g)
    compare_both("sigmoid_focal_loss", [x, y], 0.25, 2.0, "sum")
    index = torch.randint(-1, 40, (125,), generator=g)
    compare_both("sigmoid_focal_loss", [x.view(125, 40), index], 0.25, 2.0, "mean", -1)
    first, second = (SPECS["sigmoid_focal_loss"].function(x, y, reduction="sum") for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", [name for name in dir(squeeze_tests.TestByHand) if name.startswith("test_")])
def test_squeeze_excite_by_hand(name):
    getattr(squeeze_tests.TestByHand(), name)(_library.kernel_mode)
    assert "squeeze_excite" in launched


def test_squeeze_excite_checks_what_it_is_called_with():
    squeeze_tests.test_the_kernel_checks_what_it_is_called_with()


# More images, channels and hidden numbers than a program takes, and pixels in several parts.
SQUEEZES = [(5, 3, 3, 3, 2), (2, 300, 2, 3, 3), (1, 7, 1, 1, 70), (1, 3, 25, 23, 2), (2, 9, 50, 47, 5)]
SQUEEZES += [(1, 80, 8, 8, 16), (33, 2, 1, 1, 1)]


@pytest.mark.parametrize("layout", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("sizes", SQUEEZES, ids=str)
def test_squeeze_excite_across_tiles(sizes, layout):
    *shape, hidden = sizes
    g = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(shape, generator=g).contiguous(memory_format=layout) for _ in range(2))
    args = [x, *squeeze_tests.parameters(shape[1], hidden)]
    ours, exact = [a.requires_grad_() for a in args], [a.double().detach().requires_grad_() for a in args]
    for activation, gate in (("relu", "hardsigmoid"), ("silu", "sigmoid")):
        out = SPECS["squeeze_excite"].function(*ours, activation, gate)
        wide = SPECS["squeeze_excite"].reference(*exact, activation, gate)
        assert out.is_contiguous(memory_format=layout)
        compare.assert_close_to(out.detach(), wide.detach(), reduction=shape[1] * hidden)
        grads = torch.autograd.grad(out, ours, grad), torch.autograd.grad(wide, exact, grad.double())
        for a, b in zip(*grads, strict=True):
            compare.assert_close_to(a, b, reduction=64 * shape[0] * shape[1] * hidden)


@pytest.mark.parametrize("layout", FORMATS.values(), ids=FORMATS)
def test_squeeze_excite_of_an_image_is_the_same_in_any_batch(layout):
    g = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(6, 20, 24, 25, generator=g).contiguous(memory_format=layout) for _ in range(2))
    weights = squeeze_tests.parameters(20, 17)

    def run(x, grad):
        x = x.detach().requires_grad_()
        out = SPECS["squeeze_excite"].function(x, *weights)
        return out, *torch.autograd.grad(out, x, grad)

    together = run(x, grad)
    for i in range(6):
        for a, b in zip(together, run(x[i : i + 1], grad[i : i + 1]), strict=True):
            assert torch.equal(a[i], b[0])


def test_squeeze_excite_of_no_hidden_numbers_runs_the_reference():
    x = torch.randn(2, 4, 3, 3)
    out = SPECS["squeeze_excite"].function(x, torch.empty(0, 4), None, torch.empty(4, 0), None)
    torch.testing.assert_close(out, x / 2)
