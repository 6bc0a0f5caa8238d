"""Accuracies and IUs of toy maps, worked on paper, and against a loop over classes."""

import math

import pytest
import torch

from fastcnn.metrics import SegmentationMetrics

TARGET = torch.tensor([[0, 0, 0, 0], [0, 0, 1, 1], [1, 1, 2, 255]])
FOUND = torch.tensor([[0, 0, 0, 0], [0, 1, 1, 1], [1, 0, 2, 2]])


def metrics_of(found, target, classes=3, **options):
    metrics = SegmentationMetrics(classes, **options)
    metrics.update(found, target)
    return metrics


def test_toy_maps_on_paper():
    """Class 0: 6 pixels, 5 right, 1 more taken for it; class 1: 4, 3 right, 1 more; class 2: 1, right, without 255."""
    metrics = metrics_of(FOUND, TARGET)
    assert metrics.matrix.tolist() == [[5, 1, 0], [1, 3, 0], [0, 0, 1]]
    found = metrics.compute()
    assert found["pixel_accuracy"] == pytest.approx(9 / 11)
    assert found["mean_accuracy"] == pytest.approx((5 / 6 + 3 / 4 + 1) / 3)
    assert found["iu"] == {0: pytest.approx(5 / 7), 1: pytest.approx(3 / 5), 2: 1}
    assert found["mean_iu"] == pytest.approx((5 / 7 + 3 / 5 + 1) / 3)
    assert found["frequency_weighted_iu"] == pytest.approx((6 * 5 / 7 + 4 * 3 / 5 + 1) / 11)


def test_perfect_and_all_wrong():
    perfect = metrics_of(TARGET.clamp(max=2), TARGET).compute()
    assert perfect.pop("iu") == {0: 1, 1: 1, 2: 1} and set(perfect.values()) == {1}
    wrong = metrics_of((TARGET + 1) % 3, TARGET).compute()
    assert wrong.pop("iu") == {0: 0, 1: 0, 2: 0} and set(wrong.values()) == {0}


def test_classes_absent_from_the_truth():
    """Of five, 3 is in neither and has no IU; 4 was found where it is not: an IU of 0, and no accuracy."""
    target, found = torch.tensor([[0, 0, 1, 2]]), torch.tensor([[0, 0, 1, 4]])
    result = metrics_of(found, target, 5).compute()
    assert math.isnan(result["iu"][3]) and result["iu"][4] == 0
    assert result["mean_iu"] == pytest.approx((1 + 1 + 0 + 0) / 4)
    assert result["mean_accuracy"] == pytest.approx((1 + 1 + 0) / 3)
    assert result["frequency_weighted_iu"] == pytest.approx(3 / 4)


def test_logits_are_their_best_class_and_images_add_up():
    logits, target = torch.randn(2, 4, 9, 7), torch.randint(0, 4, (2, 9, 7))
    target[torch.rand(2, 9, 7) < 0.2] = 255
    whole = metrics_of(logits, target, 4)
    apart = [metrics_of(each, wanted, 4) for each, wanted in zip(logits, target, strict=True)]
    apart[0].merge(apart[1])
    assert torch.equal(whole.matrix, metrics_of(logits.argmax(1), target, 4).matrix)
    assert torch.equal(whole.matrix, apart[0].matrix) and whole.matrix.sum() == (target != 255).sum()
    labels, kept = logits.argmax(1), target != 255
    for label, iu in whole.compute()["iu"].items():
        mine, wanted = (labels == label) & kept, target == label
        assert iu == pytest.approx(((mine & wanted).sum() / (mine | wanted).sum()).item())
    whole.reset()
    assert whole.matrix.sum() == 0


def test_nothing():
    figures = metrics_of(FOUND, torch.full_like(TARGET, 255)).compute()
    assert all(math.isnan(value) for value in (*figures.pop("iu").values(), *figures.values()))


def test_another_ignored_label():
    masked = torch.where(TARGET == 255, -1, TARGET)
    assert torch.equal(metrics_of(FOUND, masked, ignore_index=-1).matrix, metrics_of(FOUND, TARGET).matrix)


@pytest.mark.parametrize(
    ("found", "target", "error", "message"),
    [
        (FOUND, TARGET.float(), TypeError, "target must be integers, got torch.float32"),
        (FOUND[:2], TARGET, ValueError, r"prediction \(2, 4\) and target \(3, 4\) must be of one shape"),
        (torch.rand(2, 3, 4), TARGET, ValueError, r"logits must be \(N, 3, H, W\) or without N, got \(2, 3, 4\)"),
        (FOUND, TARGET + 1, ValueError, "target has the label 3, of 3 classes"),
        (FOUND - 1, TARGET, ValueError, "prediction has the label -1, of 3 classes"),
    ],
)
def test_bad_maps(found, target, error, message):
    metrics = SegmentationMetrics(3)
    with pytest.raises(error, match=message):
        metrics.update(found, target)
    assert metrics.matrix.sum() == 0


def test_bad_arguments():
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        SegmentationMetrics(0)
    with pytest.raises(ValueError, match="ignore_index 0 is one of 3 classes"):
        SegmentationMetrics(3, 0)
    with pytest.raises(ValueError, match="metrics of 3 and of 4 classes do not merge"):
        SegmentationMetrics(3).merge(SegmentationMetrics(4))
