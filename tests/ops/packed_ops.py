"""What the tests of convolutions on packed weights have in common."""

import torch
from threads import threads


def in_float32(arguments):
    return [a.float() if isinstance(a, torch.Tensor) else a for a in arguments]


def run(call, arguments, count=1):
    with threads(count):
        return call(*arguments)


def assert_values_whatever_the_number_of_threads(call, given, wanted, rtol=1e-4, atol=1e-5):
    """In channels_last, near ``wanted`` in float64, and the same bits from one thread to three."""
    found = run(call, given)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), wanted, rtol=rtol, atol=atol)
    for count in (2, 3):
        assert torch.equal(run(call, given, count), found), count
