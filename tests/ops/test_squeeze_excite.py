"""What the contract suite does not say of squeeze-and-excitation: its definition by hand, batches, the block."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fastcnn import _backend, models, ops, reference_mode
from fastcnn import nn as fnn
from fastcnn.ops import _library
from fastcnn.testing.compare import assert_close_to

MODES = [_library.kernel_mode, reference_mode]


def parameters(channels: int, hidden: int, dtype=torch.float32, conv: bool = False, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    ones = (1, 1) if conv else ()
    sizes = ((hidden, channels, *ones), (hidden,), (channels, hidden, *ones), (channels,))
    return [torch.randn(size, generator=g, dtype=torch.float64).to(dtype) for size in sizes]


@pytest.mark.parametrize("mode", MODES)
class TestByHand:
    def test_the_papers_equations(self, mode):
        x = torch.tensor([[1.0, 3.0], [-2.0, 0.0]]).view(1, 2, 1, 2)  # Means 2 and -1.
        w1, b1 = torch.tensor([[1.0, 0.5], [1.0, 4.0]]), torch.tensor([0.5, 0.0])  # Hidden 2 and relu(-2).
        w2, b2 = torch.tensor([[0.5, 7.0], [-1.0, 7.0]]), torch.tensor([-1.0, 0.5])  # Scores 0 and -1.5.
        with mode():
            out = ops.squeeze_excite(x, w1, b1, w2, b2)
            hard = ops.squeeze_excite(x, w1, b1, w2, b2, gate="hardsigmoid")
        s = 1 / (1 + math.exp(1.5))
        torch.testing.assert_close(out.flatten(), torch.tensor([0.5, 1.5, -2 * s, 0.0]))
        torch.testing.assert_close(hard.flatten(), torch.tensor([0.5, 1.5, -0.5, 0.0]))

    def test_silu(self, mode):
        x = torch.full((1, 1, 3, 3), 2.0)
        one, zero = torch.ones(1, 1), torch.zeros(1)
        with mode():
            out = ops.squeeze_excite(x, one, zero, one, zero, activation="silu")
        hidden = 2 / (1 + math.exp(-2))
        torch.testing.assert_close(out, x / (1 + math.exp(-hidden)))

    def test_extreme_scores(self, mode):
        x = torch.ones(1, 4, 2, 2)
        w1, w2, b2 = torch.zeros(1, 4), torch.zeros(4, 1), torch.tensor([-1e4, 1e4, -88.0, math.nan])
        for gate, last in (("sigmoid", math.exp(-88)), ("hardsigmoid", 0.0)):
            with mode():
                out = ops.squeeze_excite(x, w1, None, w2, b2, gate=gate)[0, :, 0, 0]
            torch.testing.assert_close(out, torch.tensor([0.0, 1.0, last, math.nan]), equal_nan=True, atol=0, rtol=2e-6)

    def test_nan_and_infinite_pixels(self, mode, device="cpu"):
        weights = [w.to(device) for w in parameters(5, 3)]
        for value in (math.nan, math.inf):
            x = torch.ones(2, 5, 3, 3, device=device)
            x[0, 1, 2, 2] = value
            with mode():
                out, alone = ops.squeeze_excite(x, *weights), ops.squeeze_excite(x[1:], *weights)
            assert out[1].isfinite().all(), "one image does not see another"
            assert torch.equal(out[1], alone[0])
            with reference_mode():
                exact = ops.squeeze_excite(x.cpu().double(), *(w.cpu().double() for w in weights))
            torch.testing.assert_close(out.cpu().double(), exact, equal_nan=True, rtol=1e-5, atol=0)
            assert out[0].isnan().all() or value == math.inf

    def test_gates_at_rest_pass_no_gradient(self, mode):
        x = torch.randn(1, 3, 4, 4, requires_grad=True)
        w1, b1, w2, _ = (p.requires_grad_() for p in parameters(3, 2))
        b2 = torch.tensor([-30.0, 30.0, 60.0], requires_grad=True)
        with mode():
            out = ops.squeeze_excite(x, w1, b1, w2, b2, gate="hardsigmoid")
        grads = torch.autograd.grad(out.sum(), (x, w1, b1, w2, b2))
        assert torch.equal(grads[0][0, :, 0, 0], torch.tensor([0.0, 1.0, 1.0]))
        assert not any(g.any() for g in grads[1:])

    def test_a_relu_at_rest_passes_no_gradient_even_if_infinite(self, mode):
        x = torch.ones(1, 2, 3, 3, requires_grad=True)
        w1, b1 = torch.tensor([[-1.0, -1.0], [1.0, 1.0]]).requires_grad_(), torch.zeros(2, requires_grad=True)
        w2, b2 = torch.ones(2, 2, requires_grad=True), torch.zeros(2, requires_grad=True)
        with mode():
            out = ops.squeeze_excite(x, w1, b1, w2, b2)
        grad = torch.ones_like(out)
        grad[0, 0, 1, 1] = math.inf
        of_w1, of_b1 = torch.autograd.grad(out, (w1, b1), grad)
        assert not of_w1[0].any() and not of_b1[0].any() and of_w1[1].isinf().all() and of_b1[1].isinf()


@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 40), st.integers(1, 9), st.integers(1, 9)),
    hidden=st.integers(1, 20),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    layout=st.sampled_from(["nchw", "channels_last", "strided"]),
    conv=st.booleans(),
    activation=st.sampled_from(["relu", "silu"]),
    gate=st.sampled_from(["sigmoid", "hardsigmoid"]),
)
@settings(derandomize=True, deadline=None, max_examples=100)
def test_any_shape_is_the_reference_in_float64(shape, hidden, dtype, layout, conv, activation, gate):
    g = torch.Generator().manual_seed(1)
    x = torch.randn((*shape[:3], 2 * shape[3]), generator=g, dtype=torch.float64).to(dtype)[..., ::2]
    if layout != "strided":
        x = x.contiguous(memory_format=torch.channels_last if layout == "channels_last" else torch.contiguous_format)
    args = [x, *parameters(shape[1], hidden, dtype, conv)]
    cotangent = torch.randn(shape, generator=g).to(dtype)
    ours, exact = [a.detach().requires_grad_() for a in args], [a.double().detach().requires_grad_() for a in args]
    out = ops.squeeze_excite(*ours, activation, gate)
    with reference_mode():
        wide = ops.squeeze_excite(*exact, activation, gate)
    terms = shape[1] * hidden
    assert_close_to(out.detach(), wide.detach(), reduction=terms)
    for a, b in zip(
        torch.autograd.grad(out, ours, cotangent), torch.autograd.grad(wide, exact, cotangent.double()), strict=True
    ):
        assert_close_to(a, b, reduction=64 * terms * shape[0], what="gradient")


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("shape", [(9, 67, 7, 7), (8, 16, 40, 30), (5, 35, 3, 2)], ids=str)
def test_an_image_is_the_same_in_any_batch_and_for_any_threads(shape, layout):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=layout)
    g = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    weights = parameters(shape[1], 37)

    def run(x, g):
        x = x.detach().requires_grad_()
        out = ops.squeeze_excite(x, *weights)
        return out, torch.autograd.grad(out, x, g)[0]

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        first = run(x, g)
        for count in (1, 2, 3, threads):
            torch.set_num_threads(count)
            found = run(x, g)
            for i in range(shape[0]):
                alone = run(x[i : i + 1], g[i : i + 1])
                for a, b, c in zip(found, alone, first, strict=True):
                    assert torch.equal(a[i], b[0]) and torch.equal(a, c)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_results_too_large_for_caches(dtype, layout):
    """From 16 MB on, results are written past the caches: two images together, but not one alone."""
    shape = (2, 16, 384, 360 * 4 // dtype.itemsize)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype).contiguous(memory_format=layout)
    weights = parameters(16, 4, dtype)

    def run(x):
        x = x.detach().requires_grad_()
        out = ops.squeeze_excite(x, *weights)
        return out, torch.autograd.grad(out, x, x.detach())[0]

    together = run(x)
    for i in range(2):
        for a, b in zip(together, run(x[i : i + 1]), strict=True):
            assert torch.equal(a[i], b[0])


def test_only_what_is_needed_gets_a_gradient():
    x = torch.randn(2, 6, 5, 5)
    weights = parameters(6, 3)
    weights[2].requires_grad_()
    ops.squeeze_excite(x, *weights).sum().backward()
    assert weights[2].grad is not None and all(t.grad is None for t in (x, weights[0], weights[1], weights[3]))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("act", [nn.ReLU, nn.SiLU])
@pytest.mark.parametrize("gate", [nn.Sigmoid, nn.Hardsigmoid, fnn.Hardsigmoid])
def test_block_runs_the_op(monkeypatch, act, gate, channels_last):
    torch.manual_seed(0)
    block = fnn.SqueezeExcite(24, 6, act=act, gate=gate)
    x = torch.randn(3, 24, 7, 7)
    if channels_last:
        block, x = block.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    calls = []
    actual = ops.squeeze_excite
    monkeypatch.setattr(ops, "squeeze_excite", lambda *args: calls.append(args) or actual(*args))
    twin = copy.deepcopy(block)
    twin.fc1.register_forward_hook(lambda *args: None)
    results = []
    for module in (block, twin):
        leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
        out = module(leaf)
        out.square().sum().backward()
        results.append([out, leaf.grad, *(p.grad for p in module.parameters())])
    assert len(calls) == 1, "the op where no module has a hook"
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)
    assert list(block.state_dict()) == ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]


def test_block_calls_modules_that_were_replaced_or_hooked(monkeypatch):
    monkeypatch.setattr(ops, "squeeze_excite", lambda *args: pytest.fail("the modules were to be called"))

    class Weights(nn.Conv2d):
        pass

    x = torch.randn(1, 8, 5, 5)
    for change in (
        lambda m: setattr(m, "activation", nn.GELU()),
        lambda m: setattr(m, "scale_activation", nn.Tanh()),
        lambda m: setattr(m, "avgpool", nn.AdaptiveMaxPool2d(1)),
        lambda m: setattr(m, "fc1", Weights(8, 4, 1)),
        lambda m: m.activation.register_forward_pre_hook(lambda *args: None),
        lambda m: m.fc2.register_full_backward_hook(lambda *args: None),
        lambda m: nn.utils.parametrizations.weight_norm(m.fc1),
    ):
        block = fnn.SqueezeExcite(8, 4)
        change(block)
        block(x)


def test_multiply_adds_are_still_counted():
    assert models.summary("mobilenet_v3_large").macs == 216_589_760
    with _library.flop_counter() as counter:
        fnn.SqueezeExcite(8, 4)(torch.randn(2, 8, 5, 5))
    assert counter.get_total_flops() == 2 * 2 * 8 * (25 + 2 * 4)


X = torch.zeros(2, 4, 3, 3)
W1, B1, W2, B2 = parameters(4, 2)
BAD = {
    "rank": ((X[0], W1, B1, W2, B2), ValueError, r"input with 4 dimensions, got shape \(4, 3, 3\)"),
    "no pixels": ((X[:, :, :0], W1, B1, W2, B2), ValueError, r"with pixels, got shape \(2, 4, 0, 3\)"),
    "weight1": ((X, W1[:, :3], B1, W2, B2), ValueError, r"weight1 of shape \[2, 4\] or \[2, 4, 1, 1\], got \[2, 3\]"),
    "weight1 rank": ((X, W1[0, 0], B1, W2, B2), ValueError, r"weight1 of shape .* got \[\]"),
    "weight2": ((X, W1, B1, W2.t(), B2), ValueError, r"weight2 of shape \[4, 2\] or \[4, 2, 1, 1\], got \[2, 4\]"),
    "kernel": ((X, W1, B1, torch.zeros(4, 2, 3, 3), B2), ValueError, r"weight2 of shape .* got \[4, 2, 3, 3\]"),
    "bias1": ((X, W1, B2, W2, B2), ValueError, r"bias1 of shape \[2\], got \[4\]"),
    "bias2": ((X, W1, B1, W2, B2[:, None]), ValueError, r"bias2 of shape \[4\], got \[4, 1\]"),
    "dtypes": ((X, W1.double(), B1, W2, B2), TypeError, r"weight1 of the dtype of input, torch.float32, got torch.fl"),
    "int": ((X.int(), W1, B1, W2, B2), TypeError, r"input of a floating-point dtype, got torch\.int32"),
    "no weight": ((X, None, B1, W2, B2), TypeError, "expected weight1 to be a tensor, got NoneType"),
    "bias type": ((X, W1, 0.5, W2, B2), TypeError, "expected bias1 to be a tensor, got float"),
    "devices": ((X, W1, B1, W2.to("meta"), B2), ValueError, "input on cpu, weight1 on cpu, weight2 on meta"),
    "activation": ((X, W1, B1, W2, B2, "gelu"), ValueError, "expected activation to be 'relu' or 'silu', got 'gelu'"),
    "gate": ((X, W1, B1, W2, B2, "relu", None), ValueError, "gate to be 'sigmoid' or 'hardsigmoid', got None"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", BAD)
def test_bad_input(name, mode):
    args, error, message = BAD[name]
    with mode(), pytest.raises(error, match=message) as caught:
        ops.squeeze_excite(*args)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not _backend.cpu.available, reason="the compiled kernels' own checks")
def test_the_kernel_checks_what_it_is_called_with():
    op, backward = torch.ops.fastcnn.squeeze_excite, torch.ops.fastcnn.squeeze_excite_backward
    good = (X, W1, B1, W2, B2)
    bad = ((0, X[0]), (0, X[:, :3]), (0, X.double()), (1, W1[0]), (1, W1[:, :3]), (2, B2), (3, W1), (4, B1.double()))
    for i, value in bad:
        with pytest.raises(RuntimeError):
            op(*good[:i], value, *good[i + 1 :], False, False)
    _, saved = op(*good, False, False)
    good = (X, X, W1, W2, saved)
    bad = ((0, X[:1]), (0, X.double()), (1, X[0]), (1, X[:1]), (2, W2), (3, W1), (4, saved[:1]), (4, saved[:, :3]))
    for i, value in bad:
        with pytest.raises(RuntimeError):
            backward(*good[:i], value, *good[i + 1 :], False, False, 31)
