"""Run by test_triton_interpreter.py, in a process where TRITON_INTERPRET=1: Triton kernels on CPU tensors."""

import importlib
from dataclasses import replace
from unittest import mock

import pytest
import torch
from canaries import Canaries
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcnn.kernels import depthwise_conv2d as kernels
from fastcnn.kernels._configs import depthwise_tile
from fastcnn.testing.compare import assert_close_to
from fastcnn.testing.specs.depthwise_conv2d import SPEC

op = importlib.import_module("fastcnn.ops.depthwise_conv2d")
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def tall(*args):
    """The tile that is chosen, but of more rows, for fewer programs, which is what the interpreter's time goes by."""
    tile = depthwise_tile(*args)
    return replace(tile, down=8 * tile.down)


def assert_matches_the_reference(arguments, layout, tile=tall):
    """Forward and backward of one call, of which nothing outside of tensors is read or written."""
    with mock.patch.object(kernels, "depthwise_tile", tile):
        _assert_matches_the_reference(arguments, layout)


def _assert_matches_the_reference(arguments, layout):
    input, weight, bias, *args, activation = arguments
    with Canaries() as canaries:
        x = canaries.guard(input.contiguous(memory_format=layout))
        w, b = canaries.guard(weight), canaries.guard(bias)
        exact = [t if t is None else t.double() for t in (x, w, b)]
        expected = op._reference(*exact, *args, activation)
        reduction = weight[0].numel()
        assert_close_to(kernels.depthwise_conv2d(x, w, b, *args, activation), expected, reduction=reduction)

        grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0)).to(x.dtype)
        grad = canaries.guard(grad.contiguous(memory_format=layout))
        needed = (True, True, b is not None)
        wanted = op._reference_backward(grad.double(), *exact[:2], *args, *needed)
        got = kernels.depthwise_conv2d_backward(grad, x, w, *args, *needed)
        summed = expected.numel() // max(weight.size(0), 1)
        over = (reduction * weight.size(0) // x.size(1), summed, summed)
        for what, ours, its, count in zip(("input", "weight", "bias"), got, wanted, over, strict=True):
            assert_close_to(ours, its, reduction=count, what=f"grad_{what}")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("index", range(len(SPEC.cases)), ids=[case.name for case in SPEC.cases])
def test_cases(index, layout):
    case, dtype = SPEC.cases[index], DTYPES[(index + LAYOUTS.index(layout)) % 3]
    values = case.make(dtype, "cpu", torch.Generator().manual_seed(0))
    _, arguments = SPEC.overload(*values, **case.kwargs)
    if case.name == "31x31":
        assert kernels.depthwise_conv2d(*arguments) is NotImplemented
    else:
        assert_matches_the_reference(arguments, layout)


pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))


@settings(derandomize=True, deadline=None, max_examples=12)
@given(
    st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(1, 17), st.integers(1, 19)),
    st.tuples(st.sampled_from([1, 2, 3, 5]), st.sampled_from([1, 3, 4, 7])),
    st.booleans(),
    st.integers(1, 3),
    pairs,
    st.lists(st.integers(0, 5), min_size=4, max_size=4),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(0, 4),
    st.sampled_from(LAYOUTS),
    st.sampled_from(DTYPES),
)
def test_random_shapes(shape, kernel, flip, multiplier, stride, padding, dilation, activation, layout, dtype):
    kernel = kernel[::-1] if flip else kernel
    sides = (padding[:2], padding[2:])
    if any(n + sum(p) < d * (k - 1) + 1 for n, p, d, k in zip(shape[2:], sides, dilation, kernel, strict=True)):
        return
    g = torch.Generator().manual_seed(0)
    filters = shape[1] * multiplier
    x, weight = torch.randn(shape, generator=g).to(dtype), torch.randn(filters, 1, *kernel, generator=g).to(dtype)
    bias = torch.randn(filters, generator=g).to(dtype) if flip else None
    assert_matches_the_reference((x, weight, bias, stride, padding, dilation, activation), layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_several_programs_and_parts(layout):
    g = torch.Generator().manual_seed(0)
    for shape, size, stride in (((1, 70, 5, 18), 3, 1), ((1, 2, 12, 70), 5, 2)):
        x, weight = torch.randn(shape, generator=g), torch.randn(shape[1], 1, size, size, generator=g)
        arguments = (x, weight, None, [stride] * 2, [size // 2] * 4, [1, 1], 0)
        assert_matches_the_reference(arguments, layout, depthwise_tile)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_results_are_laid_out_as_promised(layout):
    g = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 6, 5, 7, generator=g), torch.randn(6, 1, 3, 3, generator=g)
    args = ([1, 1], [1] * 4, [1, 1])
    for input in (x.contiguous(memory_format=layout), x[:, :, ::2], x[:, :1].expand(x.shape)):
        out = kernels.depthwise_conv2d(input, weight, None, *args, 0)
        grad = torch.randn(()).expand(out.shape)
        grads = kernels.depthwise_conv2d_backward(grad, input, weight, *args, True, True, True)
        fakes = op._fake_backward(grad, input, weight, *args, True, True, True)
        assert out.stride() == op._fake(input, weight, None, *args, 0).stride()
        assert [t.stride() for t in grads] == [t.stride() for t in fakes]
        assert_close_to(out, op._reference(input.double(), weight.double(), None, *args, 0), reduction=9)
        wanted = op._reference_backward(grad.double(), input.double(), weight.double(), *args, True, True, True)
        for got, exact in zip(grads, wanted, strict=True):
            assert_close_to(got, exact, reduction=70)


@pytest.mark.parametrize("need", [(a, b, c) for a in (False, True) for b in (False, True) for c in (False, True)])
def test_only_gradients_asked_for(need):
    g = torch.Generator().manual_seed(0)
    x, weight = torch.randn(1, 2, 4, 5, generator=g), torch.randn(2, 1, 3, 3, generator=g)
    args = (torch.randn(1, 2, 4, 5, generator=g), x, weight, [1, 1], [1] * 4, [1, 1])
    grads = kernels.depthwise_conv2d_backward(*args, *need)
    for got, exact, needed in zip(grads, op._reference_backward(*args, *need), need, strict=True):
        assert got.shape == exact.shape and (got.numel() > 0) == needed
        torch.testing.assert_close(got, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_not_finite_spreads_as_far_as_the_kernel(layout, size, stride):
    shape, weight = (2, 3, 9, 7), torch.rand(3, 1, size, size) + 0.5
    args = ([stride] * 2, [size // 2] * 4, [1, 1])
    for y, at in ((0, 0), (8, 6)):
        x = torch.zeros(shape).contiguous(memory_format=layout)
        x[0, 1, y, at], x[1, 2, y, at] = float("inf"), float("nan")
        out = kernels.depthwise_conv2d(x, weight, None, *args, 0)
        assert torch.equal(out.isfinite(), op._reference(x.double(), weight.double(), None, *args, 0).isfinite())
        grad = torch.zeros_like(out)
        grad[0, 1, y // stride, at // stride], grad[1, 2, y // stride, at // stride] = float("inf"), float("nan")
        ours = kernels.depthwise_conv2d_backward(grad, x, weight, *args, True, False, False)[0]
        wanted = torch.nn.grad.conv2d_input(shape, weight.double(), grad.double(), stride, size // 2, 1, 3)
        assert torch.equal(ours.isfinite(), wanted.isfinite())


@pytest.mark.parametrize("width", [3, 7, 17])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_gradient_of_the_weight_meets_no_pixel_beyond_a_tap(layout, width):
    x = torch.zeros(1, 2, 9, width).contiguous(memory_format=layout)
    x[0, 0, :, 0] = float("nan")  # Column 0 is never to the right of an output.
    x[0, 1, 8] = float("nan")  # The last row is never above one.
    args = (torch.ones(1, 2, 9, width), x, torch.ones(2, 1, 3, 3), [1, 1], [1] * 4, [1, 1])
    got = kernels.depthwise_conv2d_backward(*args, False, True, False)[1]
    assert got[0, 0, :, 2].isfinite().all() and got[0, 0, :, :2].isnan().all()
    assert got[1, 0, 0].isfinite().all() and got[1, 0, 1:].isnan().all()


@pytest.mark.parametrize("activation", range(5))
def test_activations_of_special_values(activation):
    special = [float("nan"), float("inf"), float("-inf"), 0.0, -3.0, 3.0, 6.0, 7.0, -100.0, 100.0]
    x = torch.tensor(special).view(1, 1, 2, 5)
    args = ([1, 1], [0] * 4, [1, 1], activation)
    out = kernels.depthwise_conv2d(x, torch.ones(1, 1, 1, 1), None, *args)
    exact = op._reference(x.double(), torch.ones(1, 1, 1, 1, dtype=torch.float64), None, *args)
    torch.testing.assert_close(out.double(), exact, rtol=1e-6, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize(
    "dtype, size, stride, padding",
    [
        (torch.float64, 3, 1, [1] * 4),
        (torch.float32, 12, 1, [6] * 4),
        (torch.float32, 3, 5, [1] * 4),
        (torch.float32, 3, 1, [-1, 1, 1, 1]),
    ],
)
def test_pytorch_runs_what_the_kernels_do_not(dtype, size, stride, padding):
    x, weight = torch.ones(1, 2, 9, 9, dtype=dtype), torch.ones(2, 1, size, size, dtype=dtype)
    args = ([stride] * 2, padding, [1, 1])
    assert kernels.depthwise_conv2d(x, weight, None, *args, 0) is NotImplemented
    grad = torch.ones(1, 2, 1, 1, dtype=dtype)
    assert kernels.depthwise_conv2d_backward(grad, x, weight, *args, True, True, True) is NotImplemented
