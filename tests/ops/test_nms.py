"""What the contract suite does not say of NMS: its rules by hand, random families against brute force, bad input."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcnn import _backend, ops, reference_mode
from fastcnn.ops import _library
from fastcnn.testing.spec import random_boxes

MODES = [_library.kernel_mode, reference_mode]
SQUARE = [0.0, 0.0, 10.0, 10.0]


def keep(boxes, scores, threshold=0.5, dtype=torch.float32):
    return ops.nms(torch.tensor(boxes, dtype=dtype), torch.tensor(scores, dtype=dtype), threshold).tolist()


@pytest.mark.parametrize("mode", MODES)
class TestRules:
    @pytest.fixture(autouse=True)
    def _mode(self, mode):
        with mode():
            yield

    def test_highest_score_first(self, mode):
        assert keep([SQUARE, [20.0, 20, 30, 30], SQUARE], [0.1, 0.5, 0.9]) == [2, 1]

    def test_ties_keep_their_order(self, mode):
        far = [[100.0 * i, 0, 100 * i + 10, 10] for i in range(40)]
        assert keep(far, [0.5] * 40) == list(range(40))
        assert keep([SQUARE] * 5, [0.5] * 5) == [0]
        assert keep(far[:2], [0.0, -0.0]) == [0, 1]

    def test_suppression_is_strict(self, mode):
        half = [0.0, 0.0, 10.0, 5.0]  # IoU with SQUARE is exactly 1/2.
        assert keep([SQUARE, half], [0.9, 0.8], 0.5) == [0, 1]
        assert keep([SQUARE, half], [0.9, 0.8], math.nextafter(0.5, 0)) == [0]

    def test_the_threshold_is_a_double(self, mode):
        """In float32 the IoU of 3/10 is above the double 0.3, as torchvision's CPU kernel has it."""
        third = [0.0, 0.0, 10.0, 3.0]
        assert keep([SQUARE, third], [0.9, 0.8], 0.3) == [0]
        assert keep([SQUARE, third], [0.9, 0.8], 0.3, torch.float64) == [0, 1]

    def test_a_suppressed_box_suppresses_nothing(self, mode):
        chain = [[float(4 * i), 0, float(4 * i + 10), 10] for i in range(6)]
        assert keep(chain, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], 0.4) == [0, 2, 4]

    @pytest.mark.parametrize(
        "box",
        [[5.0, 5, 5, 5], [8.0, 8, 2, 2], [8.0, 2, 2, 8], [math.nan, 0, 10, 10], [0.0, 0, math.inf, math.inf]],
    )
    @pytest.mark.parametrize("threshold", [0.0, 0.5])
    def test_odd_boxes_neither_suppress_nor_are_suppressed(self, mode, box, threshold):
        assert keep([box, SQUARE, box], [0.9, 0.8, 0.7], threshold) == [0, 1, 2]

    def test_below_zero_disjoint_boxes_suppress_each_other(self, mode):
        assert keep([SQUARE, [50.0, 50, 60, 60], [math.nan] * 4], [0.9, 0.8, 0.7], -0.5) == [0, 2]

    def test_minus_zero_is_zero(self, mode):
        touching = [[0.0, 0, 10, 10], [9.0, 0, 19, 10], [10.0, 0, 20, 10]]
        assert keep(touching, [0.9, 0.8, 0.7], -0.0) == keep(touching, [0.9, 0.8, 0.7], 0.0) == [0, 2]

    def test_a_nan_threshold_is_above_nothing(self, mode):
        assert keep([SQUARE, SQUARE], [0.9, 0.8], math.nan) == [0, 1]

    def test_nan_scores_come_first(self, mode):
        far = [[100.0 * i, 0, 100 * i + 10, 10] for i in range(3)]
        assert keep(far, [0.5, math.nan, math.inf]) == [1, 2, 0]

    def test_shifted_and_scaled_boxes(self, mode):
        boxes = [[0.0, 0, 10, 10], [1.0, 1, 11, 11], [30.0, 30, 40, 40]]
        for scale, shift in [(1, -5000), (1024, 0), (2**-20, 0), (1, 1e6)]:
            moved = [[v * scale + shift for v in b] for b in boxes]
            assert keep(moved, [0.9, 0.8, 0.7]) == [0, 2]

    def test_mixed_dtypes(self, mode):
        boxes = torch.tensor([SQUARE, SQUARE])
        for dtype in (torch.float16, torch.bfloat16, torch.float64):
            assert ops.nms(boxes, torch.tensor([0.25, 0.5], dtype=dtype), 0.5).tolist() == [1]
            assert ops.nms(boxes.to(dtype), torch.tensor([0.25, 0.5]), 0.5).tolist() == [1]


@st.composite
def scenes(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    count = draw(st.sampled_from([1, 2, 17, 60, 513, 900]))
    spread = draw(st.sampled_from([1e-3, 1.0, 200.0, 3000.0]))
    size = draw(st.sampled_from([1.0, 100.0, 1000.0]))
    centres = torch.rand(count, 2, generator=generator, dtype=torch.float64) * spread
    if draw(st.booleans()):  # A few objects, many proposals around each.
        centres = centres[torch.randint(min(count, 5), (count,), generator=generator)]
        centres = centres + torch.randn(count, 2, generator=generator, dtype=torch.float64) * size / 8
    sides = torch.rand(count, 2, generator=generator, dtype=torch.float64) * size
    boxes = torch.cat([centres - sides / 2, centres + sides / 2], 1)
    if draw(st.booleans()):  # One box far from all others must not change the rest.
        boxes[0] += draw(st.sampled_from([1e6, -1e6, 1e30]))
    if draw(st.booleans()):
        boxes = boxes.round()
    scores = torch.rand(count, generator=generator)
    if draw(st.booleans()):
        scores = (scores * 4).round() / 4
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]))
    return boxes.to(dtype), scores, draw(st.sampled_from([0.0, 1e-6, 0.1, 0.3, 0.5, 0.7, 0.95, 1.0, 2.0]))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(scenes())
def test_random_scenes(scene):
    with reference_mode():
        expected = ops.nms(*scene)
    assert torch.equal(ops.nms(*scene), expected)


@pytest.mark.parametrize("threshold", [-0.0, 0.3])
def test_a_few_wide_boxes_among_many(threshold):
    generator = torch.Generator().manual_seed(0)
    boxes, scores = random_boxes(5000, generator, largest=10.0), torch.rand(5000, generator=generator)
    boxes[:50, 2:] += 500
    with reference_mode():
        expected = ops.nms(boxes, scores, threshold)
    assert torch.equal(ops.nms(boxes, scores, threshold), expected)


def test_numbers_of_numpy():
    assert ops.nms(torch.tensor([SQUARE, SQUARE]), torch.tensor([0.1, 0.2]), np.float32(0.5)).tolist() == [1]


@pytest.mark.skipif(not _backend.cpu.available, reason="the compiled kernels' own checks")
@pytest.mark.parametrize(
    "boxes, scores", [((3, 5), (3,)), ((3, 4), (2,)), ((3, 4), (4,)), ((12,), (3,)), ((3, 4), (3, 1))]
)
def test_the_kernel_checks_what_it_is_called_with(boxes, scores):
    with pytest.raises(RuntimeError):
        torch.ops.fastcnn.nms(torch.zeros(boxes), torch.zeros(scores), 0.5)


BOXES, SCORES = torch.zeros(3, 4), torch.zeros(3)
BAD = {
    "5 wide": ((torch.zeros(3, 5), SCORES, 0.5), ValueError, r"boxes of shape \[N, 4\], got \[3, 5\]"),
    "boxes rank": ((torch.zeros(4), SCORES, 0.5), ValueError, r"boxes of shape \[N, 4\], got \[4\]"),
    "scores rank": (
        (BOXES, SCORES[None], 0.5),
        ValueError,
        r"scores of shape \[3\] for 3 boxes, got \[1, 3\]",
    ),
    "scores count": ((BOXES, SCORES[:2], 0.5), ValueError, r"scores of shape \[3\] for 3 boxes, got \[2\]"),
    "int boxes": (
        (BOXES.long(), SCORES, 0.5),
        TypeError,
        r"boxes of a floating-point dtype, got torch\.int64",
    ),
    "int scores": (
        (BOXES, SCORES.long(), 0.5),
        TypeError,
        r"scores of a floating-point dtype, got torch\.int64",
    ),
    "no tensor": (([[0, 0, 1, 1]], SCORES, 0.5), TypeError, "expected boxes to be a tensor, got list"),
    "threshold": ((BOXES, SCORES, "0.5"), TypeError, "iou_threshold to be a number, got str '0.5'"),
    "threshold none": ((BOXES, SCORES, None), TypeError, "iou_threshold to be a number, got NoneType None"),
    "devices": ((BOXES, SCORES.to("meta"), 0.5), ValueError, "boxes on cpu, scores on meta"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    args, error, message = BAD[name]
    with pytest.raises(error, match=message) as caught:
        ops.nms(*args)
    assert "\n" not in str(caught.value)
