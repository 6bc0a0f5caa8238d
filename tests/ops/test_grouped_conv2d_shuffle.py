"""What the contract suite does not say of the shuffled grouped convolution: values by hand, any window, bad input."""

import contextlib
import copy
import importlib

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses import FakeTensorMode

from fastcnn import _backend, nn, ops, reference_mode
from fastcnn.ops import _library
from fastcnn.testing.compare import assert_close_to

MODES = [_library.kernel_mode, reference_mode]


@pytest.fixture(autouse=True)
def _our_kernels():
    with _library.kernel_mode():
        yield


def in_torch(x, weight, bias, groups=1, shuffle_groups=None, activation=None, **window):
    out = F.conv2d(x, weight, bias, groups=groups, **window)
    return F.channel_shuffle(out.relu() if activation else out, shuffle_groups or groups)


@pytest.mark.parametrize("mode", MODES)
def test_each_result_is_of_its_group(mode):
    """Group g sums its two channels, which hold 10 ** g; result j of it is j + 1 times that, at channel j * 3 + g."""
    x = torch.tensor([1.0, 1, 10, 10, 100, 100]).view(1, 6, 1, 1).expand(1, 6, 4, 5)
    weight = torch.tensor([1.0, 2]).repeat(3).view(6, 1, 1, 1).expand(6, 2, 1, 1)
    with mode():
        out = ops.grouped_conv2d_shuffle(x, weight, groups=3)
        plain = ops.grouped_conv2d_shuffle(x, weight, groups=3, shuffle_groups=1)
    assert out[0, :, 3, 2].tolist() == [2, 20, 200, 4, 40, 400]
    assert plain[0, :, 3, 2].tolist() == [2, 4, 20, 40, 200, 400]


@pytest.mark.parametrize("mode", MODES)
def test_relu_comes_after_the_bias_and_keeps_nan(mode):
    x = torch.ones(1, 2, 5, 5)
    x[0, 1, 2, 2] = torch.nan
    weight, bias = torch.ones(2, 1, 1, 1), torch.tensor([-3.0, 1.0])
    with mode():
        out = ops.grouped_conv2d_shuffle(x, weight, bias, groups=2, shuffle_groups=1, activation="relu")
    assert torch.equal(out[0, 0], torch.zeros(5, 5))
    assert out[0, 1].isnan().nonzero().tolist() == [[2, 2]]
    assert (out[0, 1].nan_to_num(2) == 2).all()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("kernel, padding", [(1, 0), (3, 1)])
def test_a_nan_stays_in_its_group_and_window(layout, kernel, padding):
    x = torch.randn(2, 34, 7, 9)
    x[0, 20, 3, 4] = torch.nan
    weight = torch.randn(36, 17, kernel, kernel)
    args = {"padding": padding, "groups": 2}
    out = ops.grouped_conv2d_shuffle(x.contiguous(memory_format=layout), weight, **args)
    assert torch.equal(out.isnan(), in_torch(x, weight, None, **args).isnan())
    leaf = weight.clone().requires_grad_()
    ops.grouped_conv2d_shuffle(x.contiguous(memory_format=layout), leaf, **args).sum().backward()
    wanted = torch.zeros(36, 17, dtype=torch.bool)
    wanted[18:, 3] = True
    assert torch.equal(leaf.grad.isnan().flatten(2).any(2), wanted)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_in_its_group(layout, kernel, value, device="cpu"):
    """Of small groups, which a program on a GPU takes several of, in both directions."""
    window = ((1, 1), (kernel // 2,) * 2, (1, 1), 6, 6)
    x, grad = (torch.randn(2, 12, 7, 9).contiguous(memory_format=layout) for _ in range(2))
    weight = torch.randn(12, 2, kernel, kernel)
    x[0, 5, 3, 4] = grad[1, 8, 2, 5] = value
    for name, args in (
        ("grouped_conv2d_shuffle", (x, weight, None, *window, False)),
        ("grouped_conv2d_shuffle_backward_input", (grad, weight, x.shape, *window, layout == torch.channels_last)),
        ("grouped_conv2d_shuffle_backward_weight", (grad, x, weight.shape, *window)),
    ):
        op = _library.ops[name]
        actual = op.call(*(a.to(device) if isinstance(a, torch.Tensor) else a for a in args)).cpu()
        wanted = op.reference(*args)
        assert torch.equal(actual.isfinite(), wanted.isfinite())
        torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-4, equal_nan=True)


sizes = st.integers(1, 3)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(
    st.tuples(sizes, sizes),
    st.tuples(sizes, sizes),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.tuples(sizes, sizes),
    st.tuples(st.integers(1, 4), st.integers(1, 20), st.integers(1, 20), st.booleans()),
    st.tuples(st.integers(1, 2), st.integers(0, 6), st.integers(0, 6)),
    st.booleans(),
    st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    st.booleans(),
)
def test_any_window(kernel, stride, padding, dilation, channels, size, channels_last, dtype, bias):
    """Values and all gradients against float64."""
    groups, each, out, shuffle = channels
    need = [max((k - 1) * d + 1 - 2 * p, 1) for k, d, p in zip(kernel, dilation, padding, strict=True)]
    generator = torch.Generator().manual_seed(0)

    def tensor(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    x = tensor(size[0], groups * each, need[0] + size[1], need[1] + size[2])
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    tensors = [x, tensor(groups * out, each, *kernel), *([tensor(groups * out)] if bias else [])]
    window = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    window["shuffle_groups"] = groups if shuffle else out
    cotangent, results = None, []
    for function, to in ((ops.grouped_conv2d_shuffle, dtype), (in_torch, torch.float64)):
        leaves = [t.detach().to(to).requires_grad_() for t in tensors]
        result = function(*leaves, *([] if bias else [None]), **window)
        cotangent = tensor(*result.shape) if cotangent is None else cotangent
        results.append((result, *torch.autograd.grad(result, leaves, cotangent.to(to))))
    terms = each * kernel[0] * kernel[1]
    for actual, wanted in zip(*results, strict=True):
        assert_close_to(actual.detach(), wanted.detach(), reduction=64 * terms + wanted.numel())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("args", [(6, 1, 0, 2), (6, 3, 1, 1), (2, 3, 1, 2)], ids=str)
def test_maps_cut_into_bands(args, layout, dtype):
    """Large enough for several tasks an image and several parts of the sum over pixels."""
    groups, kernel, padding, stride = args
    x = torch.randn(3, 24 * groups, 40, 37).to(dtype).contiguous(memory_format=layout).requires_grad_()
    weight = (torch.randn(18 * groups, 24, kernel, kernel) / 10).to(dtype).requires_grad_()
    window = {"stride": stride, "padding": padding, "groups": groups}
    out = ops.grouped_conv2d_shuffle(x, weight, **window)
    wide = [t.detach().double().requires_grad_() for t in (x, weight)]
    exact = in_torch(*wide, None, **window)
    cotangent = torch.randn_like(out)
    grads = torch.autograd.grad(out, (x, weight), cotangent)
    exact_grads = torch.autograd.grad(exact, wide, cotangent.double())
    for actual, wanted in zip((out, *grads), (exact, *exact_grads), strict=True):
        assert_close_to(actual.detach(), wanted.detach(), reduction=4096)


def test_only_the_gradients_needed_are_computed(monkeypatch):
    called = []

    def call_backward(op, *args):
        called.append(op.name.rpartition("_")[2])
        return op.call(*args)

    monkeypatch.setattr(_library, "call_backward", call_backward)
    for needs in ([0], [1], [2], [0, 2]):
        tensors = [torch.randn(1, 4, 5, 5), torch.randn(4, 2, 1, 1), torch.randn(4)]
        for i in needs:
            tensors[i].requires_grad_()
        called.clear()
        ops.grouped_conv2d_shuffle(*tensors, groups=2).sum().backward()
        assert called == [name for i, name in enumerate(["input", "weight"]) if i in needs]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("channels, kernel, groups", [(48, 1, 2), (48, 1, 1), (8, 3, 2), (24, 3, 2), (6, 3, 6)])
def test_where_pytorch_is_called_the_result_is_the_same(channels, kernel, groups, dtype, layout, monkeypatch):
    monkeypatch.setattr(_library.mode, "name", "auto")
    monkeypatch.setattr(importlib.import_module("fastcnn.ops.grouped_conv2d_shuffle"), "HAS_BF16", True)
    called = []
    monkeypatch.setattr(F, "conv2d", lambda *args, conv2d=F.conv2d: called.append(None) or conv2d(*args))
    bfloat16, channels_last = dtype == torch.bfloat16, layout == torch.channels_last
    few = 4 if bfloat16 or channels_last else 8
    by_torch = (
        channels // groups not in range(2, few + 1) if kernel > 1 else bfloat16 or (groups == 1 and channels_last)
    )
    x = torch.randn(2, channels, 5, 6).to(dtype).contiguous(memory_format=layout)
    weight = (torch.randn(channels, channels // groups, kernel, kernel) / 8).to(dtype)
    bias = torch.randn(channels).to(dtype)
    args = {"padding": kernel // 2, "groups": groups, "activation": "relu"}
    results = []
    for mode in (lambda: contextlib.nullcontext(), _library.kernel_mode):
        leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
        with mode():
            out = ops.grouped_conv2d_shuffle(*leaves, **args)
        results.append((out, *torch.autograd.grad(out.float().square().sum(), leaves)))
    assert len(called) == by_torch
    assert results[0][0].is_contiguous(memory_format=layout)
    tolerance = {"rtol": 5e-2, "atol": 5e-1} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(*results, **tolerance)


@pytest.mark.parametrize(
    "args",
    [
        {"in_channels": 6, "out_channels": 12, "kernel_size": 1, "groups": 3},
        {"in_channels": 4, "out_channels": 6, "kernel_size": (3, 2), "padding": "same", "groups": 2, "bias": False},
        {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "padding": 1, "padding_mode": "reflect", "stride": 2},
    ],
    ids=["1x1", "same", "reflect"],
)
def test_the_layer_is_its_twin(args):
    theirs = torch.nn.Conv2d(**args)
    ours = nn.GroupedConv2dShuffle(**args, shuffle_groups=2, activation="relu")
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert "shuffle_groups=2, activation=relu" in repr(ours)
    ours = copy.deepcopy(ours)
    x = torch.randn(2, args["in_channels"], 6, 7, requires_grad=True)
    out, wanted = ours(x), F.channel_shuffle(theirs(x).relu(), 2)
    torch.testing.assert_close(out, wanted)
    cotangent = torch.randn_like(out)
    actual = torch.autograd.grad(out, (x, *ours.parameters()), cotangent)
    expected = torch.autograd.grad(wanted, (x, *theirs.parameters()), cotangent)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(
    "each, out, groups, kernel, dtype, expected",
    [
        (4, 4, 32, 3, torch.bfloat16, False),
        (80, 20, 3, 1, torch.float32, False),
        (80, 80, 3, 1, torch.float32, True),
        (16, 16, 1, 1, torch.float16, True),
        (1, 1, 8, 3, torch.float16, True),
        (1, 1, 8, 1, torch.float16, False),
        (4, 4, 32, 3, torch.float64, True),
    ],
)
def test_what_a_gpu_leaves_to_pytorch(each, out, groups, kernel, dtype, expected):
    module = importlib.import_module("fastcnn.ops.grouped_conv2d_shuffle")
    with FakeTensorMode():
        x = torch.empty(1, each * groups, 8, 8, dtype=dtype, device="cuda")
        weight = torch.empty(out * groups, each, kernel, kernel, dtype=dtype, device="cuda")
        assert module.torch_is_as_fast(x, weight, (1, 1), groups) is expected


RAW = {
    "groups": ((1, 6, 4, 4), (6, 3, 1, 1), None, (1, 1), (0, 0), (1, 1), 3, 3),
    "no groups": ((1, 6, 4, 4), (6, 3, 1, 1), None, (1, 1), (0, 0), (1, 1), 0, 3),
    "shuffle": ((1, 6, 4, 4), (6, 2, 1, 1), None, (1, 1), (0, 0), (1, 1), 3, 4),
    "bias": ((1, 6, 4, 4), (6, 2, 1, 1), (5,), (1, 1), (0, 0), (1, 1), 3, 3),
    "stride": ((1, 6, 4, 4), (6, 2, 1, 1), None, (0, 1), (0, 0), (1, 1), 3, 3),
    "padding": ((1, 6, 4, 4), (6, 2, 1, 1), None, (1, 1), (0, -1), (1, 1), 3, 3),
    "pairs": ((1, 6, 4, 4), (6, 2, 1, 1), None, (1,), (0, 0), (1, 1), 3, 3),
    "kernel": ((1, 6, 4, 4), (6, 2, 5, 1), None, (1, 1), (0, 0), (1, 1), 3, 3),
    "rank": ((6, 4, 4), (6, 2, 1, 1), None, (1, 1), (0, 0), (1, 1), 3, 3),
    # Products of these would overflow.
    "huge stride": ((1, 6, 4, 4), (6, 2, 1, 1), None, (1, 2**63 - 1), (0, 0), (1, 1), 3, 3),
    "huge padding": ((1, 6, 4, 4), (6, 2, 1, 1), None, (1, 1), (2**62, 0), (1, 1), 3, 3),
    "huge dilation": ((1, 6, 4, 4), (6, 2, 3, 1), None, (1, 1), (0, 0), (2**62, 1), 3, 3),
    "huge groups": ((1, 6, 4, 4), (6, 2, 1, 1), None, (1, 1), (0, 0), (1, 1), 2**62, 3),
}


@pytest.mark.skipif(not _backend.cpu.available, reason="the compiled kernels' own checks")
@pytest.mark.parametrize("name", RAW)
def test_the_kernels_check_what_they_are_called_with(name):
    x, weight, bias, *window = RAW[name]
    raw = torch.ops.fastcnn
    bias_tensor = None if bias is None else torch.zeros(bias)
    with pytest.raises(RuntimeError, match="grouped_conv2d_shuffle"):
        raw.grouped_conv2d_shuffle(torch.zeros(x), torch.zeros(weight), bias_tensor, *window, False)
    if bias is None:
        grad = torch.zeros(1, 6, 4, 4)
        with pytest.raises(RuntimeError, match="grouped_conv2d_shuffle_backward_input"):
            raw.grouped_conv2d_shuffle_backward_input(grad, torch.zeros(weight), x, *window, False)
        with pytest.raises(RuntimeError, match="grouped_conv2d_shuffle_backward_weight"):
            raw.grouped_conv2d_shuffle_backward_weight(grad, torch.zeros(x), weight, *window)


@pytest.mark.skipif(not _backend.cpu.available, reason="the compiled kernels' own checks")
def test_the_kernels_check_gradients_and_dtypes():
    raw, x, weight = torch.ops.fastcnn, torch.zeros(1, 6, 4, 4), torch.zeros(6, 2, 1, 1)
    window = ((1, 1), (0, 0), (1, 1), 3, 3)
    small = torch.zeros(1, 6, 4, 3)
    for call in (
        lambda: raw.grouped_conv2d_shuffle(x, weight.double(), None, *window, False),
        lambda: raw.grouped_conv2d_shuffle(x, weight, torch.zeros(6).half(), *window, False),
        lambda: raw.grouped_conv2d_shuffle_backward_input(small, weight, x.shape, *window, False),
        lambda: raw.grouped_conv2d_shuffle_backward_input(x, weight.half(), x.shape, *window, False),
        lambda: raw.grouped_conv2d_shuffle_backward_weight(small, x, weight.shape, *window),
        lambda: raw.grouped_conv2d_shuffle_backward_weight(x, x.half(), weight.shape, *window),
    ):
        with pytest.raises(RuntimeError, match="grouped_conv2d_shuffle"):
            call()


X, W = torch.zeros(2, 6, 5, 5), torch.zeros(12, 2, 1, 1)
BAD = {
    "rank": ((X[0], W), {"groups": 3}, ValueError, r"4 dimensions, got shapes \(6, 5, 5\) and \(12, 2, 1, 1\)"),
    "groups": ((X, W), {"groups": 2}, ValueError, r"2 groups do not fit input of shape \(2, 6, 5, 5\)"),
    "no groups": ((X, W), {"groups": 0}, ValueError, "0 groups do not fit"),
    "out": ((X, W[:5]), {"groups": 3}, ValueError, r"weight of shape \(5, 2, 1, 1\)"),
    "shuffle": ((X, W), {"groups": 3, "shuffle_groups": 5}, ValueError, "divide 12 channels, got 5"),
    "bias": ((X, W, torch.zeros(6)), {"groups": 3}, ValueError, r"bias of shape \(12,\), got \(6,\)"),
    "kernel": ((X, torch.zeros(12, 2, 1, 7)), {"groups": 3}, ValueError, r"kernel of shape \(1, 7\) does not fit"),
    "stride": ((X, W), {"groups": 3, "stride": 0}, ValueError, "stride of at least 1, got 0"),
    "padding": ((X, W), {"groups": 3, "padding": (0, -1)}, ValueError, r"padding of at least 0, got \(0, -1\)"),
    "triple": ((X, W), {"groups": 3, "dilation": (1, 1, 1)}, ValueError, r"one or two numbers, got \(1, 1, 1\)"),
    "activation": ((X, W), {"groups": 3, "activation": "tanh"}, ValueError, "None or 'relu', got 'tanh'"),
    "devices": ((X, W.to("meta")), {"groups": 3}, ValueError, "input on cpu, weight on meta"),
    "dtypes": ((X, W.double()), {"groups": 3}, TypeError, r"got input torch\.float32, weight torch\.float64"),
    "int": ((X.int(), W), {"groups": 3}, TypeError, r"input of a floating-point dtype, got torch\.int32"),
    "none": ((X, None), {"groups": 3}, TypeError, "expected weight to be a tensor, got NoneType"),
    "groups type": ((X, W), {"groups": 3.0}, TypeError, "expected groups to be an int, got float 3.0"),
    "shuffle type": ((X, W), {"groups": 3, "shuffle_groups": "3"}, TypeError, "shuffle_groups to be an int, got str"),
    "stride type": ((X, W), {"groups": 3, "stride": 1.0}, TypeError, r"stride\[0\] to be an int, got float 1.0"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", BAD)
def test_bad_input(name, mode):
    args, kwargs, error, message = BAD[name]
    with mode(), pytest.raises(error, match=message) as caught:
        ops.grouped_conv2d_shuffle(*args, **kwargs)
    assert str(caught.value).startswith("grouped_conv2d_shuffle: ") and "\n" not in str(caught.value)
