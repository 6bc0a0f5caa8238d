"""3x3 convolutions by Winograd's algorithm: values, bits, what they refuse."""

import pytest
import torch
from packed_ops import assert_values_whatever_the_number_of_threads, in_float32, run

from fastcnn.nn.fused import FusedConv2d
from fastcnn.ops._winograd_conv2d import _reference, op, pack_tiles

# (images, in, out), (height, width), padding.
SHAPES = {
    "even": ((2, 32, 48), (8, 6), (1, 1)),
    "odd sides": ((1, 16, 49), (9, 7), (1, 1)),
    "odd channels": ((2, 19, 65), (6, 5), (1, 1)),
    "no padding": ((3, 5, 17), (14, 9), (0, 0)),
    "padding beyond the kernel": ((2, 4, 16), (2, 3), (4, 3)),
    "one pixel": ((2, 33, 64), (1, 1), (1, 1)),
    "one result": ((1, 8, 24), (3, 3), (0, 0)),
    "one channel": ((1, 1, 40), (28, 27), (1, 1)),
    "several bands": ((2, 24, 130), (40, 31), (1, 1)),
}


def problem(name, activation=1, slope=0.0, bias=True, residual=False):
    (images, channels, filters), side, padding = SHAPES[name]
    g = torch.Generator().manual_seed(len(name))

    def random(*shape):
        return torch.randn(shape, generator=g, dtype=torch.float64)

    x = random(images, channels, *side).contiguous(memory_format=torch.channels_last)
    weight = random(filters, channels, 3, 3) / (channels * 9) ** 0.5
    arguments = [x, weight, None, random(filters) if bias else None, list(padding), activation, None, slope]
    if residual:
        arguments[6] = random(*_reference(*arguments).shape)
    return arguments


def single(arguments):
    arguments = in_float32(arguments)
    arguments[2] = pack_tiles(arguments[1])
    return arguments


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_values_whatever_the_number_of_threads(name, residual):
    arguments = problem(name, residual=residual)
    wanted, given = _reference(*arguments), single(arguments)
    assert_values_whatever_the_number_of_threads(op.call, given, wanted, rtol=1e-5)


@pytest.mark.parametrize("activation, slope", [(0, 0.0), (1, 0.0), (2, 0.0), (3, 0.0), (4, 0.0), (1, 0.1)])
@pytest.mark.parametrize("residual", [False, True])
def test_activations_without_bias(activation, slope, residual):
    arguments = problem("odd channels", activation, slope, bias=False, residual=residual)
    torch.testing.assert_close(run(op.call, single(arguments)).double(), _reference(*arguments), rtol=1e-5, atol=1e-5)


def test_layouts():
    given = single(problem("odd sides"))
    wanted, x = run(op.call, given), given[0]
    for other in (x.contiguous(), torch.cat([x, x], 1)[:, :16]):
        assert torch.equal(run(op.call, [other, *given[1:]]), wanted)


@pytest.mark.parametrize("name", ["even", "odd channels"])
def test_opcheck(name):
    torch.library.opcheck(torch.ops.fastcnn.winograd_conv2d.default, single(problem(name, residual=True)))


def test_no_images():
    given = single(problem("even"))
    assert run(op.call, [given[0][:0], *given[1:]]).shape == (0, 48, 8, 6)


def test_what_is_not_finite_stays_near():
    """Nothing that it reaches is finite, and of the rest all but what shares a tile with that."""
    for value in (torch.inf, torch.nan):
        given = single(problem("even", 0))
        given[0][1, 3, 4, 4] = value
        wrong = ~run(op.call, given).isfinite()
        assert wrong[1, :, 3:6, 3:6].all() and not wrong[1, :, :2].any() and not wrong[0].any()


@pytest.mark.parametrize(
    "at, value, words",
    [
        (0, torch.ones(2, 31, 8, 6), "float input"),
        (0, torch.ones(2, 32, 8, 6).double(), "float input"),
        (1, torch.ones(48, 32, 3, 2), "3, 3"),
        (1, torch.ones(15, 32, 3, 3), "fewer than 16 filters"),
        (2, torch.ones(16 * 48 * 32 - 1), "expected 24576 contiguous floats"),
        (3, torch.ones(47), "expected 48 contiguous floats"),
        (4, [-1, 1], "larger than"),
        (5, 9, "no such activation"),
        (6, torch.ones(2, 48, 8, 7), "residual"),
    ],
)
def test_refuses(at, value, words):
    given = single(problem("even"))
    given[at] = value
    with pytest.raises(RuntimeError, match=words) as raised:
        run(op.call, given)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("channels, stride, runs", [(32, 1, True), (31, 1, False), (32, 2, False)])
def test_layers_of_many_channels_run_it(channels, stride, runs):
    layer = FusedConv2d(channels, 16, 3, stride, 1)
    with torch.inference_mode(), torch.profiler.profile() as profile:
        layer(torch.ones(1, channels, 6, 6))
    assert ("fastcnn::winograd_conv2d" in {event.key for event in profile.key_averages()}) is runs
