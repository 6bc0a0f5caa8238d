"""What the contract suite does not say of the channel shuffle: every dtype, equality with torch's, bad input."""

import contextlib
import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcnn import _backend, nn, ops, reference_mode
from fastcnn.ops import _library

MODES = [contextlib.nullcontext, _library.kernel_mode, reference_mode]


@pytest.mark.parametrize("mode", MODES)
def test_the_figure_of_the_paper(mode):
    """Three groups of three channels each: one of each group, then the next of each (figure 1)."""
    x = torch.arange(9.0).view(1, 9, 1, 1).expand(2, 9, 2, 2)
    with mode():
        out = ops.channel_shuffle(x, 3)
    assert out[1, :, 0, 1].tolist() == [0, 3, 6, 1, 4, 7, 2, 5, 8]


@settings(derandomize=True, deadline=None, max_examples=150)
@given(
    st.integers(1, 9),
    st.integers(1, 40),
    st.lists(st.integers(0, 5), min_size=1, max_size=3),
    st.integers(0, 2),
    st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.int64, torch.bool]),
    st.booleans(),
)
def test_as_torch_has_it_and_back(groups, each, rest, images, dtype, channels_last):
    x = torch.randint(-100, 100, (images, groups * each, *rest)).to(dtype)
    if channels_last and x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    for sides in ((groups, each), (each, groups)):
        with _library.kernel_mode():
            out = ops.channel_shuffle(x, sides[0])
            back = ops.channel_shuffle(out, sides[1])
        assert torch.equal(out, F.channel_shuffle(x, sides[0]))
        assert torch.equal(back, x)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128, torch.uint8, torch.int32], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "NHWC"])
def test_other_dtypes(dtype, layout):
    x = (100 * torch.rand(2, 12, 3, 4)).to(dtype).contiguous(memory_format=layout)
    with _library.kernel_mode():
        assert torch.equal(ops.channel_shuffle(x, 3), F.channel_shuffle(x, 3))


def test_nan_is_moved_as_it_is():
    x = torch.zeros(1, 51, 2, 2)
    x[0, 17] = torch.nan
    for layout in (torch.contiguous_format, torch.channels_last):
        with _library.kernel_mode():
            out = ops.channel_shuffle(x.contiguous(memory_format=layout), 3)
        assert out.isnan().flatten(2).all(2).nonzero().tolist() == [[0, 1]]
        assert out.isnan().sum() == 4


def test_the_layer_is_its_twin():
    x = torch.randn(2, 12, 3, 3, requires_grad=True)
    ours, theirs = nn.ChannelShuffle(4), torch.nn.ChannelShuffle(4)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert repr(ours) == repr(theirs)
    out = copy.deepcopy(ours)(x)
    assert torch.equal(out, theirs(x))
    cotangent = torch.randn_like(out)
    expected = torch.autograd.grad(theirs(x), x, cotangent)
    assert torch.equal(torch.autograd.grad(out, x, cotangent)[0], expected[0])


@pytest.mark.skipif(not _backend.cpu.available, reason="the compiled kernels' own checks")
@pytest.mark.parametrize("shape, groups", [((2, 6), 3), ((2, 6, 2, 2), 4), ((2, 6, 2, 2), 0), ((2, 6, 2, 2), -3)])
def test_the_kernel_checks_what_it_is_called_with(shape, groups):
    with pytest.raises(RuntimeError, match="channel_shuffle"):
        torch.ops.fastcnn.channel_shuffle(torch.zeros(shape), groups)


X = torch.zeros(2, 6, 3, 3)
BAD = {
    "rank": ((X[0, 0], 3), ValueError, r"of shape \[N, C, \*\], got \(3, 3\)"),
    "groups": ((X, 4), ValueError, "groups that divide 6 channels, got 4"),
    "no groups": ((X, 0), ValueError, "got 0"),
    "negative": ((X, -3), ValueError, "got -3"),
    "not a tensor": ((None, 3), TypeError, "expected input to be a tensor, got NoneType"),
    "groups type": ((X, 3.0), TypeError, "expected groups to be an int, got float 3.0"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", BAD)
def test_bad_input(name, mode):
    args, error, message = BAD[name]
    with mode(), pytest.raises(error, match=message) as caught:
        ops.channel_shuffle(*args)
    assert str(caught.value).startswith("channel_shuffle: ") and "\n" not in str(caught.value)
