"""What the contract suite does not ask of ``batch_norm``."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from threads import threads

from fastcnn import ops
from fastcnn.ops import _library
from fastcnn.ops._convolutions import ACTIVATIONS, FUNCTIONS
from fastcnn.testing.compare import assert_close_to

LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "NHWC"])


@pytest.fixture(autouse=True)
def _our_kernels():
    with _library.kernel_mode():
        yield


def stats(channels, dtype=torch.float32):
    g = torch.Generator().manual_seed(5)
    mean = torch.randn(channels, generator=g, dtype=torch.float64)
    return mean.to(dtype), (mean.square() + 0.5).to(dtype)


@pytest.mark.parametrize("momentum", [0.1, 0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@LAYOUTS
def test_running_statistics(layout, dtype, momentum):
    x = torch.randn(4, 6, 5, 5, dtype=torch.float64).to(dtype).contiguous(memory_format=layout)
    ours, theirs = stats(6, dtype), stats(6, torch.float64)
    ops.batch_norm(x, *ours, training=True, momentum=momentum)
    F.batch_norm(x.double(), *theirs, training=True, momentum=momentum)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a.double(), b, rtol=torch.finfo(dtype).eps * 4, atol=torch.finfo(dtype).eps * 4)


def test_running_statistics_are_not_touched_in_evaluation_and_by_nothing():
    mean, variance = stats(6)
    versions = mean._version, variance._version
    ops.batch_norm(torch.randn(4, 6, 5, 5), mean, variance)
    ops.batch_norm(torch.randn(0, 6, 5, 5), mean, variance, training=True)
    assert (mean._version, variance._version) == versions


@pytest.mark.parametrize("size", [(16, 6, 20, 20), (16, 96, 20, 20), (700, 19), (3, 5, 1000)], ids=str)
@LAYOUTS
def test_means_far_from_0_are_as_accurate_as_near_it(layout, size):
    g = torch.Generator().manual_seed(0)
    wide = torch.randn(size, generator=g, dtype=torch.float64) + 1000
    x = wide.float().contiguous(memory_format=layout if len(size) == 4 else torch.contiguous_format)
    x.select(0, 0).select(-1, 0).zero_()  # What the distances of the first rows are measured from lies far away.
    x.select(0, 0).select(-1, 0).add_(1000)
    mean, variance = torch.zeros(size[1]), torch.zeros(size[1])
    out = ops.batch_norm(x, mean, variance, training=True, momentum=1.0)
    exact = x.double()
    every = [d for d in range(x.dim()) if d != 1]
    torch.testing.assert_close(variance.double(), exact.var(every), rtol=2e-6, atol=0)
    torch.testing.assert_close(mean.double(), exact.mean(every), rtol=6e-8, atol=0)
    # A mean of 1000 in float32 is off by up to 3e-5, as is its product, and without fused instructions that of x.
    torch.testing.assert_close(out.double(), F.batch_norm(exact, None, None, training=True), rtol=0, atol=1.5e-4)


def test_an_outlier_in_the_first_row():
    x = torch.randn(16, 32, 20, 20).contiguous(memory_format=torch.channels_last)
    x[0, :, 0, 0] = 1e6
    variance = torch.zeros(32)
    ops.batch_norm(x, torch.zeros(32), variance, training=True, momentum=1.0)
    torch.testing.assert_close(variance.double(), x.double().var((0, 2, 3)), rtol=1e-5, atol=0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@LAYOUTS
def test_same_bits_whatever_the_number_of_threads(layout, activation):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(4, 24, 57, 57, generator=g).contiguous(memory_format=layout)
    grad = torch.randn(x.shape, generator=g)
    results = []
    for count in (1, 2, 5):
        leaf, weight, bias = x.clone().requires_grad_(), torch.rand(24).fill_(1.5), torch.zeros(24)
        running = stats(24)
        with threads(count):
            out = ops.batch_norm(
                leaf, *running, weight.requires_grad_(), bias.requires_grad_(), True, activation=activation
            )
            results.append((out, *running, *torch.autograd.grad(out, (leaf, weight, bias), grad)))
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("training", [True, False])
@LAYOUTS
def test_float32_parameters_of_16_bit_input(layout, training, dtype):
    x = torch.randn(3, 20, 6, 5).to(dtype).contiguous(memory_format=layout).requires_grad_()
    weight, bias = torch.rand(20, requires_grad=True), torch.randn(20, requires_grad=True)
    ours, theirs = stats(20), stats(20, torch.float64)
    out = ops.batch_norm(x, *ours, weight, bias, training, activation="silu")
    wide = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    exact = F.silu(F.batch_norm(wide[0], *theirs, *wide[1:], training))
    assert out.dtype == dtype
    assert_close_to(out.detach(), exact.detach())
    cotangent = torch.randn(out.shape).to(dtype)
    grads = torch.autograd.grad(out, (x, weight, bias), cotangent)
    for grad, want, of in zip(
        grads, torch.autograd.grad(exact, wide, cotangent.double()), (x, weight, bias), strict=True
    ):
        assert grad.dtype == of.dtype
        assert_close_to(grad, want, reduction=64)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")], ids=str)
@LAYOUTS
def test_what_is_not_finite_stays_in_its_channel_as_in_pytorch(layout, bad, activation):
    x = torch.randn(2, 20, 5, 5).contiguous(memory_format=layout)
    x[1, 3, 2, 2] = bad
    kind = FUNCTIONS[ACTIVATIONS.index(activation)]
    for training in (True, False):
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        out = ops.batch_norm(ours, *stats(20), training=training, activation=activation)
        wanted = kind(F.batch_norm(theirs, *stats(20), training=training))
        torch.testing.assert_close(out, wanted, equal_nan=True)
        grads = [torch.autograd.grad(o.sum(), i)[0] for o, i in ((out, ours), (wanted, theirs))]
        torch.testing.assert_close(*grads, equal_nan=True, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "relu6", "hardswish", "silu"])
def test_activations_switch_where_pytorchs_do(activation):
    x = torch.tensor([-4.0, -3, -1, 0, 1, 3, 6, 7]).repeat(20, 1).t().reshape(8, 20, 1, 1).requires_grad_()
    zeros, ones = torch.zeros(20), torch.ones(20)
    out = ops.batch_norm(x, zeros, ones, eps=0.0, activation=activation)
    wanted = FUNCTIONS[ACTIVATIONS.index(activation)](x)
    torch.testing.assert_close(out, wanted, rtol=0, atol=1e-6)
    grads = [torch.autograd.grad(o.sum(), x)[0] for o in (out, wanted)]
    torch.testing.assert_close(*grads, rtol=0, atol=1e-6)


@LAYOUTS
def test_large_results_written_past_the_caches(layout):
    x = torch.randn(2, 32, 190, 190).contiguous(memory_format=layout).requires_grad_()
    out = ops.batch_norm(x, None, None, training=True, activation="relu")
    exact = x.detach().double().requires_grad_()
    wanted = F.batch_norm(exact, None, None, training=True).relu()
    torch.testing.assert_close(out.double(), wanted, rtol=1e-5, atol=1e-5)
    grad = torch.randn(x.shape)
    actual, exact_grad = torch.autograd.grad(out, x, grad), torch.autograd.grad(wanted, exact, grad.double())
    torch.testing.assert_close(actual[0].double(), exact_grad[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_compiles_and_exports_with_running_statistics(training):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.BatchNorm2d(20)

        def forward(self, x):
            n = self.norm
            return ops.batch_norm(x, n.running_mean, n.running_var, n.weight, n.bias, training, activation="relu")

    x = torch.randn(3, 20, 5, 5)
    plain, traced, compiled = Net(), Net(), Net()
    wanted = plain(x)
    program = torch.export.export(traced, (x,)).module()
    torch.testing.assert_close(program(x), wanted, rtol=0, atol=0)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(compiled, fullgraph=True, backend="aot_eager")(x), wanted, rtol=0, atol=0)
    for net in (program, compiled):
        for key in ("norm.running_mean", "norm.running_var"):
            torch.testing.assert_close(net.state_dict()[key], plain.state_dict()[key], rtol=0, atol=0)


def test_second_gradients_of_pytorch():
    x = torch.randn(4, 6, 5, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(6, dtype=torch.float64, requires_grad=True)
    results = []
    for function in (
        lambda: ops.batch_norm(x, None, None, weight, training=True, activation="silu"),
        lambda: F.silu(F.batch_norm(x, None, None, weight, training=True)),
    ):
        first = torch.autograd.grad(function().square().sum(), (x, weight), create_graph=True)
        results.append((*first, *torch.autograd.grad(sum(g.square().sum() for g in first), (x, weight))))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


WRONG = {
    "one value": ((torch.ones(1, 6, 1, 1), None, None, None, None, True), "more than 1 value per channel"),
    "no channels": ((torch.ones(6), None, None, None, None, True), "expected input of shape"),
    "no statistics": ((torch.ones(2, 6), None, None), "expected running_mean and running_var"),
    "one statistic": ((torch.ones(2, 6), torch.ones(6), None, None, None, True), "neither"),
    "size": ((torch.ones(2, 6), torch.ones(6), torch.ones(6), torch.ones(5)), r"weight of shape \(6,\), got \(5,\)"),
}


@pytest.mark.parametrize("args, message", WRONG.values(), ids=WRONG)
def test_bad_shapes(args, message):
    with pytest.raises(ValueError, match=f"batch_norm: .*{message}"):
        ops.batch_norm(*args)


def test_bad_activation_and_dtypes():
    x, ones = torch.ones(2, 6), torch.ones(6)
    with pytest.raises(ValueError, match="activation to be one of"):
        ops.batch_norm(x, ones, ones, activation="gelu")
    with pytest.raises(TypeError, match=r"weight torch\.float64"):
        ops.batch_norm(x, ones, ones, ones.double())
    with pytest.raises(TypeError, match=r"running_mean torch\.float32"):
        ops.batch_norm(x.half(), ones, ones, ones.half())
    with pytest.raises(TypeError, match="floating-point"):
        ops.batch_norm(x.long(), ones, ones)


RULES = {
    "many": ((2, 64, 64, 64), True, None, False),
    "few with a gradient": ((2, 32, 64, 63), True, "relu", True),
    "few without": ((2, 32, 64, 63), False, "relu", True),
    "channels_last of few pixels": ((16, 400, 7, 7), True, "relu", False),
    "NCHW of few pixels": ((16, 400, 7, 7), True, "relu", True),
    "one pixel": ((3000, 100), True, None, False),
}


@pytest.mark.parametrize("name", RULES)
def test_where_pytorch_is_called(name, monkeypatch):
    size, grad, activation, routed = RULES[name]
    real, calls = F.batch_norm, []
    monkeypatch.setattr(F, "batch_norm", lambda *args: calls.append(1) or real(*args))
    x = torch.randn(size)
    if len(size) == 4 and not name.startswith("NCHW"):
        x = x.contiguous(memory_format=torch.channels_last)
    monkeypatch.setattr(_library.mode, "name", "auto")
    out = ops.batch_norm(x.requires_grad_(grad), None, None, training=True, activation=activation)
    assert bool(calls) == routed
    wanted = FUNCTIONS[ACTIVATIONS.index(activation)](real(x, None, None, training=True))
    torch.testing.assert_close(out, wanted)
