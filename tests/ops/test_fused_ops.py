"""The small ops that only fused networks call: values, bits, what they refuse."""

import pytest
import torch
from threads import threads

from fastcnn.ops import _channel_means, _grouped_pointwise, _linear, _shuffle_pair
from fastcnn.ops.pointwise_conv2d import pack


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def last(x):
    return x.contiguous(memory_format=torch.channels_last)


def half(channels, *shape):
    """Some channels of a wider map."""
    return last(random(shape[0], 2 * channels, *shape[1:])).chunk(2, 1)


def grouped(images, channels, out, groups, size, shuffle=1, activation=0, bias=True, residual=False):
    x, weight = last(random(images, channels, *size)), random(out, channels // groups, 1, 1)
    added = last(random(images, out, *size)) if residual else None
    return [x, weight, None, random(out) if bias else None, groups, shuffle, activation, added]


CASES = {
    "means": (_channel_means, lambda: [last(random(3, 17, 7, 9))]),
    "means of planes": (_channel_means, lambda: [random(2, 40, 13, 5)]),
    "means of one pixel": (_channel_means, lambda: [random(1, 3, 1, 1)]),
    "means of some channels": (_channel_means, lambda: [half(24, 2, 5, 6)[1]]),
    "means of many pixels": (_channel_means, lambda: [last(random(1, 64, 112, 112))]),
    "linear": (_linear, lambda: [random(1, 70), random(50, 70), None, random(50)]),
    "linear, no bias": (_linear, lambda: [random(9, 33), random(16, 33), None, None]),
    "linear, of a transposed input": (_linear, lambda: [random(40, 5).t(), random(100, 40), None, random(100)]),
    "linear, no inputs": (_linear, lambda: [random(0, 40), random(100, 40), None, random(100)]),
    "pair": (_shuffle_pair, lambda: [last(random(2, 58, 5, 7)), last(random(2, 58, 5, 7))]),
    "pair, one a part": (_shuffle_pair, lambda: [half(24, 2, 9, 6)[0], last(random(2, 24, 9, 6))]),
    "pair, both parts": (_shuffle_pair, lambda: [*half(3, 1, 4, 5)]),
    "pair of planes": (_shuffle_pair, lambda: [random(1, 116, 14, 14), random(1, 116, 14, 14)]),
    "pair of one pixel": (_shuffle_pair, lambda: [random(1, 20, 1, 1), random(1, 20, 1, 1)]),
    "groups": (_grouped_pointwise, lambda: grouped(1, 60, 120, 3, (7, 7))),
    "groups, shuffled": (_grouped_pointwise, lambda: grouped(2, 48, 96, 3, (9, 11), shuffle=3, activation=1)),
    "groups, other shuffle": (_grouped_pointwise, lambda: grouped(1, 48, 96, 3, (4, 3), shuffle=8, bias=False)),
    "groups, residual": (_grouped_pointwise, lambda: grouped(1, 34, 66, 2, (14, 13), activation=1, residual=True)),
    "one group": (_grouped_pointwise, lambda: grouped(1, 24, 60, 1, (28, 28), shuffle=3, activation=4)),
    "one pixel of groups": (_grouped_pointwise, lambda: grouped(1, 64, 64, 4, (1, 1), residual=True)),
}


def single(module, arguments):
    arguments = [a.float() if isinstance(a, torch.Tensor) else a for a in arguments]
    if module is _linear:
        arguments[2] = pack(arguments[1])
    if module is _grouped_pointwise:
        arguments[2] = _grouped_pointwise.turn(arguments[1], arguments[4])
    return arguments


@pytest.mark.parametrize("case", CASES)
def test_values(case):
    module, make = CASES[case]
    arguments = make()
    wanted = module.op.reference(*arguments)
    found = module.op.call(*single(module, arguments))
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    fake = module.op.call(*(a.to("meta") if isinstance(a, torch.Tensor) else a for a in single(module, arguments)))
    assert fake.shape == found.shape and fake.dtype == found.dtype
    assert fake.stride() == found.stride() or found.numel() == 0 or 1 in found.shape[2:]


@pytest.mark.parametrize("case", CASES)
def test_bits_whatever_the_number_of_threads(case):
    module, make = CASES[case]
    arguments = single(module, make())
    wanted = module.op.call(*arguments)
    for count in (1, 2, 3):
        with threads(count):
            assert torch.equal(module.op.call(*arguments), wanted)


REFUSED = {
    "integers": (_channel_means, lambda: [torch.ones(1, 2, 3, 3, dtype=torch.int64)], "expected float input"),
    "no pixels": (_channel_means, lambda: [torch.ones(1, 2, 0, 3)], "expected float input"),
    "features": (_linear, lambda: [torch.ones(1, 5), torch.ones(16, 4), torch.ones(64), None], "expected float input"),
    "packs": (_linear, lambda: [torch.ones(1, 4), torch.ones(16, 4), torch.ones(63), None], "contiguous floats"),
    "a bias": (_linear, lambda: [torch.ones(1, 4), torch.ones(16, 4), torch.ones(64), torch.ones(15)], "expected 16"),
    "sizes": (_shuffle_pair, lambda: [torch.ones(1, 4, 2, 2), torch.ones(1, 4, 2, 3)], "has not the shape"),
    "residual and shuffle": (
        _grouped_pointwise,
        lambda: single(_grouped_pointwise, grouped(1, 32, 32, 2, (2, 2), shuffle=2, residual=True)),
        "a residual or a shuffle",
    ),
    "few filters": (
        _grouped_pointwise,
        lambda: single(_grouped_pointwise, grouped(1, 32, 16, 2, (2, 2))),
        "at least 16 filters",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    module, make, message = REFUSED[case]
    with pytest.raises(RuntimeError, match=message):
        module.op.call(*make())
