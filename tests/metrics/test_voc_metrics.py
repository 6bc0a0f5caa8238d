"""VOC's average precision against values worked out on paper, and against a loop over detections."""

import math

import pytest
import torch

from fastcnn.data import Scenes
from fastcnn.metrics import VOCMetrics, average_precision
from fastcnn.models.detection.boxes import box_iou


def target(boxes, labels=None, **more):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return {"boxes": boxes, "labels": torch.tensor(labels or [1] * len(boxes), dtype=torch.int64), **more}


def prediction(boxes, scores, labels=None):
    return target(boxes, labels) | {"scores": torch.tensor(scores)}


def evaluate(predictions, targets, **options):
    metrics = VOCMetrics(**options)
    metrics.update(predictions, targets)
    return metrics.compute()


A, B, C, FAR = [0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [70, 70, 80, 80]


@pytest.mark.parametrize(
    ("right", "positives", "area", "eleven"),
    [
        # Precision 1, 1/2, 2/3, 2/4 at recall 1/4, 1/4, 2/4, 2/4. Area: 1/4 * 1 + 1/4 * 2/3 = 5/12. Eleven points: 1 at
        # 0, 0.1, 0.2; 2/3 at 0.3, 0.4, 0.5; 0 beyond: (3 + 2) / 11.
        ([1, 0, 1, 0], 4, 5 / 12, 5 / 11),
        # Precision 0, 1/2, 2/3 at recall 0, 1/2, 1: made to fall, 2/3 everywhere.
        ([0, 1, 1], 2, 2 / 3, 2 / 3),
        # All found: 1. None found: 0. No detection: 0.
        ([1, 1, 1], 3, 1, 1),
        ([0, 0], 3, 0, 0),
        ([], 3, 0, 0),
        # Recall of exactly 3/10 reaches the point 0.3: 1 at 0, 0.1, 0.2, 0.3.
        ([1, 1, 1, 0], 10, 3 / 10, 4 / 11),
        # One of ten found: 1 at 0 and at 0.1.
        ([1], 10, 1 / 10, 2 / 11),
        # One of eleven found: recall 0.0909 does not reach 0.1.
        ([1], 11, 1 / 11, 1 / 11),
    ],
)
def test_on_paper(right, positives, area, eleven):
    right = torch.tensor(right, dtype=torch.bool)
    assert average_precision(right, positives) == pytest.approx(area, abs=1e-12)
    assert average_precision(right, positives, "11-point") == pytest.approx(eleven, abs=1e-12)


@pytest.mark.parametrize("interpolation", ["all-point", "11-point"])
def test_perfect_detections(interpolation):
    targets = [found for _, found in Scenes(6, 64)]
    predictions = [{**found, "scores": torch.rand(len(found["labels"]))} for found in targets]
    result = evaluate(predictions, targets, interpolation=interpolation)
    assert result["mAP"] == 1 and set(result["AP"].values()) == {1.0}
    assert set(result["AP"]) == set(torch.cat([found["labels"] for found in targets]).tolist())


def test_two_images_and_a_second_detection_of_one_object():
    """By score: A right, A again wrong, far off wrong, B of the second image right, of three objects: precision 1, 1/2,
    1/3, 1/2; AP = 1/3 * 1 + 1/3 * 1/2 = 1/2."""
    predictions = [prediction([A, A, FAR], [0.9, 0.8, 0.7]), prediction([B], [0.6])]
    assert evaluate(predictions, [target([A, C]), target([B])])["mAP"] == pytest.approx(1 / 2)


def test_the_largest_overlap_is_the_one_that_counts():
    """The second detection overlaps A most, which is taken, and not B, which it also overlaps enough: VOC's rule, by
    which it is wrong."""
    wide = [0, 0, 100, 10]
    shifted = [4, 0, 104, 10]
    detected = [1, 0, 101, 10]
    overlap = box_iou(torch.tensor([detected]).float(), torch.tensor([wide, shifted]).float())
    assert (overlap > 0.5).all() and overlap.argmax() == 0
    result = evaluate([prediction([wide, detected], [0.9, 0.8])], [target([wide, shifted])])
    assert result["mAP"] == pytest.approx(1 / 2)


def test_threshold_is_reached_by_equality():
    half = [0, 0, 10, 5]
    for threshold, expected in ((0.5, 1.0), (0.51, 0.0)):
        assert evaluate([prediction([half], [0.9])], [target([A])], iou_threshold=threshold)["mAP"] == expected


@pytest.mark.parametrize("key", ["difficult", "iscrowd"])
def test_difficult_objects_count_neither_way(key):
    """B is difficult: its two detections are left out, A's is right, C is not found. Without the mark there would be
    three objects and a wrong detection."""
    predictions = [prediction([B, B, A], [0.9, 0.8, 0.7])]
    marked = target([A, B, C], **{key: torch.tensor([0, 1, 0])})
    assert evaluate(predictions, [marked])["mAP"] == pytest.approx(1 / 2)
    # Precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3.
    assert evaluate(predictions, [target([A, B, C])])["mAP"] == pytest.approx(1 / 3 + 1 / 3 * 2 / 3)


def test_classes_are_apart():
    """A found as class 2 is wrong there, where B is; class 3 has no object, and a difficult one alone is as none."""
    predictions = [prediction([A, B, FAR, C], [0.9, 0.8, 0.7, 0.6], [2, 2, 3, 4])]
    marked = target([A, B, C], [1, 2, 4], difficult=torch.tensor([False, False, True]))
    result = evaluate(predictions, [marked])
    assert result["AP"][1] == 0 and result["AP"][2] == pytest.approx(1 / 2)
    assert math.isnan(result["AP"][3]) and math.isnan(result["AP"][4])
    assert result["mAP"] == pytest.approx(1 / 4)


def test_nothing():
    empty = evaluate([], [])
    assert math.isnan(empty["mAP"]) and empty["AP"] == {}
    none = evaluate([prediction([], [])], [target([])])
    assert math.isnan(none["mAP"]) and none["AP"] == {}
    assert evaluate([prediction([], [])], [target([A])]) == {"mAP": 0.0, "AP": {1: 0.0}}
    wrong = evaluate([prediction([A], [0.9])], [target([])])
    assert math.isnan(wrong["mAP"]) and math.isnan(wrong["AP"][1])


def test_boxes_without_area_are_wrong():
    flat = [5, 5, 5, 5]
    assert evaluate([prediction([flat], [0.9])], [target([flat])])["mAP"] == 0


def looped(predictions, targets, label, threshold=0.5):
    """The development kit's procedure as it is told: one detection after another."""
    rows = [
        (-float(score), image, box)
        for image, found in enumerate(predictions)
        for box, score, of in zip(found["boxes"], found["scores"], found["labels"], strict=True)
        if of == label
    ]
    objects = [found["boxes"][found["labels"] == label] for found in targets]
    hard = [found["difficult"][found["labels"] == label] for found in targets]
    seen, right = set(), []
    for _, image, box in sorted(rows, key=lambda row: row[0]):
        overlap = box_iou(box[None].double(), objects[image].double())[0] if len(objects[image]) else torch.zeros(1)
        best = int(overlap.argmax())
        if overlap[best] >= threshold and hard[image][best]:
            continue
        right.append(bool(overlap[best] >= threshold) and (image, best) not in seen)
        seen |= {(image, best)} if right[-1] else set()
    return right, int(sum((~each).sum() for each in hard))


def random_images(count, generator):
    targets, predictions = [], []
    for _, found in Scenes(count, 64, seed=1, classes=["circle", "ring"], objects=(0, 6)):
        boxes, labels = found["boxes"].repeat(3, 1), found["labels"].repeat(3)
        boxes = boxes + 3 * torch.randn(boxes.shape, generator=generator)
        boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        labels = torch.where(torch.rand(len(labels), generator=generator) < 0.1, 3 - labels, labels)
        scores = torch.rand(len(labels), generator=generator)
        predictions.append({"boxes": boxes, "labels": labels, "scores": scores})
        difficult = torch.rand(len(found["labels"]), generator=generator) < 0.2
        targets.append({"boxes": found["boxes"], "labels": found["labels"], "difficult": difficult})
    return predictions, targets


def test_as_a_loop_over_detections():
    predictions, targets = random_images(25, torch.Generator().manual_seed(0))
    for interpolation in ("all-point", "11-point"):
        metrics = VOCMetrics(interpolation=interpolation)
        for begin in range(0, 25, 4):
            metrics.update(predictions[begin : begin + 4], targets[begin : begin + 4])
        result = metrics.compute()
        for label in (1, 2):
            right, positives = looped(predictions, targets, label)
            assert 0 < sum(right) < len(right)
            expected = average_precision(torch.tensor(right), positives, interpolation)
            assert result["AP"][label] == pytest.approx(expected, abs=1e-12)
    metrics.reset()
    assert metrics.compute()["AP"] == {}


@pytest.mark.parametrize(
    ("predictions", "targets", "message"),
    [
        ([], [target([A])], "must be of the same images, got 0 and 1"),
        ([target([A])], [target([A])], "predictions[0] has no 'scores'"),
        ([prediction([A], [0.5])], [{"boxes": torch.zeros(0, 4)}], "targets[0] has no 'labels'"),
        ([prediction([A], [0.5, 0.5])], [target([A])], "predictions[0]['scores'] must be (1,), got (2,)"),
        ([prediction([A], [math.nan])], [target([A])], "predictions[0]['scores'] has a NaN"),
        (
            [prediction([A], [0.5])],
            [target([A]) | {"boxes": torch.ones(4)}],
            "targets[0]['boxes'] must be (L, 4), got (4,)",
        ),
    ],
)
def test_bad_input(predictions, targets, message):
    with pytest.raises(ValueError) as error:
        VOCMetrics().update(predictions, targets)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"iou_threshold must be above 0 and at most 1, got 0$"):
        VOCMetrics(0)
    with pytest.raises(ValueError, match="interpolation must be all-point or 11-point, got '101'"):
        VOCMetrics(interpolation="101")
    with pytest.raises(ValueError, match="2 detections are right, of 1 objects"):
        average_precision(torch.tensor([True, True]), 1)
