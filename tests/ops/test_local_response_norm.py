"""What the contract suite does not say of LRN: its definition by hand, PyTorch's results, special values, the layer."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcnn import _backend, ops, reference_mode
from fastcnn import nn as fnn
from fastcnn.ops import _library
from fastcnn.testing.compare import assert_close_to

MODES = [_library.kernel_mode, reference_mode]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", LAYOUTS, ids=["NCHW", "NHWC"])
class TestByHand:
    def test_windows(self, mode, layout):
        """Of an even size, more channels lie before than after."""
        x = torch.arange(1.0, 6.0).view(1, 5, 1, 1).expand(1, 5, 2, 2).contiguous(memory_format=layout)
        for size, sums in ((1, [1, 4, 9, 16, 25]), (2, [1, 5, 13, 25, 41]), (3, [5, 14, 29, 50, 41])):
            with mode():
                out = ops.local_response_norm(x, size, alpha=size * 2.0, beta=1.0, k=3.0)
            exact = torch.tensor([(c + 1) / (3 + 2 * s) for c, s in enumerate(sums)])
            torch.testing.assert_close(out[0, :, 1, 1], exact)

    def test_the_papers_constants(self, mode, layout):
        """Krizhevsky et al.: k = 2, n = 5, alpha = 1e-4, beta = 0.75, alpha not divided by n."""
        x = torch.full((1, 9, 2, 2), 100.0).contiguous(memory_format=layout)
        with mode():
            out = ops.local_response_norm(x, 5, alpha=5e-4, beta=0.75, k=2.0)[0, :, 0, 0]
        channels = [3, 4, 5, 5, 5, 5, 5, 4, 3]
        torch.testing.assert_close(out, torch.tensor([100 / (2 + 1e-4 * n * 1e4) ** 0.75 for n in channels]))

    def test_the_gradient_of_one_channel(self, mode, layout):
        """Of y = x / (k + a x^2)^b: (k + a x^2)^-b - 2 a b x^2 (k + a x^2)^(-b - 1)."""
        x = torch.full((1, 1, 2, 3), 2.0).contiguous(memory_format=layout).requires_grad_()
        for beta in (0.5, 0.6, 0.75, 1.0):
            with mode():
                out = ops.local_response_norm(x, 1, alpha=0.5, beta=beta, k=1.0)
            (grad,) = torch.autograd.grad(out.sum(), x)
            exact = 3**-beta - 2 * 0.5 * beta * 4 * 3 ** (-beta - 1)
            torch.testing.assert_close(grad, torch.full_like(x, exact))

    @pytest.mark.parametrize("beta", [0.5, 0.6, 0.75, 1.0])
    def test_special_values_are_pytorchs(self, mode, layout, beta):
        x = torch.tensor([0.0, 1.0, math.inf, 1e30, -1e30, 1.0, math.nan, 2.0, 1e-30, 0.0]).view(1, 10, 1, 1)
        x = x.expand(1, 10, 3, 7).contiguous(memory_format=layout)
        for k in (0.0, 1.0):
            with mode():
                out = ops.local_response_norm(x, 1, 1.0, beta, k)
            exact = F.local_response_norm(x.double(), 1, 1.0, beta, k)
            exact[:, 3:5] = F.local_response_norm(x, 1, 1.0, beta, k)[:, 3:5]  # Whose squares overflow in float32.
            exact[:, 8] = out[:, 8] if k == 0 else exact[:, 8]  # Whose square underflows.
            torch.testing.assert_close(out.double(), exact.double(), equal_nan=True, rtol=2e-6, atol=0)


@pytest.mark.parametrize("beta", [0.75, 0.5, 1.0, 2.0, 3.0, 0.6, 0.0, -1.0])
@pytest.mark.parametrize("k", [1.0, 0.0, -2.0])
def test_what_is_not_finite(beta, k, device="cpu"):
    x = torch.tensor([0.0, 1.0, math.inf, 1e30, -1e30, 1.0, math.nan, 2.0, 1.5, 0.5]).view(1, 10, 1, 1)
    with _library.kernel_mode():
        out = ops.local_response_norm(x.to(device), 3, 0.75, beta, k)
    with reference_mode():
        exact = ops.local_response_norm(x, 3, 0.75, beta, k)
    torch.testing.assert_close(out.cpu(), exact, equal_nan=True, rtol=1e-5, atol=0)


@given(
    shape=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    channels=st.integers(1, 40),
    size=st.integers(1, 11),
    alpha=st.sampled_from([1e-4, 1.0, 30.0]),
    beta=st.sampled_from([0.75, 0.5, 1.0, 0.3, 2.5, 0.0, -0.75]),
    k=st.sampled_from([1.0, 2.0]),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    layout=st.sampled_from(["nchw", "channels_last", "strided"]),
)
@settings(derandomize=True, deadline=None, max_examples=120)
def test_any_call_is_pytorchs_in_float64(shape, channels, size, alpha, beta, k, dtype, layout):
    g = torch.Generator().manual_seed(0)
    x = torch.randn((2, channels, *shape), generator=g, dtype=torch.float64).to(dtype)
    if layout == "strided":
        x = x.transpose(1, -1).contiguous().transpose(1, -1)
    elif layout == "channels_last" and x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    cotangent = torch.randn(x.shape, generator=g, dtype=torch.float64).to(dtype)
    x.requires_grad_()
    wide = x.detach().double().contiguous().requires_grad_()
    out = ops.local_response_norm(x, size, alpha, beta, k)
    exact = F.local_response_norm(wide, size, alpha, beta, k)
    assert_close_to(out.detach(), exact.detach(), reduction=size)
    (grad,) = torch.autograd.grad(out, x, cotangent)
    (exact_grad,) = torch.autograd.grad(exact, wide, cotangent.double())
    assert_close_to(grad, exact_grad, reduction=16 * size, what="gradient")


@pytest.mark.parametrize("layout", LAYOUTS, ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("beta", [0.5, 0.6, 0.75, 1.0])
def test_powers_are_accurate(beta, layout):
    """Over the whole range of float32, to a few units in the last place."""
    x = torch.logspace(-18, 18, 4000, dtype=torch.float64).float().view(1, 1, 40, 100).expand(2, 3, 40, 100)
    x = x.contiguous(memory_format=layout)
    exact = x.double() / (x.double() ** 2 + 1e-30) ** beta
    with _library.kernel_mode():
        out = ops.local_response_norm(x, 1, 1.0, beta, 1e-30)
    assert ((out.double() - exact) / exact).abs().max() < 6e-7


@pytest.mark.parametrize("layout", LAYOUTS, ids=["NCHW", "NHWC"])
def test_a_pixel_is_the_same_in_any_map(layout):
    x = torch.randn(2, 37, 30, 20).contiguous(memory_format=layout)
    part = x[1:, :, 7:23, 3:16].contiguous(memory_format=layout)
    assert torch.equal(ops.local_response_norm(x, 5)[1:, :, 7:23, 3:16], ops.local_response_norm(part, 5))


def test_numbers_of_numpy_and_ints():
    x = torch.randn(1, 6, 3, 3)
    wanted = ops.local_response_norm(x, 3, 1.0, 1.0, 2.0)
    assert torch.equal(ops.local_response_norm(x, np.int64(3), 1, np.float32(1), 2), wanted)


def test_layer_is_a_drop_in():
    layer, twin = fnn.LocalResponseNorm(5, 1e-2, 0.75, 2.0), torch.nn.LocalResponseNorm(5, 1e-2, 0.75, 2.0)
    assert isinstance(layer, torch.nn.LocalResponseNorm)
    assert repr(copy.deepcopy(layer)) == repr(twin) and layer.state_dict() == {}
    x, y = (torch.linspace(-4, 4, 2 * 7 * 9).view(2, 7, 3, 3).requires_grad_() for _ in range(2))
    ours, theirs = layer(x), twin(y)
    torch.testing.assert_close(ours, theirs)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


X = torch.zeros(1, 4, 3, 3)
BAD = {
    "rank": ((X[0, 0], 5), ValueError, r"input with 3 or more dimensions, got \(3, 3\)"),
    "int": ((X.int(), 5), TypeError, r"input of a floating-point dtype, got torch\.int32"),
    "not a tensor": (([1.0], 5), TypeError, "expected input to be a tensor, got list"),
    "size 0": ((X, 0), ValueError, "expected a positive size, got 0"),
    "size float": ((X, 2.5), TypeError, "expected size to be an int, got float 2.5"),
    "size bool": ((X, True), TypeError, "expected size to be an int, got bool True"),
    "alpha": ((X, 5, "1"), TypeError, "expected alpha to be a number, got str '1'"),
    "beta": ((X, 5, 1.0, None), TypeError, "expected beta to be a number, got NoneType None"),
    "k": ((X, 5, 1.0, 1.0, X), TypeError, "expected k to be a number, got Tensor"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", BAD)
def test_bad_input(name, mode):
    args, error, message = BAD[name]
    with mode(), pytest.raises(error, match=message):
        ops.local_response_norm(*args)


@pytest.mark.skipif(not _backend.cpu.available, reason="the compiled kernels' own checks")
def test_the_kernel_checks_what_it_is_called_with():
    op, backward = torch.ops.fastcnn.local_response_norm, torch.ops.fastcnn.local_response_norm_backward
    for args in ((X[0, 0], 5), (X, 0), (X, -3), (X.int(), 5)):
        with pytest.raises(RuntimeError):
            op(*args, 1.0, 0.75, 1.0)
    for grad in (X[:, :3], X.double(), X[0, 0, 0], X[..., None].expand(1, 4, 3, 3, 2)):
        with pytest.raises(RuntimeError):
            backward(grad, X, 5, 1.0, 0.75, 1.0)
