"""Priors by IoU k-means."""

import itertools

import pytest
import torch

from fastcnn.models.detection import priors
from fastcnn.models.detection.priors import kmeans_anchors, mean_iou


def boxes(count=400):
    generator = torch.Generator().manual_seed(3)
    kinds = torch.tensor([[20.0, 30], [90, 40], [200, 260], [60, 180]])
    return kinds[torch.randint(4, (count,), generator=generator)] * (
        0.7 + 0.6 * torch.rand(count, 2, generator=generator)
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_mean_iou_never_falls_with_more_anchors(seed):
    sizes = boxes()
    scores = [mean_iou(sizes, kmeans_anchors(sizes, k, seed=seed)) for k in range(1, 13)]
    assert all(after >= before for before, after in itertools.pairwise(scores))
    assert scores[3] > 0.7 > scores[0]


def test_clusters_are_found():
    kinds = torch.tensor([[10.0, 20], [100, 50], [200, 300]])
    found = kmeans_anchors(kinds.repeat(20, 1) + torch.linspace(-1, 1, 60)[:, None], 3)
    assert found.shape == (3, 2) and found.dtype == torch.float64
    torch.testing.assert_close(found, kinds.double(), rtol=0.02, atol=0.1)


def test_seeded_and_free_of_units():
    sizes = boxes()
    found = kmeans_anchors(sizes, 5)
    assert torch.equal(found, kmeans_anchors(sizes, 5))
    torch.testing.assert_close(kmeans_anchors(sizes * 32, 5), found * 32)
    corners = torch.cat([torch.full_like(sizes, 7.0), sizes + 7], 1)
    torch.testing.assert_close(kmeans_anchors(corners, 5), found, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.prod(1), found.prod(1).sort().values)


def test_mean_iou_by_hand():
    # 1/2 with the first, 1 with the second.
    assert mean_iou(torch.tensor([[2.0, 2], [8, 4]]), torch.tensor([[2.0, 1], [8, 4]])) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("given", "k", "error", "message"),
    [
        (torch.ones(5, 2), 2, ValueError, "between 1 and the 1 different sizes of the boxes, got 2"),
        (torch.ones(5, 2), 0, ValueError, "got 0"),
        (torch.ones(5, 2), 1.5, TypeError, "k must be an int, got 1.5"),
        (torch.ones(5, 3), 1, ValueError, r"sizes or \(N, 4\) corners, N at least 1, got \(5, 3\)"),
        (torch.ones(0, 2), 1, ValueError, r"got \(0, 2\)"),
        (torch.tensor([[1.0, 1], [0, 3]]), 1, ValueError, r"box 1 must be finite and have an area, got \[0.0, 3.0\]"),
        (torch.tensor([[4.0, 4, 4, 9]]), 1, ValueError, "box 0 must be finite and have an area"),
        (torch.tensor([[float("nan"), 1]]), 1, ValueError, "box 0"),
        (torch.ones(5, 2, dtype=torch.int64), 1, TypeError, "floating tensor, got torch.int64"),
    ],
)
def test_bad_boxes(given, k, error, message):
    with pytest.raises(error, match=message):
        kmeans_anchors(given, k)


def test_published_priors():
    assert [len(p) for p in (priors.YOLOV2_VOC, priors.YOLOV2_COCO, priors.YOLO9000, priors.YOLOV3_COCO)] == [
        5,
        5,
        3,
        9,
    ]
    areas = [width * height for width, height in priors.YOLOV3_COCO]
    assert areas == sorted(areas)
    assert [round(w * h) for w, h in priors.FASTER_RCNN] == [side**2 for side in (128, 256, 512) for _ in range(3)]
    assert {round(h / w, 6) for w, h in priors.FASTER_RCNN} == {0.5, 1, 2}
