"""Batch norms that run as one op with the activation after them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fastcnn.nn import BatchNorm2d, ConvNormAct, ConvSequence, ReLU6, fold_conv_norm
from fastcnn.nn import layers as layers_module
from fastcnn.ops import _library
from fastcnn.testing.network_rows import plain_torch


@pytest.fixture(autouse=True)
def _our_kernels():
    with _library.kernel_mode():
        yield


@pytest.fixture
def calls(monkeypatch):
    """The activations that the op is called with."""
    seen, real = [], layers_module.ops.batch_norm

    def count(*args):
        seen.append(args[-1])
        return real(*args)

    monkeypatch.setattr(layers_module.ops, "batch_norm", count)
    return seen


OPTIONS = {
    "usual": {},
    "average of all": {"momentum": None},
    "no statistics": {"track_running_stats": False},
    "no weight": {"affine": False, "eps": 1e-3, "momentum": 0.3},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_is_the_twin_of_pytorchs(options):
    ours, theirs = BatchNorm2d(20, **options), nn.BatchNorm2d(20, **options)
    theirs.load_state_dict(ours.state_dict())
    for training in (True, True, False):
        x = torch.randn(4, 20, 5, 6) + 3
        results = [net.train(training)(x) for net in (ours, theirs)]
        torch.testing.assert_close(*results)
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    with pytest.raises(ValueError, match="4D"):
        ours(torch.randn(20, 5))


def test_its_activation():
    norm, x = BatchNorm2d(6, activation="silu"), torch.randn(3, 6, 4, 4)
    torch.testing.assert_close(norm(x), nn.functional.silu(nn.BatchNorm2d(6)(x)))
    assert "activation=silu" in repr(norm)
    with pytest.raises(ValueError, match="gelu"):
        BatchNorm2d(6, activation="gelu")


@pytest.mark.parametrize("act", [nn.ReLU, nn.ReLU6, ReLU6, nn.Hardswish, nn.SiLU])
@pytest.mark.parametrize("grad", [True, False])
def test_a_row_runs_norm_and_activation_as_one(act, grad, calls):
    torch.manual_seed(0)
    net = ConvNormAct(3, 20, 3, act=act)
    twin, x = plain_torch(net), torch.randn(2, 3, 9, 9)
    with torch.set_grad_enabled(grad):
        actual, wanted = net(x), twin(x)
    torch.testing.assert_close(actual, wanted)
    assert len(calls) == 1 and calls[0] is not None  # The twin's stayed PyTorch's.
    torch.testing.assert_close(net.state_dict(), twin.state_dict())
    if grad:
        grads = [
            torch.autograd.grad(out.square().sum(), list(n.parameters())) for out, n in ((actual, net), (wanted, twin))
        ]
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_what_is_between_or_other_runs_by_itself(calls):
    class MyReLU(nn.ReLU):
        def forward(self, input):
            return -super().forward(input)

    net = ConvSequence(nn.BatchNorm2d(4), MyReLU(), nn.BatchNorm2d(4), nn.Identity(), nn.ReLU(), BatchNorm2d(4))
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(net(x), plain_torch(net)(x))
    assert calls == [None, None, None]


@pytest.mark.parametrize(
    "hook",
    ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"],
)
@pytest.mark.parametrize("index", [1, 2])
def test_hooked_layers_are_called(index, hook, calls):
    act = lambda inplace: nn.ReLU()  # noqa: E731 - In place PyTorch refuses some of the hooks.
    net, x, heard = ConvNormAct(3, 8, act=act), torch.randn(2, 3, 5, 5), []
    net(x)
    del calls[:]
    handle = getattr(net[index], hook)(lambda *args: heard.append(args[0]))
    net(x).sum().backward()
    assert heard == [net[index]]
    assert all(activation is None for activation in calls)
    handle.remove()
    net(x).sum().backward()
    assert len(heard) == 1


def test_replaced_layers_and_forwards_are_called(calls):
    net, x = ConvNormAct(3, 8), torch.randn(2, 3, 5, 5)
    net(x)
    net[2] = nn.Tanh()
    torch.testing.assert_close(net(x), plain_torch(net)(x))
    net[1].forward = lambda input: input * 0
    assert net(x).abs().sum() == 0
    assert calls == ["relu", None]


def test_copies_have_steps_of_their_own():
    net, x = ConvNormAct(3, 8), torch.randn(2, 3, 5, 5)
    net(x)
    other = copy.deepcopy(net)
    other[1].weight.data.zero_()
    assert other(x).abs().sum() == 0 and net(x).abs().sum() > 0


def test_the_compiler_sees_the_layers():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    net = ConvNormAct(3, 8)
    torch.compile(net, backend=backend, fullgraph=True)(torch.randn(2, 3, 5, 5))
    assert "fastcnn" not in str(graphs[0].graph)


def test_norms_that_activate_are_not_folded():
    torch.manual_seed(0)
    net = ConvSequence(nn.Conv2d(3, 8, 3), BatchNorm2d(8, activation="relu")).eval()
    x = torch.randn(2, 3, 5, 5)
    wanted = net(x)
    torch.testing.assert_close(fold_conv_norm(net)(x), wanted)
    assert type(net[1]) is BatchNorm2d
