"""What the contract suite does not say of RoI pooling: its rules by hand, a plain loop over random cases, bad input."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcnn import _backend, nn, ops, reference_mode
from fastcnn.ops import _library

MODES = [_library.kernel_mode, reference_mode]
RAMP = torch.arange(16.0).view(1, 1, 4, 4)
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def rois(*boxes):
    return torch.tensor([[0.0, *box] for box in boxes])


@pytest.mark.parametrize("mode", MODES)
class TestRules:
    @pytest.fixture(autouse=True)
    def _mode(self, mode):
        with mode():
            yield

    def test_both_corners_belong_to_the_box(self, mode):
        assert ops.roi_pool(RAMP, rois((0.0, 0, 1, 1)), 1).item() == 5
        assert ops.roi_pool(RAMP, rois((1.0, 2, 1, 2)), 1).item() == 9

    @pytest.mark.parametrize("x, pixel", [(0.49999997, 0), (0.5, 1), (1.5, 2), (2.5, 3), (-0.5, -1), (-0.4, 0)])
    def test_coordinates_round_half_away_from_zero(self, mode, x, pixel):
        out = ops.roi_pool(RAMP, rois((x, 0.0, x, 0.0)), 1).item()
        assert out == (pixel if pixel >= 0 else 0)
        row = torch.full((1, 1, 1, 9), 7.0)
        assert ops.roi_pool(row, rois((x * 2, 0.0, x * 2, 0.0)), 1, 0.5).item() == (7 if pixel >= 0 else 0)

    def test_bins_share_pixels(self, mode):
        out = ops.roi_pool(torch.arange(5.0).view(1, 1, 1, 5), rois((0.0, 0, 4, 0)), (1, 2))
        assert out.flatten().tolist() == [2, 4]  # Pixels 0 to 2, and 2 to 4.
        out = ops.roi_pool(torch.arange(3.0).view(1, 1, 1, 3), rois((0.0, 0, 2, 0)), (1, 5))
        assert out.flatten().tolist() == [0, 1, 1, 2, 2]

    def test_an_inverted_box_is_one_pixel(self, mode):
        assert ops.roi_pool(RAMP, rois((2.0, 2, 0, 0)), 2).flatten().tolist() == [10] * 4

    @pytest.mark.parametrize("box", [(9.0, 9, 12, 12), (-9.0, 0, -5, 3), (math.nan, 0, 3, 3), (0.0, 0, 3, math.nan)])
    def test_boxes_off_the_map_and_nan_give_zeros(self, mode, box):
        x = (RAMP - 20).requires_grad_()
        out = ops.roi_pool(x, rois(box), 2)
        out.sum().backward()
        assert torch.equal(out, torch.zeros(1, 1, 2, 2)) and torch.equal(x.grad, torch.zeros_like(x))

    def test_huge_boxes(self, mode):
        big = rois((-1e30, -math.inf, 1e30, math.inf), (-1e7, -1e7, 1e7, 1e7))
        assert ops.roi_pool(RAMP, big, 1).flatten().tolist() == [15, 15]

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_the_first_of_equal_values_gets_the_gradient(self, mode, layout):
        x = torch.zeros(1, 20, 5, 6).contiguous(memory_format=layout)
        x[:, :, 2, 1] = x[:, :, 1, 3] = x[:, :, 1, 4] = x[:, :, 3, 0] = 1
        x.requires_grad_()
        ops.roi_pool(x, rois((0.0, 0, 5, 4)), 1).sum().backward()
        wanted = torch.zeros(1, 20, 5, 6)
        wanted[:, :, 1, 3] = 1
        assert torch.equal(x.grad, wanted)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
    def test_nan_is_no_maximum_and_nothing_is_the_lowest_number(self, mode, dtype):
        x = torch.tensor([[math.nan, 2.0, math.nan], [math.nan] * 3, [-math.inf] * 3, [math.inf, 1, 2]]).to(dtype)
        x = x.view(1, 1, 4, 3).requires_grad_()
        out = ops.roi_pool(x, rois((0.0, 0, 2, 3)), (4, 1))
        lowest = torch.tensor(torch.finfo(torch.float32).min).to(dtype).item()
        assert out.flatten().tolist() == [2, lowest, lowest, math.inf]
        out.sum().backward()
        assert x.grad.flatten().nonzero().flatten().tolist() == [1, 9]

    def test_values_are_those_of_pixels(self, mode):
        x = torch.randn(1, 3, 9, 9, dtype=torch.float64) * 1e30
        for dtype in (torch.float64, torch.float32):
            pooled = ops.roi_pool(x.to(dtype), rois((0.0, 0, 8, 8)), 1).flatten()
            assert torch.equal(pooled, x.to(dtype).amax((0, 2, 3)))

    def test_boxes_get_no_gradient(self, mode):
        x, boxes = RAMP.clone().requires_grad_(), rois((1.0, 1, 3, 3)).requires_grad_()
        ops.roi_pool(x, boxes, 2).sum().backward()
        assert x.grad is not None and boxes.grad is None


def by_loops(x, boxes, size, scale):
    """From the definition, bin by bin in Python."""
    out, images, height, width = np.zeros((len(boxes), x.shape[1], *size), x.dtype), x.shape[0], *x.shape[2:]
    grads = np.zeros_like(x)
    scale = np.float32(scale)

    def pixels(low, high, bins, i, limit):
        start, end = (
            math.floor(abs(v) + 0.5) * (1 if v >= 0 else -1) for v in (float(low * scale), float(high * scale))
        )
        step = np.float32(max(end - start + 1, 1)) / np.float32(bins)
        first, after = start + math.floor(np.float32(i) * step), start + math.ceil(np.float32(i + 1) * step)
        return range(min(max(first, 0), limit), min(max(after, 0), limit))

    for k, (image, x1, y1, x2, y2) in enumerate(boxes):
        assert 0 <= image < images
        for i in range(size[0]):
            for j in range(size[1]):
                rows, cols = pixels(y1, y2, size[0], i, height), pixels(x1, x2, size[1], j, width)
                if not rows or not cols:
                    continue
                for c in range(x.shape[1]):
                    places = [(r, q) for r in rows for q in cols]
                    best = max(places, key=lambda at: (x[int(image), c, at[0], at[1]], -at[0], -at[1]))
                    out[k, c, i, j] = x[int(image), c, best[0], best[1]]
                    grads[int(image), c, best[0], best[1]] += 1
    return torch.from_numpy(out), torch.from_numpy(grads)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    st.tuples(st.integers(1, 2), st.sampled_from([1, 3, 17]), st.integers(1, 9), st.integers(1, 20)),
    st.integers(0, 6),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.sampled_from([1.0, 0.5, 0.3]),
    st.sampled_from(LAYOUTS),
    st.integers(0, 2**31),
)
def test_random_cases_by_loops(shape, count, size, scale, layout, seed):
    g = torch.Generator().manual_seed(seed)
    x = (torch.randn(shape, generator=g) * 3).round().contiguous(memory_format=layout)
    corner = torch.rand(count, 4, generator=g) * 24 / scale - 4
    boxes = torch.cat([torch.randint(shape[0], (count, 1), generator=g), (corner * 4).round() / 4], 1)
    wanted, grad = by_loops(x.numpy(), boxes.numpy(), size, scale)
    for mode in MODES:
        with mode():
            leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
            out = ops.roi_pool(leaf, boxes, size, scale)
            torch.testing.assert_close(out, wanted, rtol=0, atol=0, check_stride=False)
            if count:
                out.sum().backward()
                torch.testing.assert_close(leaf.grad, grad, rtol=0, atol=0, check_stride=False)


def test_one_tensor_per_image_and_numbers_of_numpy():
    x = torch.randn(2, 4, 10, 10)
    boxes = [torch.tensor([[1.0, 1, 5, 5]]), torch.tensor([[0.0, 2, 7, 9], [3, 3, 4, 4]])]
    joined = torch.tensor([[0, 1.0, 1, 5, 5], [1, 0, 2, 7, 9], [1, 3, 3, 4, 4]])
    wanted = ops.roi_pool(x, joined, (2, 3), 0.5)
    assert torch.equal(ops.roi_pool(x, boxes, (np.int64(2), np.int32(3)), np.float32(0.5)), wanted)
    assert ops.roi_pool(x, [], 3).shape == (0, 4, 3, 3)


def test_module():
    x, boxes = torch.randn(1, 4, 10, 10, requires_grad=True), rois((1.0, 2.0, 7.0, 8.0))
    module = copy.deepcopy(nn.RoIPool((2, 3), 0.5))
    assert torch.equal(module(x, boxes), ops.roi_pool(x, boxes, (2, 3), 0.5))
    assert repr(module) == "RoIPool(output_size=(2, 3), spatial_scale=0.5)" and not module.state_dict()
    module(x, boxes).sum().backward()
    assert x.grad is not None


@pytest.mark.skipif(not _backend.cpu.available, reason="the compiled kernels' own checks")
def test_the_kernel_checks_what_it_is_called_with():
    pool, backward = torch.ops.fastcnn.roi_pool, torch.ops.fastcnn.roi_pool_backward
    box, grad = rois((0.0, 0, 2, 2)), torch.zeros(1, 1, 2, 2)
    for args in [(RAMP[0], box, 1.0, 2, 2), (RAMP, box[:, 1:], 1.0, 2, 2), (RAMP, box, 1.0, 0, 2)]:
        with pytest.raises(RuntimeError):
            pool(*args)
    bad = [(grad[:0], RAMP, box), (grad.expand(1, 2, 2, 2), RAMP, box), (grad[0], RAMP, box), (grad, RAMP, box[:, :4])]
    for args in [*bad, (grad[:, :, :0], RAMP, box), (grad.double(), RAMP, box), (grad, RAMP, box + 1)]:
        with pytest.raises((RuntimeError, ValueError)):
            backward(*args, 1.0)


X, BOXES = torch.zeros(2, 3, 8, 8), torch.tensor([[0.0, 1, 1, 4, 4]])
BAD = {
    "rank": ((X[0], BOXES, 2), ValueError, r"input with 4 dimensions, got shape \(3, 8, 8\)"),
    "4 wide": ((X, BOXES[:, 1:], 2), ValueError, r"shape \[K, 5\] .* got a tensor of shape \[1, 4\]"),
    "too many images": ((X, [BOXES[:, 1:]] * 3, 2), ValueError, "boxes for 3 images, but the input holds 2"),
    "int input": ((X.int(), BOXES, 2), TypeError, r"input of a floating-point dtype, got torch\.int32"),
    "devices": ((X, BOXES.to("meta"), 2), ValueError, "input on cpu, boxes on meta"),
    "index": ((X, BOXES + 2, 2), ValueError, "box 0 has batch index 2, but the input holds 2"),
    "index nan": ((X, BOXES * math.nan, 2), ValueError, "box 0 has batch index -?nan, but the input holds 2"),
    "size": ((X, BOXES, 0), ValueError, "positive output_size, got 0"),
    "size of three": ((X, BOXES, (1, 2, 3)), ValueError, r"one or two numbers, got \(1, 2, 3\)"),
    "size type": ((X, BOXES, 2.0), TypeError, "output_height to be an int, got float 2.0"),
    "scale": ((X, BOXES, 2, "1"), TypeError, "spatial_scale to be a number, got str '1'"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", BAD)
def test_bad_input(name, mode):
    args, error, message = BAD[name]
    with mode(), pytest.raises(error, match=f"roi_pool: .*{message}") as caught:
        ops.roi_pool(*args)
    assert "\n" not in str(caught.value)
