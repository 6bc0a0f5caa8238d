"""What the contract suite does not say of suppression within classes: its rules by hand, brute force, bad input."""

import math

import numpy as np
import pytest
import torch
from nms_cases import brute_force, random_case

from fastcnn import _backend, ops, reference_mode
from fastcnn.ops import _library
from fastcnn.testing.spec import random_boxes

MODES = [_library.kernel_mode, reference_mode]
SQUARE = [0.0, 0.0, 10.0, 10.0]
NUMBERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool, torch.float32, torch.bfloat16]


def keep(boxes, scores, idxs, threshold=0.5):
    return ops.batched_nms(torch.tensor(boxes), torch.tensor(scores), torch.tensor(idxs), threshold).tolist()


@pytest.mark.parametrize("mode", MODES)
class TestRules:
    @pytest.fixture(autouse=True)
    def _mode(self, mode):
        with mode():
            yield

    def test_only_boxes_of_one_class_suppress_each_other(self, mode):
        assert keep([SQUARE] * 4, [0.1, 0.4, 0.3, 0.2], [7, -7, 7, -7]) == [1, 2]

    def test_ties_keep_their_order_across_classes(self, mode):
        assert keep([SQUARE] * 6, [0.5] * 6, [2, 1, 0, 2, 1, 0]) == [0, 1, 2]
        assert keep([SQUARE] * 3, [0.5, math.nan, math.inf], [0, 1, 2]) == [1, 2, 0]

    def test_far_coordinates_keep_their_precision(self, mode):
        """Moved to coordinates of their own, classes of this number round to boxes of another IoU."""
        third = [0.0, 0.0, 10.0, 3.0]
        for idx in (0, 2**24, 2**62, -(2**63)):
            assert keep([SQUARE, third], [0.9, 0.8], [idx, idx], 0.2999) == [0]
            assert keep([SQUARE, third], [0.9, 0.8], [idx, idx], 0.3001) == [0, 1]

    def test_classes_never_meet(self, mode):
        """Negative coordinates: the largest plus one is no distance to move a class by."""
        boxes = [[-100.0, -100, -1, -1], [-100.0, -100, -1, -1]]
        assert keep(boxes, [0.9, 0.8], [0, 1]) == [0, 1]

    @pytest.mark.parametrize("dtype", NUMBERS, ids=str)
    def test_classes_of_any_dtype(self, mode, dtype):
        idxs = torch.tensor([0, 1, 0, 1]).to(dtype)
        scores = torch.tensor([0.1, 0.2, 0.3, 0.4])
        assert ops.batched_nms(torch.tensor([SQUARE] * 4), scores, idxs, 0.5).tolist() == [3, 2]

    def test_classes_that_are_fractions_zeros_and_nan(self, mode):
        assert keep([SQUARE] * 4, [0.4, 0.3, 0.2, 0.1], [0.25, 0.5, 0.25, 0.5]) == [0, 1]
        assert keep([SQUARE] * 4, [0.4, 0.3, 0.2, 0.1], [0.0, -0.0, math.nan, math.nan]) == [0, 2]

    def test_close_large_classes(self, mode):
        assert keep([SQUARE] * 3, [0.3, 0.2, 0.1], [2**53, 2**53 + 1, 2**53]) == [0, 1]


@pytest.mark.parametrize("classes", [1, 3, 80, 5000])
def test_each_class_alone(classes):
    g = torch.Generator().manual_seed(classes)
    boxes, scores = random_boxes(5000, g, image=300.0), (torch.rand(5000, generator=g) * 500).round() / 500
    idxs = torch.randint(classes, (5000,), generator=g)
    kept = torch.zeros(5000, dtype=torch.bool)
    for i in range(classes):
        of_class = (idxs == i).nonzero()[:, 0]
        kept[of_class[ops.nms(boxes[of_class], scores[of_class], 0.4)]] = True
    order = scores.sort(descending=True, stable=True).indices
    wanted = order[kept[order]]
    assert torch.equal(ops.batched_nms(boxes, scores, idxs, 0.4), wanted)
    for size in (0, 1, 99, 700, 5000):
        indices, count = ops.batched_nms_padded(boxes, scores, idxs, 0.4, size)
        assert count == min(size, len(wanted))
        assert torch.equal(indices[:count], wanted[:size])
        assert (indices[count:] == -1).all()


@pytest.mark.parametrize("part", range(10))
def test_ten_thousand_random_cases_agree_with_brute_force(part):
    draw = np.random.default_rng(part)
    for number in range(1000):
        boxes, scores, idxs, threshold = random_case(draw)
        case = f"case {number} of part {part}: {boxes.tolist()} {scores.tolist()} {idxs.tolist()} {threshold}"
        assert ops.nms(boxes, scores, threshold).tolist() == brute_force(boxes, scores, idxs * 0, threshold), case
        kept = brute_force(boxes, scores, idxs, threshold)
        assert ops.batched_nms(boxes, scores, idxs, threshold).tolist() == kept, case
        size = int(draw.integers(0, 6))
        indices, count = ops.batched_nms_padded(boxes, scores, idxs, threshold, size)
        assert indices.tolist() == (kept + [-1] * size)[:size] and count == min(len(kept), size), case


@pytest.mark.skipif(not _backend.cpu.available, reason="the compiled kernels' own checks")
@pytest.mark.parametrize("boxes, scores, idxs", [((3, 5), 3, 3), ((3, 4), 2, 3), ((3, 4), 3, 4), ((12,), 3, 3)])
def test_the_kernel_checks_what_it_is_called_with(boxes, scores, idxs):
    with pytest.raises(RuntimeError):
        torch.ops.fastcnn.batched_nms(torch.zeros(boxes), torch.zeros(scores), torch.zeros(idxs).long(), 0.5)
    with pytest.raises(RuntimeError):
        torch.ops.fastcnn.batched_nms(torch.zeros(3, 4), torch.zeros(3), torch.zeros(3), 0.5)


BOXES, SCORES, IDXS = torch.zeros(3, 4), torch.zeros(3), torch.zeros(3, dtype=torch.long)
BAD = {
    "5 wide": ((torch.zeros(3, 5), SCORES, IDXS, 0.5), ValueError, r"boxes of shape \[N, 4\], got \[3, 5\]"),
    "boxes rank": ((BOXES[None], SCORES, IDXS, 0.5), ValueError, r"boxes of shape \[N, 4\], got \[1, 3, 4\]"),
    "scores count": ((BOXES, SCORES[:2], IDXS, 0.5), ValueError, r"scores of shape \[3\] .* got \[2\]"),
    "idxs count": ((BOXES, SCORES, IDXS[:2], 0.5), ValueError, r"idxs of shape \[3\] .* got \[2\]"),
    "idxs rank": ((BOXES, SCORES, IDXS[:, None], 0.5), ValueError, r"idxs of shape \[3\] .* got \[3, 1\]"),
    "int boxes": ((BOXES.long(), SCORES, IDXS, 0.5), TypeError, r"boxes of a floating-point dtype, got torch\.int64"),
    "no idxs": ((BOXES, SCORES, [0, 0, 0], 0.5), TypeError, "idxs to be a tensor, got list"),
    "complex idxs": ((BOXES, SCORES, IDXS * 1j, 0.5), TypeError, "idxs of real numbers, got torch.complex64"),
    "threshold": ((BOXES, SCORES, IDXS, "0.5"), TypeError, "iou_threshold to be a number, got str '0.5'"),
    "devices": ((BOXES, SCORES, IDXS.to("meta"), 0.5), ValueError, "boxes on cpu, scores on cpu, idxs on meta"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    args, error, message = BAD[name]
    with pytest.raises(error, match=f"batched_nms: .*{message}") as caught:
        ops.batched_nms(*args)
    assert "\n" not in str(caught.value)
