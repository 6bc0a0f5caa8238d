"""COCO's figures through pycocotools: perfect and worked cases, sizes, masks, and agreement with VOC's."""

import math
import sys

import pytest
import torch

from fastcnn.data import Scenes
from fastcnn.metrics import CocoMetrics, VOCMetrics

pytest.importorskip("pycocotools")

FIGURES = {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl", "per_class"}


def target(boxes, **more):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return {"boxes": boxes, "labels": torch.ones(len(boxes), dtype=torch.int64), **more}


def prediction(boxes, scores, **more):
    return target(boxes, scores=torch.tensor(scores), **more)


def evaluate(predictions, targets, *iou_types):
    metrics = CocoMetrics(iou_types or ("bbox",))
    metrics.update(predictions, targets)
    return metrics.compute()


def test_perfect_detections_of_boxes_and_masks(capsys):
    targets = [found for _, found in Scenes(5, 160, radius=(0.05, 0.45))]
    predictions = [
        {**found, "scores": torch.rand(len(found["labels"])), "masks": found["masks"][:, None].float() * 0.8}
        for found in targets
    ]
    result = evaluate(predictions, targets, "bbox", "segm")
    assert set(result) == {"bbox", "segm"} and set(result["bbox"]) == FIGURES
    for figures in result.values():
        assert all(figures[name] == pytest.approx(1) for name in ("AP", "AP50", "AP75", "APs", "APm", "AR100"))
        assert set(figures["per_class"]) == set(torch.cat([found["labels"] for found in targets]).tolist())
        assert all(value == pytest.approx(1) for value in figures["per_class"].values())
    assert capsys.readouterr().out == ""


def test_overlap_on_paper():
    """IoU 0.8 of the one object: right at thresholds 0.5, 0.55, ... 0.8, seven of ten. Area 100 is small."""
    figures = evaluate([prediction([[0, 0, 10, 8]], [0.9])], [target([[0, 0, 10, 10]])])["bbox"]
    assert figures["AP"] == pytest.approx(0.7) and figures["AP50"] == figures["AP75"] == pytest.approx(1)
    assert figures["APs"] == pytest.approx(0.7) and math.isnan(figures["APm"]) and math.isnan(figures["APl"])
    assert figures["per_class"] == {1: pytest.approx(0.7)}


def test_recall_on_paper():
    """One of two found, after a wrong one: precision 1/2 up to recall 1/2, which 51 of 101 points reach."""
    detected = prediction([[50, 50, 60, 60], [0, 0, 10, 10]], [0.9, 0.8])
    figures = evaluate([detected], [target([[0, 0, 10, 10], [20, 0, 30, 10]])])["bbox"]
    assert figures["AP50"] == pytest.approx(51 / 101 / 2) and figures["AR100"] == pytest.approx(1 / 2)
    assert figures["AR1"] == 0


def test_sizes_go_by_the_area_given():
    box = [0, 0, 40, 40]
    figures = evaluate([prediction([box], [0.9])], [target([box], area=torch.tensor([1000.0]))])["bbox"]
    assert figures["APs"] == pytest.approx(1) and math.isnan(figures["APm"])
    figures = evaluate([prediction([box], [0.9])], [target([box])])["bbox"]
    assert math.isnan(figures["APs"]) and figures["APm"] == pytest.approx(1)


@pytest.mark.parametrize("key", ["iscrowd", "difficult"])
def test_crowds_count_neither_way(key):
    crowd = torch.tensor([0, 1])
    detected = prediction([[51, 51, 60, 60], [0, 0, 10, 10]], [0.9, 0.8])
    figures = evaluate([detected], [target([[0, 0, 10, 10], [50, 50, 80, 80]], **{key: crowd})])["bbox"]
    assert figures["AP"] == pytest.approx(1)


def test_masks_are_judged_by_their_pixels():
    """The same boxes; of the mask, half is detected: an IoU of 1/2 is right at the first threshold alone."""
    whole, half = torch.zeros(1, 20, 20, dtype=torch.uint8), torch.zeros(1, 1, 20, 20)
    whole[:, :10, :10], half[..., :5, :10] = 1, 1
    detected = prediction([[0, 0, 10, 10]], [0.9], masks=half)
    result = evaluate([detected], [target([[0, 0, 10, 10]], masks=whole)], "bbox", "segm")
    assert result["bbox"]["AP"] == pytest.approx(1)
    assert result["segm"]["AP50"] == pytest.approx(1) and result["segm"]["AP"] == pytest.approx(0.1)


def test_nothing():
    empty = evaluate([prediction([], [])], [target([])])["bbox"]
    assert math.isnan(empty["AP"]) and empty["per_class"] == {}
    assert evaluate([prediction([], [])], [target([[0, 0, 9, 9]])])["bbox"]["AP"] == 0
    wrong = evaluate([prediction([[0, 0, 9, 9]], [0.5])], [target([])])["bbox"]
    assert math.isnan(wrong["AP"]) and math.isnan(wrong["per_class"][1])
    masks = {"masks": torch.zeros(0, 1, 8, 8)}
    assert math.isnan(evaluate([prediction([], [], **masks)], [target([], **masks)], "segm")["segm"]["AP"])


def test_ap50_is_vocs_all_point_up_to_interpolation():
    """COCO's mean over 101 recalls is VOC's area as a sum of strips, each 1/100 wide: off by at most that of one strip,
    times the fall of precision, below 0.01."""
    generator = torch.Generator().manual_seed(0)
    coco, voc = CocoMetrics(), VOCMetrics()
    for _, found in Scenes(30, 96, seed=4, classes=["circle", "ring", "star"]):
        moved = found["boxes"] + 2.5 * torch.randn(found["boxes"].shape, generator=generator)
        noise = torch.rand(2, 2, generator=generator) * 48
        boxes = torch.cat((moved, torch.cat((noise, noise + 20), 1)))
        labels = torch.cat((found["labels"], torch.randint(1, 4, (2,), generator=generator)))
        scores = torch.rand(len(labels), generator=generator)
        for metrics in (coco, voc):
            metrics.update([{"boxes": boxes, "labels": labels, "scores": scores}], [found])
    ap50, area = coco.compute()["bbox"]["AP50"], voc.compute()["mAP"]
    assert 0.2 < area < 0.95
    assert ap50 == pytest.approx(area, abs=0.01)
    coco.reset()
    assert math.isnan(coco.compute()["bbox"]["AP"])


def test_masks_are_wanted():
    metrics = CocoMetrics(("bbox", "segm"))
    with pytest.raises(ValueError, match=r"predictions\[0\] has no 'masks'"):
        metrics.update([prediction([], [])], [target([])])
    with pytest.raises(ValueError, match=r"targets\[0\]\['masks'\] must be \(1, H, W\), got \(2, 4, 4\)"):
        metrics.update(
            [prediction([], [], masks=torch.zeros(0, 4, 4))], [target([[0, 0, 4, 4]], masks=torch.zeros(2, 4, 4))]
        )
    assert metrics._images == []


def test_bad_arguments(monkeypatch):
    with pytest.raises(ValueError, match=r"iou_types must be of bbox, segm, got \('boxes',\)"):
        CocoMetrics(("boxes",))
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(ImportError, match=r"^COCO's metrics needs pycocotools: pip install 'fastcnn\[detection\]'$"):
        CocoMetrics()
