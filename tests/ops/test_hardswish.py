"""What the contract suite does not say of h-swish: special values, PyTorch's own results, when PyTorch is called."""

import contextlib
import importlib

import pytest
import torch
import torch.nn.functional as F

from fastcnn import ops, reference_mode
from fastcnn.ops import _library

SPECIAL = torch.tensor([-4.0, -3.0, -1.5, -1.0, 0.0, 1.0, 3.0, 4.0, float("inf"), float("-inf"), float("nan")])


def all_halves() -> torch.Tensor:
    return torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(torch.float16)


def test_known_values():
    with _library.kernel_mode():
        actual = ops.hardswish(torch.tensor([-3.0, -1.0, 1.0, 3.0]))
    torch.testing.assert_close(actual, torch.tensor([0.0, -1 / 3, 2 / 3, 3.0]))


@pytest.mark.parametrize("mode", [_library.kernel_mode, reference_mode])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_special_values_are_pytorchs(dtype, mode):
    x = SPECIAL.to(dtype).requires_grad_()
    with mode():
        out = ops.hardswish(x)
        (grad,) = torch.autograd.grad(out, x, torch.full_like(out, 2.0))
    torch.testing.assert_close(out, F.hardswish(x), equal_nan=True)
    # The knees as of torch 2.13; NaN is left out, where releases differ.
    exact = torch.tensor([0, 0, 0, 1 / 3, 1, 5 / 3, 2, 2, 2, 0])
    torch.testing.assert_close(grad[:-1], exact.to(dtype), check_dtype=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_16_bit_value(dtype):
    x = all_halves().view(dtype)
    with _library.kernel_mode():
        actual = ops.hardswish(x)
    assert torch.equal(actual.isnan(), F.hardswish(x.float()).isnan())
    exact = F.hardswish(x.float()).to(dtype)
    assert torch.equal(actual.nan_to_num(), exact.nan_to_num())


def test_in_place():
    x = torch.randn(3, 5)
    exact = F.hardswish(x)
    for mode in (_library.kernel_mode, reference_mode):
        y = x.clone()
        with mode():
            assert ops.hardswish(y, inplace=True) is y
        torch.testing.assert_close(y, exact)
    assert ops.hardswish(x, inplace=True) is x
    assert torch.equal(x, exact)


@pytest.mark.parametrize(
    "dtype, elements, calls_torch",
    [(torch.float32, 1 << 20, True), (torch.float16, 1 << 8, True), (torch.float16, 1 << 20, False)],
)
def test_rule(monkeypatch, dtype, elements, calls_torch):
    calls = []
    module = importlib.import_module("fastcnn.ops.hardswish")
    monkeypatch.setattr(module, "_torch", lambda x: calls.append(x) or F.hardswish(x))
    x = torch.randn(elements).to(dtype)
    torch.testing.assert_close(ops.hardswish(x), F.hardswish(x))
    assert bool(calls) == calls_torch
    calls.clear()
    ops.hardswish(x.requires_grad_())
    assert calls, "PyTorch's, where a gradient is needed"


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("mode", [contextlib.nullcontext, _library.kernel_mode, reference_mode])
def test_bad_input(mode, inplace):
    for dtype in (torch.int64, torch.bool, torch.complex64):
        with mode(), pytest.raises(TypeError, match=rf"floating-point dtype, got {dtype}$"):
            ops.hardswish(torch.ones(4).to(dtype), inplace)
    with mode(), pytest.raises(TypeError, match="expected input to be a tensor, got list"):
        ops.hardswish([1.0], inplace)
