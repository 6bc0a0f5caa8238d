"""What the contract suite does not say of depthwise convolution: values by hand, conv2d's semantics, bad input."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import fastcnn
from fastcnn import _backend, ops, reference_mode
from fastcnn.ops import _library
from fastcnn.testing.compare import assert_close_to

MODES = [_library.kernel_mode, reference_mode]
LAYOUTS = (torch.contiguous_format, torch.channels_last)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mode", MODES)
class TestByHand:
    def test_a_box_filter_counts_its_neighbours(self, mode, layout):
        x = torch.ones(1, 2, 3, 4).contiguous(memory_format=layout)
        with mode():
            out = ops.depthwise_conv2d(x, torch.ones(2, 1, 3, 3), padding=1)
        counts = torch.tensor([[4.0, 6, 6, 4], [6, 9, 9, 6], [4, 6, 6, 4]])
        assert torch.equal(out, counts.expand(1, 2, 3, 4))

    def test_it_correlates_and_does_not_flip(self, mode, layout):
        x = torch.zeros(1, 1, 5, 5).contiguous(memory_format=layout)
        x[0, 0, 2, 2] = 1
        weight = torch.arange(9.0).view(1, 1, 3, 3)
        with mode():
            out = ops.depthwise_conv2d(x, weight)
        assert torch.equal(out[0], weight[0].flip(1, 2))

    def test_every_channel_has_its_own_filters(self, mode, layout):
        x = torch.tensor([1.0, 10.0]).view(1, 2, 1, 1).contiguous(memory_format=layout)
        weight = torch.tensor([1.0, 2, 3, 4]).view(4, 1, 1, 1)
        with mode():
            out = ops.depthwise_conv2d(x, weight, torch.tensor([0.0, 0, 0, 0.5]))
        assert out.flatten().tolist() == [1, 2, 30, 40.5]

    @pytest.mark.parametrize(
        "activation, expected",
        [
            ("relu", [0.0, 0.0, 1.0, 8.0]),
            ("relu6", [0.0, 0.0, 1.0, 6.0]),
            ("hardswish", [0.0, -1 / 3, 2 / 3, 8.0]),
            ("silu", [-4 * 0.01798621, -0.26894142, 0.73105858, 7.99731720]),
        ],
    )
    def test_activations(self, mode, layout, activation, expected):
        x = torch.tensor([-4.0, -1.0, 1.0, 8.0]).view(1, 1, 2, 2).contiguous(memory_format=layout)
        with mode():
            out = ops.depthwise_conv2d(x, torch.ones(1, 1, 1, 1), activation=activation)
        torch.testing.assert_close(out.flatten(), torch.tensor(expected))


@pytest.mark.parametrize("activation", [None, "relu", "relu6", "hardswish", "silu"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_nan_spreads_as_far_as_the_kernel(layout, activation):
    x = torch.zeros(1, 3, 9, 9).contiguous(memory_format=layout)
    x[0, 1, 4, 4] = float("nan")
    with _library.kernel_mode():
        out = ops.depthwise_conv2d(x, torch.ones(3, 1, 3, 3), padding=1, activation=activation)
    assert out.isnan().sum() == 9 and out[0, 1, 3:6, 3:6].isnan().all()


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.integers(0, 2), st.integers(1, 40), st.integers(1, 3), st.integers(1, 24), st.integers(1, 40),
    st.tuples(st.integers(1, 7), st.integers(1, 7)), pairs, pairs, st.sampled_from((0, 1, 2, 3, "same")),
    st.sampled_from((torch.float64, torch.float32, torch.bfloat16, torch.float16)), st.sampled_from(LAYOUTS),
    st.lists(st.booleans(), min_size=3, max_size=3),
)  # fmt: skip
def test_agrees_with_conv2d(n, c, m, h, w, kernel, stride, dilation, padding, dtype, layout, need):
    if padding == "same":
        stride = (1, 1)
    pad = 0 if padding == "same" else padding
    if padding != "same" and any(
        s + 2 * pad < d * (k - 1) + 1 for s, k, d in zip((h, w), kernel, dilation, strict=True)
    ):
        return
    g = torch.Generator().manual_seed(c * w + h)
    x = torch.randn(n, c, h, w, generator=g).to(dtype).contiguous(memory_format=layout)
    weight, bias = torch.randn(c * m, 1, *kernel, generator=g).to(dtype), torch.randn(c * m, generator=g).to(dtype)
    ours = [t.clone().requires_grad_(needed) for t, needed in zip((x, weight, bias), need, strict=True)]
    exact = [t.double().requires_grad_(needed) for t, needed in zip((x, weight, bias), need, strict=True)]
    with _library.kernel_mode():
        out = ops.depthwise_conv2d(*ours, stride, padding, dilation)
        wanted = F.conv2d(*exact, stride, padding, dilation, c)
        assert_close_to(out.detach(), wanted.detach(), reduction=49)
        if not any(need):
            return
        cotangent = torch.randn(out.shape, generator=g).to(dtype)
        inputs, wide = ([t for t in ts if t.requires_grad] for ts in (ours, exact))
        grads = torch.autograd.grad(out, inputs, cotangent)
        exact_grads = torch.autograd.grad(wanted, wide, cotangent.double())
    for grad, exact_grad in zip(grads, exact_grads, strict=True):
        assert_close_to(grad, exact_grad, reduction=16 * 49 + out.numel() // c)


# Planes: rows shorter and longer than whole and half vectors of every level, and blocks of rows of every height.
# Channels_last: the same of channels and of blocks of columns.
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stride, size", [(1, 3), (2, 3), (1, 5), (2, 5), (1, 7), (2, 7)])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(1, 2), st.integers(1, 18), st.integers(1, 36), st.integers(1, 70), st.data(),
    st.sampled_from((torch.float64, torch.float32, torch.float32, torch.bfloat16)),
    st.sampled_from((None, "relu", "hardswish", "silu")),
)  # fmt: skip
def test_kernels_for_common_sizes_agree_with_conv2d(stride, size, layout, n, c, h, w, data, dtype, activation):
    if layout is torch.channels_last:
        c, w = w, c + 2
    padding = data.draw(st.tuples(st.integers(0, size), st.integers(0, size)))
    if h + 2 * padding[0] < size or w + 2 * padding[1] < size:
        return
    g = torch.Generator().manual_seed(h * w)
    x, weight, bias = (torch.randn(shape, generator=g).to(dtype) for shape in ((n, c, h, w), (c, 1, size, size), (c,)))
    x = x.contiguous(memory_format=layout)
    for t in (x, weight, bias):
        t.requires_grad_()
    wide = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    with _library.kernel_mode():
        out = ops.depthwise_conv2d(x, weight, bias, stride, padding)
        wanted = F.conv2d(*wide, stride, padding, 1, c)
        assert_close_to(out.detach(), wanted.detach(), reduction=49)
        cotangent = torch.randn(out.shape, generator=g).to(dtype)
        grads = torch.autograd.grad(out, (x, weight, bias), cotangent)
        activated = ops.depthwise_conv2d(x, weight, bias, stride, padding, 1, activation).detach()
    for grad, exact in zip(grads, torch.autograd.grad(wanted, wide, cotangent.double()), strict=True):
        assert_close_to(grad, exact, reduction=16 * 49 + out.numel() // c)
    exact = wanted if activation is None else getattr(F, activation)(wanted)
    assert_close_to(activated, exact.detach(), reduction=49)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "shape, size, stride", [((1, 1024, 33, 32), 3, 1), ((2, 96, 90, 75), 5, 2), ((1, 65, 130, 129), 3, 1)]
)
def test_results_too_large_for_caches(shape, size, stride, layout):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=g).contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(shape[1], 1, size, size, generator=g).requires_grad_()
    wide = [t.detach().double().requires_grad_() for t in (x, weight)]
    with _library.kernel_mode():
        out = ops.depthwise_conv2d(x, weight, None, stride, size // 2)
        cotangent = torch.randn(out.shape, generator=g).contiguous(memory_format=layout)
        grads = torch.autograd.grad(out, (x, weight), cotangent)
    wanted = F.conv2d(*wide, None, stride, size // 2, 1, shape[1])
    assert_close_to(out.detach(), wanted.detach(), reduction=size * size)
    for grad, exact in zip(grads, torch.autograd.grad(wanted, wide, cotangent.double()), strict=True):
        assert_close_to(grad, exact, reduction=out.numel() // shape[1])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size, stride", [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1)])
@pytest.mark.parametrize("width", [4, 7, 16, 19, 33])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_not_finite_spreads_as_far_as_the_kernel(size, stride, width, dtype, layout, device="cpu"):
    shape, weight = (2, 3, 9, width), torch.rand(3, 1, size, size).to(dtype) + 0.5
    for y in (0, 4, 8):
        for at in (0, width // 2, width - 1):
            x = torch.zeros(shape, dtype=dtype).contiguous(memory_format=layout)
            x[0, 1, y, at] = float("inf")
            x[1, 2, y, at] = float("nan")
            with _library.kernel_mode():
                out = ops.depthwise_conv2d(x.to(device), weight.to(device), None, stride, size // 2).cpu()
                wanted = F.conv2d(x.double(), weight.double(), None, stride, size // 2, 1, 3)
                grad = torch.zeros(out.shape, dtype=dtype)
                row, column = y // stride, at // stride
                grad[0, 1, row, column] = float("inf")
                grad[1, 2, row, column] = float("nan")
                pads, ones = [size // 2] * 4, torch.ones(shape, dtype=dtype).contiguous(memory_format=layout)
                ours = torch.ops.fastcnn.depthwise_conv2d_backward(
                    *(t.to(device) for t in (grad, ones, weight)), [stride] * 2, pads, [1, 1], True, False, False
                )[0].cpu()
            # Where infinity meets the zeros of the map it makes NaN in PyTorch too, wherever a tap lies between.
            assert torch.equal(out.isfinite(), wanted.isfinite())
            wanted = torch.nn.grad.conv2d_input(shape, weight.double(), grad.double(), stride, size // 2, 1, 3)
            assert torch.equal(ours.isfinite(), wanted.isfinite())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_gradient_of_the_weight_meets_no_pixel_beyond_a_tap(layout, device="cpu"):
    for width in (3, 7, 8, 10, 16, 17, 40):
        x = torch.zeros(1, 2, 9, width).contiguous(memory_format=layout)
        x[0, 0, :, 0] = float("nan")  # Column 0 is never to the right of an output.
        x[0, 1, 8] = float("nan")  # The last row is never above one.
        grad = torch.ones(1, 2, 9, width)
        with _library.kernel_mode():
            weight = torch.ones(2, 1, 3, 3)
            got = torch.ops.fastcnn.depthwise_conv2d_backward(
                *(t.to(device) for t in (grad, x, weight)), [1, 1], [1] * 4, [1, 1], False, True, False
            )[1]
        assert got[0, 0, :, 2].isfinite().all() and got[0, 0, :, :2].isnan().all()
        assert got[1, 0, 0].isfinite().all() and got[1, 0, 1:].isnan().all()


@pytest.mark.parametrize(
    "shape, layout, kernel, stride, activation, training, routed",
    [
        ((2, 3, 14, 14), LAYOUTS[0], (3, 3), 1, "relu", False, False),
        ((2, 3, 15, 15), LAYOUTS[0], (7, 7), 1, "relu", False, False),
        ((2, 3, 15, 15), LAYOUTS[0], (7, 7), 2, "relu", False, True),
        ((2, 3, 14, 14), LAYOUTS[0], (3, 5), 1, "relu", False, True),
        ((2, 3, 14, 14), LAYOUTS[0], (3, 5), 1, "relu", True, False),
        ((2, 3, 15, 15), LAYOUTS[0], (3, 5), 1, "relu", False, False),
        ((4, 128, 32, 32), LAYOUTS[1], (3, 3), 1, "relu", False, False),
        ((8, 128, 32, 32), LAYOUTS[1], (3, 3), 2, None, False, True),
        ((8, 128, 32, 32), LAYOUTS[1], (3, 3), 2, "relu", False, False),
        ((8, 128, 32, 32), LAYOUTS[1], (3, 3), 2, None, True, False),
        ((1, 128, 32, 32), LAYOUTS[1], (3, 3), 2, None, False, False),
        ((1, 128, 182, 182), LAYOUTS[1], (3, 3), 2, None, False, False),
        ((4, 128, 32, 32), LAYOUTS[1], (9, 9), 1, "relu", False, True),
        ((4, 128, 32, 32), LAYOUTS[1], (9, 9), 1, "relu", True, False),
    ],
)
def test_where_pytorch_is_called(monkeypatch, shape, layout, kernel, stride, activation, training, routed):
    called = []
    call = _library.call
    monkeypatch.setattr(_library, "call", lambda *args: called.append(args) or call(*args))
    x = torch.randn(shape).contiguous(memory_format=layout)
    weight = torch.randn(shape[1], 1, *kernel, requires_grad=training)
    out = ops.depthwise_conv2d(x, weight, None, stride, 4, activation=activation)
    assert bool(called) != routed
    wanted = F.conv2d(x, weight, None, stride, 4, groups=shape[1])
    wanted = wanted.relu() if activation else wanted
    torch.testing.assert_close(out, wanted, check_stride=False, atol=1e-4, rtol=1e-4)


def test_an_image_without_a_batch():
    x, weight = torch.randn(3, 6, 7), torch.randn(3, 1, 3, 3)
    assert torch.equal(ops.depthwise_conv2d(x, weight), ops.depthwise_conv2d(x[None], weight)[0])


def test_a_stride_beyond_the_kernels_limit():
    x, weight = torch.randn(1, 2, 140, 70), torch.randn(2, 1, 3, 3)
    torch.testing.assert_close(ops.depthwise_conv2d(x, weight, stride=65), F.conv2d(x, weight, stride=65, groups=2))


X, W = torch.zeros(1, 4, 5, 6), torch.zeros(4, 1, 3, 3)


@pytest.mark.parametrize(
    "args, error, message",
    [
        ((X.int(), W), TypeError, r"expected input of a floating-point dtype, got torch.int32"),
        ((X, W.double()), TypeError, r"one dtype, got input torch.float32, weight torch.float64"),
        ((X, W, torch.zeros(4, dtype=torch.half)), TypeError, r"bias torch.float16"),
        ((X, [1.0]), TypeError, r"expected weight to be a tensor, got list"),
        ((X[0, 0], W), ValueError, r"input of shape \(5, 6\)"),
        ((X, W[0]), ValueError, r"weight of shape \(1, 3, 3\)"),
        ((X, torch.zeros(6, 1, 3, 3)), ValueError, r"\(6, 1, 3, 3\)"),
        ((X, torch.zeros(4, 2, 3, 3)), ValueError, r"\(4, 2, 3, 3\)"),
        ((X[:, :0], W), ValueError, r"\(1, 0, 5, 6\)"),
        ((X, W, torch.zeros(3)), ValueError, r"bias of shape \(4,\), got \(3,\)"),
        (
            (X, torch.zeros(4, 1, 6, 3)),
            ValueError,
            r"at least as large as the kernel, got input of shape \(1, 4, 5, 6\)",
        ),
        ((X, W, None, 0), ValueError, r"stride of at least 1, got 0"),
        ((X, W, None, 1.5), TypeError, r"expected stride to be an int, got float 1.5"),
        ((X, W, None, (1, 2, 3)), ValueError, r"stride of one or two numbers, got \(1, 2, 3\)"),
        ((X, W, None, 1, -1), ValueError, r"padding of at least 0, got -1"),
        ((X, W, None, 1, "full"), ValueError, r"'same' or 'valid', got 'full'"),
        ((X, W, None, 2, "same"), ValueError, r"needs a stride of 1, got \(2, 2\)"),
        ((X, W, None, 1, 0, 0), ValueError, r"dilation of at least 1, got 0"),
        ((X, W, None, 1, 0, 1, "gelu"), ValueError, r"got 'gelu'"),
    ],
)
def test_bad_input(args, error, message):
    with pytest.raises(error, match=f"depthwise_conv2d: .*{message}") as info:
        ops.depthwise_conv2d(*args)
    assert "\n" not in str(info.value)


@pytest.mark.skipif(not _backend.cpu.available, reason="the compiled kernels' own checks")
@pytest.mark.parametrize(
    "x, w, bias, stride, padding, dilation, activation",
    [
        (X, torch.zeros(6, 1, 3, 3), None, [1, 1], [0] * 4, [1, 1], 0),
        (X, torch.zeros(4, 1, 9, 3), None, [1, 1], [0] * 4, [1, 1], 0),
        (X, W.double(), None, [1, 1], [0] * 4, [1, 1], 0),
        (X, W, torch.zeros(3), [1, 1], [0] * 4, [1, 1], 0),
        (X, W, None, [0, 1], [0] * 4, [1, 1], 0),
        (X, W, None, [1, 65], [0] * 4, [1, 1], 0),
        (X, W, None, [1, 1], [-1, 0, 0, 0], [1, 1], 0),
        (X, W, None, [1, 1], [0] * 4, [0, 1], 0),
        (X, W, None, [1, 1], [0] * 4, [2**62, 1], 0),
        (X, W, None, [1, 1], [0] * 4, [1, 1], 9),
    ],
)
def test_the_kernel_checks_what_it_is_called_with(x, w, bias, stride, padding, dilation, activation):
    with pytest.raises(RuntimeError):
        torch.ops.fastcnn.depthwise_conv2d(x, w, bias, stride, padding, dilation, activation)


@pytest.mark.skipif(not _backend.cpu.available, reason="the compiled kernels' own checks")
@pytest.mark.parametrize("grad", [torch.zeros(1, 4, 3, 5), torch.zeros(4, 3, 4), torch.zeros(1, 4, 3, 4).double()])
def test_the_backward_kernel_checks_its_gradient(grad):
    with pytest.raises(RuntimeError):
        torch.ops.fastcnn.depthwise_conv2d_backward(grad, X, W, [1, 1], [0] * 4, [1, 1], True, True, True)


class TestLayer:
    @pytest.mark.parametrize("mode", ["zeros", "reflect"])
    @pytest.mark.parametrize("padding", [1, "same"])
    def test_equals_its_twin(self, mode, padding):
        twin = torch.nn.Conv2d(6, 12, 3, padding=padding, groups=6, padding_mode=mode)
        ours = fastcnn.nn.DepthwiseConv2d(6, 12, 3, padding=padding, padding_mode=mode)
        ours.load_state_dict(twin.state_dict(), strict=True)
        x = torch.randn(2, 6, 9, 8)
        torch.testing.assert_close(ours(x), twin(x))
        for layer in (ours, twin):
            layer(x).square().sum().backward()
        torch.testing.assert_close(ours.weight.grad, twin.weight.grad, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.bias.grad, twin.bias.grad, rtol=1e-4, atol=1e-4)

    def test_activation_copy_and_repr(self):
        layer = fastcnn.nn.DepthwiseConv2d(4, 4, 5, stride=2, padding=2, bias=False, activation="silu")
        x = torch.randn(1, 4, 11, 11)
        torch.testing.assert_close(layer(x), F.silu(F.conv2d(x, layer.weight, None, 2, 2, groups=4)))
        assert torch.equal(copy.deepcopy(layer)(x), layer(x))
        assert "activation=silu" in repr(layer)

    def test_groups_are_the_channels(self):
        with pytest.raises(ValueError, match="DepthwiseConv2d: expected groups to be in_channels"):
            fastcnn.nn.DepthwiseConv2d(4, 4, 3, groups=2)
        with pytest.raises(ValueError, match="activation"):
            fastcnn.nn.DepthwiseConv2d(4, 4, 3, activation="gelu")


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kernel", [3, 4])  # The latter is PyTorch's.
def test_padding_of_four_numbers(layout, kernel):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 9, 11, generator=g, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(6, 1, kernel, kernel, generator=g, dtype=torch.float64)
    above, below, left, right = paddings = (0, 1, 2, 1)
    ours = ops.depthwise_conv2d(x, weight, None, 2, paddings, activation="silu")
    theirs = F.silu(F.conv2d(F.pad(x, (left, right, above, below)), weight, None, 2, groups=6))
    torch.testing.assert_close(ours, theirs)
    grads = (torch.autograd.grad(out.square().sum(), x)[0] for out in (ours, theirs))
    torch.testing.assert_close(*grads)
    with pytest.raises(ValueError, match=r"padding of at least 0, got \(0, -1\)"):
        ops.depthwise_conv2d(x, weight, None, 2, (0, -1, 0, 0))
