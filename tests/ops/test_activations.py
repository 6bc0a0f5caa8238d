"""What the contract suite does not say of h-swish and the hard sigmoid: special values, PyTorch's results, when it is
called."""

import contextlib
import copy
import importlib

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcnn import _backend, ops, reference_mode
from fastcnn import nn as fnn
from fastcnn.ops import _library

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
SPECIAL = torch.tensor([-4.0, -3.0, -1.5, -1.0, 0.0, 1.0, 3.0, 4.0, float("inf"), float("-inf"), float("nan")])
# The gradient of SPECIAL, the knees as of torch 2.13; that of h-swish's NaN is left out, where releases differ.
GRADIENTS = {
    "hardswish": [0, 0, 0, 1 / 6, 1 / 2, 5 / 6, 1, 1, 1, 0],
    "hardsigmoid": [0, 0, 1 / 6, 1 / 6, 1 / 6, 1 / 6, 0, 0, 0, 0, 0],
}
KNOWN = {
    "hardswish": {-4.0: 0.0, -3.0: 0.0, -1.0: -1 / 3, 0.0: 0.0, 1.0: 2 / 3, 3.0: 3.0, 4.0: 4.0},
    "hardsigmoid": {-4.0: 0.0, -3.0: 0.0, -1.5: 0.25, 0.0: 0.5, 1.5: 0.75, 3.0: 1.0, 4.0: 1.0},
}

pytestmark = pytest.mark.parametrize("name", ["hardswish", "hardsigmoid"])


def test_known_values(name):
    with _library.kernel_mode():
        actual = getattr(ops, name)(torch.tensor([*KNOWN[name]]))
    assert torch.equal(actual, torch.tensor([*KNOWN[name].values()]))


@pytest.mark.parametrize("mode", [_library.kernel_mode, reference_mode])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_special_values_are_pytorchs(name, dtype, mode):
    x = SPECIAL.to(dtype).requires_grad_()
    with mode():
        out = getattr(ops, name)(x)
        (grad,) = torch.autograd.grad(out, x, torch.full_like(out, 6.0))
    torch.testing.assert_close(out, getattr(F, name)(x), equal_nan=True)
    exact = 6 * torch.tensor(GRADIENTS[name], dtype=torch.float64)
    torch.testing.assert_close(grad[: len(exact)], exact.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_16_bit_value(name, dtype):
    x = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(dtype)
    with _library.kernel_mode():
        actual = getattr(ops, name)(x)
    exact = getattr(F, name)(x.float())
    assert torch.equal(actual.isnan(), exact.isnan())
    assert torch.equal(actual.nan_to_num(), exact.to(dtype).nan_to_num())


@given(
    shape=st.lists(st.integers(0, 9), min_size=0, max_size=4),
    dtype=st.sampled_from(DTYPES),
    step=st.integers(1, 2),
    scale=st.sampled_from([0.1, 3.0, 30.0]),
)
@settings(derandomize=True, deadline=None, max_examples=100)
def test_any_shape_and_stride_is_pytorchs(name, shape, dtype, step, scale):
    x = torch.randn([step * n for n in shape], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = (x * scale).to(dtype)[tuple(slice(None, None, step) for _ in shape)].permute(tuple(reversed(range(len(shape)))))
    x.requires_grad_()
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    with _library.kernel_mode():
        out = getattr(ops, name)(x)
        (grad,) = torch.autograd.grad(out, x, g)
    exact = getattr(F, name)(x)
    assert torch.equal(out, exact) and out.stride() == torch.empty_like(x).stride()
    if dtype is not torch.float64:  # PyTorch's sixth is one of float32 even there.
        assert torch.equal(grad, torch.autograd.grad(exact, x, g)[0])


def test_in_place(name):
    x = torch.randn(3, 5)
    exact = getattr(F, name)(x)
    for mode in (_library.kernel_mode, reference_mode):
        y = x.clone()
        with mode():
            assert getattr(ops, name)(y, inplace=True) is y
        torch.testing.assert_close(y, exact)
    assert getattr(ops, name)(x, inplace=True) is x
    assert torch.equal(x, exact)


@pytest.mark.parametrize(
    "dtype, elements, calls_torch",
    [(torch.float32, 1 << 20, True), (torch.float16, 1 << 8, True), (torch.float16, 1 << 20, False)],
)
def test_rule(monkeypatch, name, dtype, elements, calls_torch):
    calls = []
    module = importlib.import_module(f"fastcnn.ops.{name}")
    theirs = getattr(F, name)
    monkeypatch.setattr(module, "_torch", lambda x: calls.append(x) or theirs(x))
    x = torch.randn(elements).to(dtype)
    torch.testing.assert_close(getattr(ops, name)(x), theirs(x))
    assert bool(calls) == calls_torch
    calls.clear()
    getattr(ops, name)(x.requires_grad_())
    assert calls, "PyTorch's, where a gradient is needed"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("inplace", [False, True])
def test_layer_is_a_drop_in(name, inplace, dtype):
    cls = {"hardswish": "Hardswish", "hardsigmoid": "Hardsigmoid"}[name]
    layer, twin = getattr(fnn, cls)(inplace), getattr(torch.nn, cls)(inplace)
    assert isinstance(layer, type(twin))
    assert repr(copy.deepcopy(layer)) == repr(twin) and layer.state_dict() == {}
    x = torch.linspace(-4, 4, 41, dtype=dtype)
    given_x = x.clone()
    found = layer(given_x)
    assert torch.equal(found, twin(x.clone()))
    assert (found is given_x) == inplace and torch.equal(given_x, found if inplace else x)


@pytest.mark.skipif(not _backend.cpu.available, reason="the compiled kernels' own checks")
def test_the_kernel_checks_what_it_is_called_with(name):
    x = torch.zeros(2, 3)
    for grad in (torch.zeros(1, 3), torch.zeros(2, 3).double()):
        with pytest.raises(RuntimeError):
            getattr(torch.ops.fastcnn, f"{name}_backward")(grad, x)
    with pytest.raises(RuntimeError, match="floating-point"):
        getattr(torch.ops.fastcnn, name)(x.int())


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("mode", [contextlib.nullcontext, _library.kernel_mode, reference_mode])
def test_bad_input(name, mode, inplace):
    for dtype in (torch.int64, torch.bool, torch.complex64):
        with mode(), pytest.raises(TypeError, match=rf"floating-point dtype, got {dtype}$"):
            getattr(ops, name)(torch.ones(4).to(dtype), inplace)
    with mode(), pytest.raises(TypeError, match="expected input to be a tensor, got list"):
        getattr(ops, name)([1.0], inplace)
