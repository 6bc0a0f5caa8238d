"""Proposals and crops; those of OpenCV's where its contrib modules are installed."""

import pytest
import torch

from fastcnn.data import Scenes, edge_boxes, selective_search, sliding_windows, warp_crops
from fastcnn.models.detection.boxes import box_iou

IMAGE, TARGET = Scenes(1, 128, seed=1, radius=(0.15, 0.35))[0]


@pytest.fixture
def contrib():
    cv2 = pytest.importorskip("cv2", reason="OpenCV's contrib modules are of the extra 'detection'")
    if not hasattr(getattr(cv2, "ximgproc", None), "createEdgeBoxes"):
        pytest.skip("this OpenCV has no contrib modules, which are of the extra 'detection'")


def assert_boxes(boxes, limit):
    assert boxes.dtype == torch.float32 and 0 < len(boxes) <= limit
    assert bool(((boxes >= 0) & (boxes <= 128)).all()) and bool((boxes[:, 2:] > boxes[:, :2]).all())
    assert len(torch.unique(boxes, dim=0)) == len(boxes)


def test_selective_search(contrib):
    boxes = selective_search(IMAGE, limit=300)
    assert_boxes(boxes, 300)
    assert torch.equal(selective_search(IMAGE, limit=300), boxes)
    assert torch.equal(selective_search(IMAGE, limit=20), boxes[:20])
    assert float(box_iou(TARGET["boxes"], selective_search(IMAGE)).amax(1).min()) > 0.5
    with pytest.raises(ValueError, match="mode must be fast or quality, got 'slow'"):
        selective_search(IMAGE, "slow")


def test_edge_boxes(contrib):
    boxes, scores = edge_boxes(IMAGE, 100)
    assert_boxes(boxes, 100)
    assert scores.shape == (len(boxes),) and torch.equal(scores, scores.sort(descending=True).values)
    again, same = edge_boxes((IMAGE * 255).round().to(torch.uint8), 100)
    assert torch.equal(again, boxes) and torch.equal(same, scores)
    with pytest.raises(FileNotFoundError, match="no model file"):
        edge_boxes(IMAGE, model="no/such.yml.gz")


@pytest.mark.parametrize("find", [selective_search, edge_boxes])
def test_bad_images(contrib, find):
    with pytest.raises(ValueError, match=r"image must be \(3, H, W\), got \(1, 8, 8\)"):
        find(torch.zeros(1, 8, 8))
    with pytest.raises(TypeError, match="uint8 or floating"):
        find(torch.zeros(3, 8, 8, dtype=torch.int64))
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        find(IMAGE, limit=0)


def test_windows():
    windows = sliding_windows((6, 9), (4, 5), 2)
    assert windows.tolist() == [[x, y, x + 5, y + 4] for y in (0, 2) for x in (0, 2, 4)]
    assert len(sliding_windows((6, 9), (6, 9), 1)) == 1
    with pytest.raises(ValueError, match="do not fit"):
        sliding_windows((6, 9), (7, 5), 1)


def test_crops():
    row = torch.arange(32.0).expand(3, 32, 32)
    crops = warp_crops(row, torch.tensor([[8.0, 4, 24, 20], [0, 0, 32, 32]]), 16, context=0)
    assert crops.shape == (2, 3, 16, 16)
    torch.testing.assert_close(crops[0], torch.arange(8.0, 24).expand(3, 16, 16))
    assert warp_crops(row, torch.zeros(0, 4)).shape == (0, 3, 227, 227)


def test_context_of_crops_is_the_mean_outside():
    whole = torch.tensor([[0.0, 0, 20, 20]])
    white = torch.full((3, 20, 20), 0.25)
    torch.testing.assert_close(warp_crops(white, whole, 40, 10), torch.full((1, 3, 40, 40), 0.25))
    image = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(0))
    crop = warp_crops(image, whole, 40, 10)[0]
    torch.testing.assert_close(crop[:, 10:30, 10:30], image)
    torch.testing.assert_close(crop[:, :8, :8], image.mean((1, 2))[:, None, None].expand(3, 8, 8))


def test_bad_crops():
    with pytest.raises(ValueError, match="takes"):
        warp_crops(torch.zeros(3, 8, 8), torch.zeros(2, 5))
    with pytest.raises(ValueError, match="context must be"):
        warp_crops(torch.zeros(3, 8, 8), torch.zeros(2, 4), 16, 8)
