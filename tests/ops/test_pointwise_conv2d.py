"""What the contract does not say of ``pointwise_conv2d``."""

import importlib

import pytest
import torch
import torch.nn.functional as F
from threads import threads

from fastcnn import ops
from fastcnn.ops import _library

module = importlib.import_module("fastcnn.ops.pointwise_conv2d")


def channels_last(x):
    return x.contiguous(memory_format=torch.channels_last)


def problem(channels, filters, side=5, dtype=torch.float32):
    g = torch.Generator().manual_seed(channels * 1000 + filters)
    shapes = (2, channels, side, side), (filters, channels, 1, 1), (filters,)
    x, weight, bias = (torch.randn(*shape, generator=g, dtype=torch.float64) for shape in shapes)
    return channels_last(x.to(dtype)), (weight / channels**0.5).to(dtype), bias.to(dtype)


@pytest.mark.parametrize("filters", [16, 17, 40, 48, 49, 64, 65, 96, 97, 112, 113, 144, 150, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_packed_weights_give_the_same_bits(filters, dtype):
    x, weight, bias = problem(13, filters, dtype=dtype)
    with _library.kernel_mode():
        assert torch.equal(
            ops.pointwise_conv2d(x, weight, bias, "silu", packed=module.pack(weight)),
            ops.pointwise_conv2d(x, weight, bias, "silu"),
        )


def test_what_follows_may_work_in_place():
    x, weight, bias = problem(9, 20)
    x.requires_grad_()
    ops.pointwise_conv2d(x, weight, bias).relu_().sum().backward()
    found, x.grad = x.grad, None
    F.conv2d(x, weight, bias).relu().sum().backward()
    torch.testing.assert_close(found, x.grad)


def weight_gradient(x, weight):
    weight = weight.detach().requires_grad_()
    with _library.kernel_mode():
        ops.pointwise_conv2d(x, weight).square().sum().backward()
    return weight.grad


# The last block of columns is as wide as others, narrower than a vector, or a vector; rows are no multiple of a tile.
@pytest.mark.parametrize("channels, filters", [(384, 261), (195, 520), (208, 999)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gradient_of_many_weights(channels, filters, dtype):
    x, weight, _ = problem(channels, filters, 9, dtype)
    wanted = weight_gradient(x.double(), weight.double())
    found = weight_gradient(x, weight)
    limit = {torch.float32: 1e-5, torch.float64: 1e-13, torch.bfloat16: 2e-2}[dtype]
    assert (found - wanted).abs().max() <= limit * wanted.abs().max()
    for count in (1, 3):
        with threads(count):
            assert torch.equal(weight_gradient(x, weight), found)


@pytest.mark.parametrize("filters", [1, 15, 16])
@pytest.mark.parametrize("side", [1, 4])
def test_few_filters(filters, side):
    x, weight, bias = problem(7, filters, side, torch.float64)
    found = ops.pointwise_conv2d(x, weight, bias, "relu6")
    torch.testing.assert_close(found, F.relu6(F.conv2d(x, weight, bias)), rtol=1e-12, atol=1e-12)


def test_nan_passes_every_activation():
    x, weight, bias = problem(8, 50)
    x[1, 3, 2, 2] = float("nan")
    for activation in (None, "relu", "relu6", "hardswish", "silu"):
        found = ops.pointwise_conv2d(x, weight, bias, activation, torch.zeros(2, 50, 5, 5))
        assert found[1, :, 2, 2].isnan().all()
        assert found.isnan().sum() == 50


@pytest.mark.parametrize("pixels", [1, 7, 8, 9, 15, 17, 49, 63, 130])
def test_any_number_of_pixels(pixels):
    g = torch.Generator().manual_seed(pixels)
    x = channels_last(torch.randn(1, 24, pixels, 1, generator=g))
    weight = torch.randn(70, 24, 1, 1, generator=g)
    with _library.kernel_mode():
        found = ops.pointwise_conv2d(x, weight)
    torch.testing.assert_close(found, F.conv2d(x.double(), weight.double()).float(), rtol=1e-4, atol=1e-4)


def test_gradients_with_packed_weights():
    x, weight, bias = (t.requires_grad_() for t in problem(12, 20, dtype=torch.float64))
    residual = torch.ones(2, 20, 5, 5, dtype=torch.float64, requires_grad=True)
    leaves = (x, weight, bias, residual)
    ours = ops.pointwise_conv2d(x, weight, bias, "hardswish", residual, packed=module.pack(weight)).square().sum()
    theirs = F.hardswish(F.conv2d(x, weight, bias) + residual).square().sum()
    for a, b in zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(theirs, leaves), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    "change, error, words",
    [
        ({"input": torch.ones(3, 8, 8)}, ValueError, "4 dimensions"),
        ({"weight": torch.ones(20, 8, 3, 3)}, ValueError, r"\(20, 8, 3, 3\)"),
        ({"weight": torch.ones(20, 9, 1, 1)}, ValueError, r"\(20, 9, 1, 1\)"),
        ({"bias": torch.ones(21)}, ValueError, r"\(21,\)"),
        ({"residual": torch.ones(1, 20, 4, 5)}, ValueError, r"\(1, 20, 4, 5\)"),
        ({"packed": torch.ones(20)}, ValueError, "160 packed weights"),
        ({"activation": "gelu"}, ValueError, "'gelu'"),
        ({"activation": "leaky_relu", "negative_slope": -0.1}, ValueError, r"between 0 and 1, got -0\.1"),
        ({"weight": torch.ones(20, 8, 1, 1, dtype=torch.float64)}, TypeError, "float64"),
        ({"bias": torch.ones(20, dtype=torch.int64)}, TypeError, "int64"),
        ({"input": None}, TypeError, "NoneType"),
    ],
)
def test_bad_arguments(change, error, words):
    arguments = {"input": torch.ones(1, 8, 4, 4), "weight": torch.ones(20, 8, 1, 1)} | change
    with pytest.raises(error, match=words):
        ops.pointwise_conv2d(**arguments)
