"""Dense convolutions on packed weights: values, bits, what they refuse."""

import pytest
import torch
from packed_ops import assert_values_whatever_the_number_of_threads, in_float32, run

from fastcnn.ops._dense_conv2d import _reference, into, op, pack_taps

# (images, in, out), (height, width), kernel, stride, padding.
SHAPES = {
    "3x3": ((2, 16, 49), (9, 7), (3, 3), (1, 1), (1, 1)),
    "first layer": ((1, 3, 32), (31, 30), (3, 3), (2, 2), (1, 1)),
    "no padding": ((3, 5, 17), (14, 9), (3, 3), (2, 1), (0, 0)),
    "flat": ((1, 17, 24), (13, 20), (1, 7), (1, 1), (0, 3)),
    "upright": ((2, 9, 33), (12, 5), (7, 1), (1, 2), (3, 0)),
    "5x5": ((1, 8, 65), (11, 13), (5, 5), (1, 1), (2, 2)),
    "7x7": ((1, 1, 40), (28, 27), (7, 7), (2, 2), (3, 3)),
    "padding beyond the kernel": ((2, 4, 16), (2, 3), (3, 3), (1, 1), (6, 5)),
    "a stride beyond the kernel": ((2, 4, 18), (13, 11), (2, 1), (3, 4), (0, 0)),
    "1x1 at a stride": ((2, 24, 48), (7, 7), (1, 1), (2, 2), (0, 0)),
    "many weights": ((1, 64, 130), (6, 5), (5, 5), (1, 1), (2, 2)),
    "one pixel": ((2, 33, 64), (1, 1), (3, 3), (1, 1), (1, 1)),
}


def problem(name, activation=1, bias=True, residual=False, slope=0.0):
    (images, channels, filters), side, kernel, stride, padding = SHAPES[name]
    g = torch.Generator().manual_seed(len(name))

    def random(*shape):
        return torch.randn(shape, generator=g, dtype=torch.float64)

    x = random(images, channels, *side).contiguous(memory_format=torch.channels_last)
    weight = random(filters, channels, *kernel) / (channels * kernel[0] * kernel[1]) ** 0.5
    window = list(stride), list(padding), activation
    arguments = [x, weight, None, random(filters) if bias else None, *window, None, slope]
    if residual:
        arguments[7] = random(*_reference(*arguments).shape)
    return arguments


def single(arguments):
    arguments = in_float32(arguments)
    arguments[2] = pack_taps(arguments[1])
    return arguments


def without_residual(arguments):
    return [*arguments[:7], arguments[8]]


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_values_whatever_the_number_of_threads(name, residual):
    arguments = problem(name, residual=residual)
    wanted, given = _reference(*arguments), single(arguments)
    assert_values_whatever_the_number_of_threads(op.call, given, wanted)


@pytest.mark.parametrize("activation, slope", [(0, 0.0), (1, 0.0), (2, 0.0), (3, 0.0), (4, 0.0), (1, 0.1)])
@pytest.mark.parametrize("residual", [False, True])
def test_activations_without_bias(activation, slope, residual):
    arguments = problem("3x3", activation, bias=False, residual=residual, slope=slope)
    torch.testing.assert_close(run(op.call, single(arguments)).double(), _reference(*arguments), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["3x3", "no padding"])
def test_layouts(name):
    given = single(problem(name))
    x = given[0]
    wanted = run(op.call, given)
    wider = torch.full((x.size(0), x.size(1) + 5, *x.shape[2:]), torch.nan)
    sliced = wider.contiguous(memory_format=torch.channels_last)[:, 2:-3].copy_(x)
    for other in (x.contiguous(), sliced):
        assert torch.equal(run(op.call, [other, *given[1:]]), wanted)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("first", [0, 1, 7])
@pytest.mark.parametrize("name", SHAPES)
def test_into_writes_its_channels_only(name, first, count):
    given = single(problem(name))
    wanted = run(op.call, given)
    filters = wanted.size(1)
    shape = (wanted.size(0), filters + 9, *wanted.shape[2:])
    out = torch.full(shape, 7.0).contiguous(memory_format=torch.channels_last)
    run(into.call, [out, first, *without_residual(given)], count)
    assert torch.equal(out[:, first : first + filters], wanted)
    out[:, first : first + filters] = 7
    assert (out == 7).all()


@pytest.mark.parametrize("name", ["3x3", "no padding", "one pixel"])
def test_opcheck(name):
    given = single(problem(name, residual=True))
    torch.library.opcheck(op.call, tuple(given))
    out = torch.zeros(run(op.call, given).shape).contiguous(memory_format=torch.channels_last)
    torch.library.opcheck(into.call, (out, 0, *without_residual(given)))


def test_no_images():
    given = single(problem("3x3"))
    assert run(op.call, [given[0][:0], *given[1:]]).shape == (0, 49, 9, 7)


@pytest.mark.parametrize("activation, slope", [(2, 0.0), (1, 0.1)])
def test_nan_stays(activation, slope):
    given = single(problem("3x3", activation, slope=slope))
    given[0][1, 3, 4, 4] = torch.nan
    nan = run(op.call, given).isnan()
    assert nan[1, :, 3:6, 3:6].all() and nan.sum() == 49 * 9


BAD = [
    (0, torch.ones(2, 15, 9, 7), "float input"),
    (0, torch.ones(16, 9, 7), "float input"),
    (0, torch.ones(2, 16, 9, 7).double(), "float input"),
    (1, torch.ones(15, 16, 3, 3), "fewer than 16 filters"),
    (1, torch.ones(49, 16, 12, 3), "larger than the padded input"),
    (2, torch.ones(7055), "expected 7056 contiguous floats"),
    (3, torch.ones(48), "expected 49 contiguous floats"),
    (3, torch.ones(98)[::2], "expected 49 contiguous floats"),
    (4, [0, 1], "larger than"),
    (5, [1, -1], "larger than"),
    (6, 9, "no such activation"),
    (6, -1, "no such activation"),
    (6, 2, "only ReLU has a slope"),
    (7, torch.ones(2, 49, 9, 8), "residual"),
]


@pytest.mark.parametrize("at, value, words", BAD)
def test_refuses(at, value, words):
    given = single(problem("3x3", slope=0.1 if (at, value) == (6, 2) else 0.0))
    given[at] = value
    with pytest.raises(RuntimeError, match=words) as raised:
        run(op.call, given)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "shape, first", [((2, 60, 9, 7), 12), ((2, 60, 9, 7), -1), ((1, 60, 9, 7), 0), ((2, 60, 9, 8), 0)]
)
def test_into_refuses(shape, first):
    given = single(problem("3x3"))
    for layout, at in ((torch.channels_last, first), (torch.contiguous_format, 0)):
        out = torch.zeros(shape).contiguous(memory_format=layout)
        with pytest.raises(RuntimeError, match="expected a channels_last result with room for 49 channels"):
            run(into.call, [out, at, *without_residual(given)])
        assert not out.any()
