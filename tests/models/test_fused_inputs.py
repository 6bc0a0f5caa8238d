"""Fused networks on inputs of all sorts, and convolutions side by side: as with gradients on, errors included."""

import pytest
import torch
from fused_net import (
    Twice,
    X,
    assert_same,
    build,
    fused,
    spread_biases,
    that_has_run,
    unfused,
)
from torch import nn
from torch.nn.utils import parametrize

from fastcnn.models.classification.squeezenet import Fire, Widths
from fastcnn.nn import ConvSequence, DepthwiseConv2d, fold_conv_norm


@pytest.fixture
def net():
    return that_has_run()


def last(x):
    return x.contiguous(memory_format=torch.channels_last)


INPUTS = {
    "empty": lambda x: x[:0],
    "one pixel": lambda x: x[..., :1, :1],
    "odd": lambda x: x[..., :7, 1:14],
    "some channels": lambda x: torch.cat((x, x), 1)[:, 1 : 1 + x.size(1)],
    "some channels of channels_last": lambda x: last(torch.cat((x, x), 1))[:, 1 : 1 + x.size(1)],
    "transposed": lambda x: x.transpose(2, 3),
    "expanded images": lambda x: x[:1].expand(4, *x.shape[1:]),
    "expanded rows": lambda x: x[:, :, :1].expand(x.shape),
    "one image": lambda x: x[0],
    "nan": lambda x: x.index_fill(3, torch.tensor(5), torch.nan),
    "inf": lambda x: x.index_fill(2, torch.tensor(4), torch.inf),
    "minus inf": lambda x: x.index_fill(2, torch.tensor(4), -torch.inf),
}


@pytest.mark.parametrize("part", ["whole", "block"])
@pytest.mark.parametrize("case", INPUTS)
def test_inputs(net, case, part):
    body, x = (net[:5], X) if part == "whole" else (net[1], torch.cat([X] * 8, 1))
    assert_same(body, INPUTS[case](x))


@pytest.mark.parametrize(
    "residual", [torch.ones(1, 24, 1, 1), torch.ones(2, 24, 20, 20).double(), torch.ones(2, 24, 20, 20)]
)
def test_residuals_are_added_as_they_are(net, residual):
    assert_same(net[1], torch.cat([X] * 8, 1), residual)
    assert_same(net[1][2], torch.cat([X] * 16, 1), residual)


def wide_kernel(*layers):
    return fold_conv_norm(ConvSequence(*layers).eval())


REFUSED = {
    "channels": (build, torch.ones(2, 4, 20, 20)),
    "dtype": (build, X.double()),
    "integers": (build, torch.ones(2, 3, 20, 20, dtype=torch.int64)),
    "dimensions": (build, X[0, 0]),
    "no pixels": (build, X[..., :0]),
    "kernel": (lambda: wide_kernel(nn.Conv2d(3, 16, 21)), X),
    "oneDNN's kernel": (lambda: wide_kernel(nn.Conv2d(3, 16, 11, dilation=2)), X),
    "depthwise kernel": (lambda: wide_kernel(nn.Conv2d(3, 16, 1), DepthwiseConv2d(16, 16, 7)), X[..., :5]),
    "a lone depthwise kernel": (lambda: wide_kernel(DepthwiseConv2d(3, 3, 7)), last(X[..., :5])),
}


@pytest.mark.parametrize("case", REFUSED)
def test_errors_are_those_of_the_layers(case):
    make, x = REFUSED[case]
    with pytest.raises((RuntimeError, ValueError)) as wanted:
        unfused(make(), x)
    with pytest.raises(wanted.type) as found:
        fused(make(), x)
    assert str(found.value) == str(wanted.value)
    assert "\n" not in str(found.value)


@pytest.fixture
def fire():
    """That has run with its two convolutions side by side."""
    torch.manual_seed(0)
    fire = fold_conv_norm(Fire(24, Widths(16, 32, 48)).eval())
    assert_same(fire, FIRE_INPUT)
    return fire


FIRE_INPUT = torch.randn(2, 24, 9, 7, generator=torch.Generator().manual_seed(1))


def narrower(conv):
    for name in ("weight", "bias"):
        setattr(conv, name, nn.Parameter(getattr(conv, name)[:17].detach().clone()))


BESIDE = {
    "fewer filters first": lambda fire: narrower(fire.expand1x1),
    "fewer filters last": lambda fire: narrower(fire.expand3x3),
    "padding as a number": lambda fire: setattr(fire.expand3x3, "padding", 1),
    "a stride": lambda fire: [setattr(conv, "stride", (2, 2)) for conv in (fire.expand1x1, fire.expand3x3)],
    "an activation": lambda fire: setattr(fire.expand1x1, "activation", "silu"),
    "a parametrised bias": lambda fire: parametrize.register_parametrization(fire.expand1x1, "bias", Twice()),
    "a parametrised weight": lambda fire: parametrize.register_parametrization(fire.expand3x3, "weight", Twice()),
    "biases with strides": spread_biases,
    "a layer replaced": lambda fire: setattr(fire, "expand1x1", nn.Conv2d(16, 20, 1)),
    "an activation replaced": lambda fire: setattr(fire, "expand1x1_activation", nn.Tanh()),
}


@pytest.mark.parametrize("change", BESIDE)
def test_side_by_side(fire, change):
    BESIDE[change](fire)
    assert_same(fire, FIRE_INPUT)


@pytest.mark.parametrize("path", ["squeeze", "expand1x1", "expand3x3", "expand3x3_activation"])
def test_hooks_side_by_side(fire, path):
    calls = []
    fire.get_submodule(path).register_forward_hook(lambda module, args, output: calls.append(path) or output * 2)
    assert_same(fire, FIRE_INPUT)
    assert calls == [path] * 2


def test_side_by_side_whatever_the_defaults(fire):
    wanted = fused(fire, FIRE_INPUT)
    with torch.device("meta"):
        assert torch.equal(fused(fire, FIRE_INPUT), wanted)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(fused(fire, FIRE_INPUT), wanted)
    finally:
        torch.set_default_dtype(torch.float32)


def test_side_by_side_sizes_that_differ(fire):
    fire.expand3x3.padding = (0, 0)
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        fused(fire, FIRE_INPUT)
    fire.expand1x1.padding = (1, 1)
    with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        fused(fire, FIRE_INPUT[..., :2, :2])
