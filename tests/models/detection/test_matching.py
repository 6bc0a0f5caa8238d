"""Box arithmetic, coders, matchers and samplers: hand-computed values and what the papers say of them."""

import math

import pytest
import torch

from fastcnn.models.detection.boxes import box_iou, clip_boxes, generalized_box_iou, image_limits, is_large
from fastcnn.models.detection.coders import BoxCoder
from fastcnn.models.detection.matchers import IGNORED, NEGATIVE, Matcher, SSDMatcher
from fastcnn.models.detection.samplers import hard_negatives, sample_balanced, sample_regions

NONE = NEGATIVE


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_boxes(count, seed, dtype=torch.float64):
    corner, sides = torch.rand(2, count, 2, generator=seeded(seed), dtype=dtype)
    return torch.cat((corner, corner + sides + 0.01), 1) * 100


def test_iou():
    unit, half, apart = [0.0, 0, 1, 1], [0.5, 0, 1.5, 1], [5.0, 5, 6, 6]
    found = box_iou(torch.tensor([unit, half]), torch.tensor([unit, half, apart]))
    torch.testing.assert_close(found, torch.tensor([[1, 1 / 3, 0], [1 / 3, 1, 0]]))
    assert box_iou(torch.empty(0, 4), torch.tensor([unit])).shape == (0, 1)


def test_giou_by_hand():
    """Of squares side by side the box around is full; two of four squares are of neither; far apart it nears -1."""
    unit, beside, across, far = [0.0, 0, 1, 1], [1.0, 0, 2, 1], [1.0, 1, 2, 2], [999.0, 0, 1000, 1]
    found = generalized_box_iou(torch.tensor([unit]), torch.tensor([unit, beside, across, far, [0.5, 0, 1.5, 1]]))
    torch.testing.assert_close(found, torch.tensor([[1, 0, -0.5, -0.998, 1 / 3]]))
    boxes = random_boxes(20, 1)
    giou, iou = generalized_box_iou(boxes, boxes), box_iou(boxes, boxes)
    assert bool((giou <= iou + 1e-12).all()) and bool((giou >= -1).all())
    torch.testing.assert_close(giou, giou.T)


def test_clip_and_small_boxes():
    boxes = torch.tensor([[-5.0, 2, 30, 40], [1, 1, 1, 9], [math.nan, 0, 5, 5]])
    clipped = clip_boxes(boxes, image_limits([(20, 10)], boxes))
    assert clipped[0].tolist() == [0, 2, 10, 20]
    assert is_large(clipped, 1e-3).tolist() == [True, False, False]


def test_codes_by_hand():
    """Shifted by half a side and twice as wide."""
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    anchor, box = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 20, 10]])
    torch.testing.assert_close(coder.encode(box, anchor), torch.tensor([[5, 0, 5 * math.log(2), 0]]))


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_decoding_inverts_encoding(weights):
    coder, boxes, anchors = BoxCoder(weights), random_boxes(50, 0), random_boxes(50, 1)
    torch.testing.assert_close(coder.decode(coder.encode(boxes, anchors), anchors), boxes)


def test_decoding_clamps_sides():
    found = BoxCoder().decode(torch.tensor([[0.0, 0, 100, 100]]), torch.tensor([[0.0, 0, 16, 16]]))
    torch.testing.assert_close(found[0, 2] - found[0, 0], torch.tensor(1000.0))
    half = BoxCoder().decode(torch.zeros(1, 4, dtype=torch.bfloat16), torch.tensor([[0.0, 0, 1001, 777]]))
    assert half.tolist() == [[0, 0, 1001, 777]]


def test_rpn_matching():
    """Positive from 0.7 on and for the best anchor of a box, negative below 0.3, ignored between."""
    iou = torch.tensor([[0.8, 0.5, 0.1, 0.0, 0.2], [0.1, 0.0, 0.1, 0.4, 0.4]])
    assert Matcher(0.7, 0.3)(iou).tolist() == [0, IGNORED, NONE, IGNORED, IGNORED]
    assert Matcher(0.7, 0.3, keep_best=True)(iou).tolist() == [0, IGNORED, NONE, 1, 1]
    assert Matcher(0.5, 0.5)(iou).tolist() == [0, 0, NONE, NONE, NONE]


def test_a_box_that_no_anchor_overlaps_has_no_best_anchor():
    iou = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.2, 0.0]])
    assert Matcher(0.7, 0.3, keep_best=True)(iou).tolist() == [NONE, 1, NONE]


@pytest.mark.parametrize("matcher", [Matcher(0.7, 0.3, keep_best=True), SSDMatcher()])
def test_nothing_to_match(matcher):
    assert matcher(torch.empty(0, 3)).tolist() == [NONE] * 3
    assert matcher(torch.empty(2, 0)).tolist() == []


def test_ssd_matching():
    """The best default box of each box, and all above (not at) 0.5."""
    iou = torch.tensor([[0.5, 0.6, 0.2, 0.0], [0.1, 0.0, 0.3, 0.2]])
    assert SSDMatcher()(iou).tolist() == [NONE, 0, 1, NONE]


def test_every_box_gets_a_default_box():
    """Three boxes have the same best: the largest IoU wins, the others take the next."""
    iou = torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.3, 0.1], [0.7, 0.4, 0.3]])
    assert SSDMatcher()(iou).tolist() == [0, 2, 1] or sorted(SSDMatcher()(iou).tolist()) == [0, 1, 2]
    for seed in range(20):
        random = torch.rand(6, 8, generator=seeded(seed)) ** 4
        random[1:] = random[:1] + random[1:] * 0.01  # All prefer the same.
        assert set(range(6)) <= set(SSDMatcher()(random).tolist())
    crowded = SSDMatcher()(torch.ones(5, 2))
    assert len(crowded) == 2 and (crowded >= 0).all()


def test_thresholds_are_ordered():
    with pytest.raises(ValueError, match=r"0 <= low <= high, got low 0\.7 and high 0\.3"):
        Matcher(0.3, 0.7)


def test_balanced_sampling():
    labels = torch.tensor([1] * 10 + [0] * 500 + [-1] * 50)
    positive, negative = sample_balanced(labels, 256, 0.5, seeded())
    assert len(positive) == 10 and len(negative) == 246
    assert (labels[positive] == 1).all() and (labels[negative] == 0).all()
    many = torch.tensor([3] * 300 + [0] * 100)
    assert [len(each) for each in sample_balanced(many, 256, 0.5, seeded())] == [128, 100]
    again = sample_balanced(labels, 256, 0.5, seeded())
    assert torch.equal(again[1], negative)
    assert not torch.equal(sample_balanced(labels, 256, 0.5, seeded(1))[1], negative)
    assert [len(each) for each in sample_balanced(torch.empty(0), 256, 0.5)] == [0, 0]


def test_region_wise_sampling_is_of_all_images():
    labels = [torch.tensor([1] * 20 + [0] * 180)] * 50
    found = sample_regions(labels, 128, 0.25, generator=seeded())
    assert sum(map(len, found)) == 128
    assert sum(len(each) > 0 for each in found) > 25
    assert sum(int((label[each] > 0).sum()) for label, each in zip(labels, found, strict=True)) == 32
    for label, each in zip(labels, found, strict=True):
        assert ((each >= 0) & (each < len(label))).all() and len(each.unique()) == len(each)


def test_hierarchical_sampling_is_of_two_images():
    labels = [torch.tensor([1] * 20 + [0] * 180)] * 50
    found = sample_regions(labels, 128, 0.25, images=2, generator=seeded())
    assert sorted(map(len, found))[-3:] == [0, 64, 64]
    again = sample_regions(labels, 128, 0.25, images=2, generator=seeded())
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    for images in (0, 51, 3):
        with pytest.raises(ValueError, match=f"images must be 1 to 50 and divide 128, got {images}"):
            sample_regions(labels, 128, images=images)


def test_hard_negatives_are_the_worst_three_of_each_positive():
    loss = torch.tensor([[0.1, 0.9, 0.5, 0.7, 0.3, 5.0], [1.0, 1, 1, 1, 1, 1], [3.0, 2, 1, 0, 0, 0]])
    positive = torch.zeros(3, 6, dtype=torch.bool)
    positive[0, 5] = positive[2, :5] = True
    found = hard_negatives(loss, positive)
    assert found.tolist() == [[False, True, True, True, False, False], [False] * 6, [False] * 5 + [True]]
