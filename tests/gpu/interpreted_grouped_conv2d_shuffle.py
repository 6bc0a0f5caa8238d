"""Run by test_triton_interpreter.py, in a process where TRITON_INTERPRET=1: what the contract suite does not reach."""

from unittest import mock

import interpreted_ops
import pytest
import test_grouped_conv2d_shuffle as cpu_tests
import torch
from canaries import Canaries
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcnn.kernels import _configs, _grouped_launch
from fastcnn.kernels import grouped_conv2d_shuffle as kernels
from fastcnn.ops import _library
from fastcnn.testing.compare import assert_close_to

NAME = "grouped_conv2d_shuffle"
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
FORWARD, BACKWARD_INPUT, BACKWARD_WEIGHT = (
    _library.ops[NAME + suffix] for suffix in ("", "_backward_input", "_backward_weight")
)


@pytest.fixture(autouse=True)
def _kernels_run():
    """From the public function too, where interpreted_ops has put them."""
    interpreted_ops.launched.clear()
    with _library.kernel_mode():
        yield


def assert_matches_the_reference(shape, out, kernel, window, dtype, layout, bias=False, relu=False, reduction=256):
    """All three ops on the same call: values and strides, and nothing read or written outside of tensors."""
    generator = torch.Generator().manual_seed(0)

    def guarded(*size):
        made = torch.randn(size, generator=generator).to(dtype)
        return canaries.guard(made.contiguous(memory_format=layout) if len(size) == 4 else made)

    with Canaries() as canaries:
        x, b = guarded(*shape), guarded(out) if bias else None
        weight = guarded(out, shape[1] // window[3], *kernel)
        grad = guarded(*FORWARD.reference(x, weight, b, *window, relu).shape)
        for op, args in (
            (FORWARD, (x, weight, b, *window, relu)),
            (BACKWARD_INPUT, (grad, weight, x.shape, *window, layout == torch.channels_last)),
            (BACKWARD_WEIGHT, (grad, x, weight.shape, *window)),
        ):
            actual = getattr(kernels, op.name)(*args)
            wide = [a.double() if isinstance(a, torch.Tensor) else a for a in args]
            assert_close_to(actual, op.reference(*wide), reduction=reduction, what=op.name)
            assert actual.stride() == op.reference(*args).stride()


sides = st.integers(1, 3)


@settings(derandomize=True, deadline=None, max_examples=20)
@given(
    st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 11)),
    st.tuples(st.integers(1, 20), st.sampled_from([1, 2, 3, 4, 8, 20]), st.sampled_from([1, 2, 3, 4, 5, 8, 9, 12])),
    st.tuples(sides, sides),
    st.tuples(sides, sides),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.tuples(sides, sides),
    st.booleans(),
    st.booleans(),
    st.sampled_from(DTYPES),
    st.sampled_from(LAYOUTS),
)
def test_random_shapes(size, channels, kernel, stride, padding, dilation, shuffle, bias, dtype, layout):
    each_in, each_out, groups = channels
    reach = zip(size[1:], kernel, dilation, padding, strict=True)
    height, width = (max(n, (k - 1) * d + 1 - 2 * p) for n, k, d, p in reach)
    window = (stride, padding, dilation, groups, groups if shuffle else each_out)
    shape = (size[0], groups * each_in, height, width)
    assert_matches_the_reference(shape, groups * each_out, kernel, window, dtype, layout, bias, relu=bias)


@pytest.mark.parametrize("groups", range(1, 10))
def test_groups_stored_by_turns(groups):
    """Channels last, where a program has all groups up to eight, in several tiles of their channels."""
    window = ((1, 1), (0, 0), (1, 1), groups, groups)
    shape = (2, 3 * groups, 4, 9)
    assert_matches_the_reference(shape, 36 * groups, (1, 1), window, torch.float16, torch.channels_last, True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_several_tiles_and_parts(dtype, layout):
    """Of positions, of blocks of several groups, of which the last is not full, and of channels of a group."""
    for groups, each_in, each_out, kernel in ((5, 4, 4, 3), (7, 5, 3, 1), (2, 34, 40, 1), (1, 17, 33, 3)):
        window = ((1, 1), (kernel // 2,) * 2, (1, 1), groups, 1)
        shape = (1, groups * each_in, 12, 11)
        assert_matches_the_reference(shape, groups * each_out, (kernel,) * 2, window, dtype, layout, reduction=1024)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("groups", [1, 3])
def test_results_of_one_pixel(groups, layout):
    """The strides of one number to an image say nothing of the format."""
    window = ((1, 1), (0, 0), (1, 1), groups, groups)
    assert_matches_the_reference((2, 4 * groups, 3, 5), groups, (3, 5), window, torch.float32, layout)


def test_sums_of_many_tiles_have_one_order():
    with mock.patch.object(_grouped_launch, "depthwise_reduction", lambda *_: _configs.DepthwiseReduction(3, 2)):
        window = ((1, 1), (1, 1), (1, 1), 2, 2)
        args = ((2, 8, 9, 20), 8, (3, 3), window, torch.float16, torch.channels_last)
        assert_matches_the_reference(*args, reduction=1024)


test_what_is_not_finite_stays_in_its_group = cpu_tests.test_what_is_not_finite_stays_in_its_group
test_a_nan_stays_in_its_group_and_window = cpu_tests.test_a_nan_stays_in_its_group_and_window
test_each_result_is_of_its_group = cpu_tests.test_each_result_is_of_its_group
test_relu_comes_after_the_bias_and_keeps_nan = cpu_tests.test_relu_comes_after_the_bias_and_keeps_nan


@pytest.mark.parametrize("layout", LAYOUTS)
def test_expanded_and_strided_tensors(layout):
    window = ((1, 1), (1, 1), (1, 1), 2, 2)
    x = torch.randn(2, 4, 10, 7).contiguous(memory_format=layout)[:, :, ::2]
    weight, grad = torch.randn(6, 2, 3, 3).transpose(2, 3), torch.randn(()).expand(2, 6, 5, 7)
    for op, args in (
        (FORWARD, (x, weight, None, *window, False)),
        (BACKWARD_INPUT, (grad, weight, x.shape, *window, layout == torch.channels_last)),
        (BACKWARD_WEIGHT, (grad, x, weight.shape, *window)),
    ):
        actual, wanted = getattr(kernels, op.name)(*args), op.reference(*args)
        assert actual.stride() == wanted.stride()
        torch.testing.assert_close(actual, wanted, rtol=1e-5, atol=1e-5)


def test_nothing_to_sum():
    window = ((1, 1), (0, 0), (1, 1), 3, 3)
    x, weight = torch.empty(0, 6, 4, 4), torch.randn(6, 2, 1, 1)
    assert kernels.grouped_conv2d_shuffle(x, weight, None, *window, False).shape == x.shape
    assert kernels.grouped_conv2d_shuffle_backward_input(x, weight, x.shape, *window, True).shape == x.shape
    assert not kernels.grouped_conv2d_shuffle_backward_weight(x, x, weight.shape, *window).any()


def test_pytorch_runs_what_the_kernels_do_not():
    window = ((1, 1), (0, 0), (1, 1), 3, 3)
    x, weight = torch.zeros(1, 6, 4, 4), torch.zeros(6, 2, 1, 1)
    wide = (x.double(), weight.double())
    large = torch.zeros(1).expand(1, 6, 2**15, 2**15)
    assert kernels.grouped_conv2d_shuffle(*wide, None, *window, False) is NotImplemented
    assert kernels.grouped_conv2d_shuffle_backward_input(*wide, x.shape, *window, False) is NotImplemented
    assert kernels.grouped_conv2d_shuffle_backward_weight(wide[0], wide[0], weight.shape, *window) is NotImplemented
    assert kernels.grouped_conv2d_shuffle(large, weight, None, *window, False) is NotImplemented


@pytest.mark.parametrize("name", cpu_tests.RAW)
def test_raw_calls_check_shapes(name):
    x, weight, bias, *window = cpu_tests.RAW[name]
    grad = torch.zeros(1, 6, 4, 4)
    with pytest.raises(RuntimeError, match=f"{NAME}: "):
        bias = None if bias is None else torch.zeros(bias)
        kernels.grouped_conv2d_shuffle(torch.zeros(x), torch.zeros(weight), bias, *window, False)
    if bias is None:
        with pytest.raises(RuntimeError, match=f"{NAME}_backward_input: "):
            kernels.grouped_conv2d_shuffle_backward_input(grad, torch.zeros(weight), x, *window, False)
        with pytest.raises(RuntimeError, match=f"{NAME}_backward_weight: "):
            kernels.grouped_conv2d_shuffle_backward_weight(grad, torch.zeros(x), weight, *window)


def test_raw_calls_check_gradients_and_dtypes():
    x, weight, window = torch.zeros(1, 6, 4, 4), torch.zeros(6, 2, 1, 1), ((1, 1), (0, 0), (1, 1), 3, 3)
    small = torch.zeros(1, 6, 4, 3)
    for function, *args in (
        (kernels.grouped_conv2d_shuffle, x, weight.half(), None, *window, False),
        (kernels.grouped_conv2d_shuffle, x, weight, torch.zeros(6).half(), *window, False),
        (kernels.grouped_conv2d_shuffle_backward_input, small, weight, x.shape, *window, False),
        (kernels.grouped_conv2d_shuffle_backward_input, x, weight.half(), x.shape, *window, False),
        (kernels.grouped_conv2d_shuffle_backward_weight, small, x, weight.shape, *window),
        (kernels.grouped_conv2d_shuffle_backward_weight, x, x.half(), weight.shape, *window),
    ):
        with pytest.raises(RuntimeError, match=f"{NAME}.*: expected"):
            function(*args)
