"""1x1, depthwise and 1x1 convolution as one op: values, bits, what it refuses."""

import pytest
import torch
from packed_ops import assert_values_whatever_the_number_of_threads, in_float32, run

from fastcnn.ops._inverted_residual import _reference, op
from fastcnn.ops.pointwise_conv2d import pack

# (images, in, channels, out; in None: no expansion, out None: no projection), (height, width), kernel, stride, padding.
SHAPES = {
    "in turn": ((1, 24, 50, 18), (14, 13), (3, 3), 1, (1, 1, 1, 1)),
    "banded": ((1, 3, 33, 49), (31, 40), (3, 3), 1, (1, 1, 1, 1)),
    "banded at stride 2": ((1, 16, 72, 17), (63, 61), (5, 5), 2, (2, 2, 2, 2)),
    "many images": ((3, 17, 24, 65), (9, 7), (5, 5), 1, (2, 2, 2, 2)),
    "as TensorFlow pads": ((2, 8, 19, 24), (10, 12), (3, 3), 2, (0, 1, 0, 1)),
    "more on one side": ((1, 8, 16, 16), (9, 30), (3, 3), 1, (3, 0, 2, 1)),
    "padding beyond the kernel": ((2, 4, 20, 16), (2, 5), (3, 3), 1, (7, 5, 4, 6)),
    "7x7": ((2, 1, 16, 96), (13, 31), (7, 7), 2, (3, 3, 3, 3)),
    "a flat kernel": ((1, 6, 17, 16), (30, 29), (1, 5), 1, (0, 0, 2, 2)),
    "one pixel": ((2, 40, 64, 24), (1, 1), (3, 3), 1, (1, 1, 1, 1)),
    "no expansion": ((2, None, 19, 24), (33, 9), (3, 3), 2, (1, 1, 1, 1)),
    "few channels": ((1, None, 3, 16), (40, 31), (3, 3), 1, (1, 1, 1, 1)),
    "no projection": ((1, 12, 40, None), (29, 33), (3, 3), 1, (1, 1, 1, 1)),
    "bands of one row": ((1, 4, 1100, 16), (5, 160), (3, 3), 1, (1, 1, 1, 1)),
    "rows a page of memory apart": ((2, 3, 1024, 16), (12, 5), (3, 3), 1, (1, 1, 1, 1)),
}


def problem(name, activations=(1, 3, 0), bias=True, residual=False):
    (images, narrow, channels, out), (height, width), (kernel_h, kernel_w), stride, padding = SHAPES[name]
    g = torch.Generator().manual_seed(len(name))

    def random(*shape):
        return torch.randn(shape, generator=g, dtype=torch.float64)

    def dense(outputs, inputs, activation):
        if inputs is None or outputs is None:
            return [None, None, None, 0]
        return [random(outputs, inputs, 1, 1) / inputs**0.5, None, random(outputs) if bias else None, activation]

    x = random(images, narrow or channels, height, width).contiguous(memory_format=torch.channels_last)
    weight = random(channels, 1, kernel_h, kernel_w) / (kernel_h * kernel_w) ** 0.5
    depthwise = [weight, random(channels) if bias else None, [stride, stride], list(padding), activations[1]]
    arguments = [x, *dense(channels, narrow, activations[0]), *depthwise, *dense(out, channels, activations[2]), None]
    if residual:
        arguments[-1] = random(*_reference(*arguments).shape)
    return arguments


def single(arguments):
    arguments = in_float32(arguments)
    for at in (1, 10):
        if arguments[at] is not None:
            arguments[at + 1] = pack(arguments[at])
    return arguments


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_values_whatever_the_number_of_threads(name, residual):
    arguments = problem(name, residual=residual and SHAPES[name][0][3] is not None)
    wanted, given = _reference(*arguments), single(arguments)
    assert_values_whatever_the_number_of_threads(op.call, given, wanted)


@pytest.mark.parametrize("activations", [(0, 0, 1), (2, 1, 3), (3, 4, 2), (4, 2, 4)])
def test_activations_without_biases(activations):
    arguments = problem("in turn", activations, bias=False, residual=True)
    found = run(op.call, single(arguments))
    torch.testing.assert_close(found.double(), _reference(*arguments), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", ["contiguous", "sliced", "expanded"])
@pytest.mark.parametrize("name", ["in turn", "no expansion"])
def test_layouts(name, layout):
    given = single(problem(name))
    x = given[0]
    if layout == "contiguous":
        other = x.contiguous()
    elif layout == "sliced":
        wider = torch.full((x.size(0), x.size(1) + 5, *x.shape[2:]), torch.nan)
        other = wider.contiguous(memory_format=torch.channels_last)[:, 2:-3].copy_(x)
    else:
        other = x[:, :1].expand(x.shape)
        x = other.clone(memory_format=torch.channels_last)
    assert not other.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(run(op.call, [other, *given[1:]]), run(op.call, [x, *given[1:]]))


@pytest.mark.parametrize("name", ["in turn", "no expansion", "no projection", "one pixel"])
def test_opcheck(name):
    torch.library.opcheck(op.call, tuple(single(problem(name))))


def test_no_images():
    given = single(problem("in turn"))
    given[0] = given[0][:0]
    assert run(op.call, given).shape == (0, 18, 14, 13)


def test_not_finite_stays():
    given = single(problem("banded", (1, 1, 2)))
    given[0][0, 1, 20, 5] = torch.nan
    nan = run(op.call, given).isnan()
    assert nan[:, :, 19:22, 4:7].all() and nan.sum() == 49 * 9


@pytest.mark.parametrize(
    "at, value, words",
    [
        (0, torch.ones(1, 23, 14, 13), "expected 1150 contiguous floats"),
        (0, torch.ones(24, 14, 13), "float input"),
        (0, torch.ones(1, 24, 14, 13).double(), "float input"),
        (0, torch.ones(1, 24, 0, 13), "larger than the padded input"),
        (2, torch.ones(1199), "expected 1200 contiguous floats"),
        (2, None, "packed weights"),
        (3, torch.ones(49), "expected 50 contiguous floats"),
        (4, 9, "no such activation"),
        (5, torch.ones(50, 1, 17, 3), "larger than the padded input"),
        (5, torch.ones(50, 1, 3, 4), "width 3, 5 or 7"),
        (6, torch.ones(100)[::2], "expected 50 contiguous floats"),
        (7, [3, 3], "stride of 1 or 2"),
        (8, [-1, 1, 1, 1], "padding"),
        (11, torch.ones(901), "expected 900 contiguous floats"),
        (14, torch.ones(1, 18, 14, 12), "residual"),
    ],
)
def test_refuses(at, value, words):
    given = single(problem("in turn"))
    given[at] = value
    with pytest.raises(RuntimeError, match=words) as raised:
        run(op.call, given)
    assert "\n" not in str(raised.value)
