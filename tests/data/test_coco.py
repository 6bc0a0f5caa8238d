"""COCO's layout, on small folders made here."""

import json
import sys

import pytest
import torch
from torch.utils.data import DataLoader

from fastcnn.data import CocoDetection, coco_results, collate, mask_extents
from fastcnn.data.coco import encode_masks

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("pycocotools")

SQUARE = [[2, 3, 6, 3, 6, 8, 2, 8]]
# Column by column, from zeros: 2 columns of 5, then in the third 1 empty, 3 filled pixels, the rest empty.
RUNS = {"size": [5, 7], "counts": [11, 3, 21]}


def annotation(image_id, category_id, bbox, **more):
    return {"id": 70 + image_id, "image_id": image_id, "category_id": category_id, "bbox": bbox, **more}


@pytest.fixture
def folder(tmp_path):
    def write(annotations, sizes=((20, 10),), text=None):
        images = []
        for index, size in enumerate(sizes):
            Image.new("RGB", size).save(tmp_path / f"{index}.png")
            images.append({"id": 100 - index, "file_name": f"{index}.png", "width": size[0], "height": size[1]})
        categories = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 13, "name": "sign"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (tmp_path / "instances.json").write_text(json.dumps(content) if text is None else text)
        return tmp_path, tmp_path / "instances.json"

    return write


def test_items(folder):
    objects = [
        annotation(100, 90, [2, 3, 4, 5], segmentation=SQUARE, area=19.5),
        annotation(100, 1, [-1.5, 2, 30, 2], segmentation=[[0, 2, 20, 2, 20, 4, 0, 4], [1, 6, 3, 6, 3, 8]]),
        annotation(100, 13, [4, 4, 0, 3], segmentation=SQUARE),  # Left out: no width.
        annotation(99, 13, [2, 1, 1, 3], segmentation=RUNS, iscrowd=1),
    ]
    images = CocoDetection(*folder(objects, ((20, 10), (7, 5), (4, 4))))
    assert images.classes == ("person", "sign", "toothbrush") and images.category_ids == (1, 13, 90)
    (image, empty), (_, crowd), (_, target) = images  # By image id: 98, 99, 100.
    assert image.dtype == torch.float32 and image.shape == (3, 4, 4)
    assert [found["image_id"].item() for found in (empty, crowd, target)] == [98, 99, 100]
    assert empty["boxes"].shape == (0, 4) and empty["masks"].shape == (0, 4, 4) and empty["area"].shape == (0,)
    assert target["labels"].tolist() == [3, 1] and target["boxes"].tolist() == [[2, 3, 6, 8], [0, 2, 20, 4]]
    assert target["area"].tolist() == [19.5, 60] and target["iscrowd"].tolist() == [0, 0]
    assert target["masks"].dtype == torch.uint8 and target["masks"].shape == (2, 10, 20)
    filled = torch.zeros(10, 20, dtype=torch.uint8)
    filled[3:8, 2:6] = 1
    assert torch.equal(target["masks"][0], filled)
    assert target["masks"][1, 2:4].all() and target["masks"][1, 6, 2] and not target["masks"][1, 9].any()
    assert crowd["iscrowd"].tolist() == [1] and mask_extents(crowd["masks"]).tolist() == [[2, 1, 3, 4]]


def test_without_crowds_or_masks(folder, monkeypatch):
    objects = [annotation(100, 1, [0, 0, 2, 2], iscrowd=1), annotation(100, 90, [2, 3, 4, 5])]
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    root, file = folder(objects)
    ((_, target),) = CocoDetection(root, file, masks=False, crowd=False)
    assert target["labels"].tolist() == [3] and "masks" not in target
    with pytest.raises(ImportError, match=r"^masks of COCO needs pycocotools: pip install 'fastcnn\[detection\]'$"):
        CocoDetection(root, file)


def test_workers_and_transforms(folder):
    images = CocoDetection(*folder([]), transforms=lambda image, target: (image[:, :3], target))
    for batch, targets in DataLoader(images, num_workers=1, collate_fn=collate):
        assert [image.shape for image in batch] == [(3, 3, 20)] and targets[0]["labels"].shape == (0,)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"bbox": [1, 1, float("nan"), 3]}, "box 0 is x1, y1, x2, y2 = [1.0, 1.0, nan, 4.0]"),
        ({"bbox": [1, 1, -2, 3]}, "box 0 is x1, y1, x2, y2 = [1.0, 1.0, -1.0, 4.0]"),
        ({"bbox": [21, 1, 2, 3]}, "which has no area in an image 20 wide and 10 high"),
        ({"bbox": [1, 1, 2]}, "bbox must be x, y, width, height, got [1, 1, 2]"),
        ({"bbox": None}, "bbox must be x, y, width, height, got None"),
        ({"bbox": [1, 1, "2", 3]}, "got [1, 1, '2', 3]"),
        ({"category_id": 2}, "category 2 is none of (1, 13, 90)"),
        ({"segmentation": []}, "a polygon must have three or more pairs of numbers"),
        ({"segmentation": [[1, 2, 3, 4]]}, "a polygon must have three or more pairs of numbers"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "a polygon must have three or more pairs of numbers"),
        ({"segmentation": [1, 2, 3, 4, 5, 6]}, "a polygon must have three or more pairs of numbers"),
        ({"segmentation": [["a"] * 6]}, "a polygon must have three or more pairs of numbers"),
        ({"segmentation": RUNS}, "runs of size [5, 7] in an image of size [10, 20]"),
        ({"segmentation": {"size": [10, 20]}}, "no mask that pycocotools reads: "),
        ({"segmentation": {"size": [10, 20], "counts": [7, 4]}}, "runs of 11 pixels in an image of 200"),
        ({"segmentation": {"size": [10, 20], "counts": [7, -4, 197]}}, "or negative ones"),
        ({"segmentation": None}, "segmentation must be polygons or runs, got NoneType"),
    ],
)
def test_bad_annotations_are_one_line_that_names_them(folder, broken, message):
    good = annotation(100, 1, [1, 1, 2, 2], segmentation=SQUARE)
    images = CocoDetection(*folder([good | broken]))
    with pytest.raises(ValueError) as error:
        images[0]
    assert str(error.value).startswith("instances.json: annotation 170: ") and message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"images": [], "annotations": [{}], "categories": []}', "3"])
def test_other_files(folder, text):
    with pytest.raises(ValueError, match=r"^instances\.json is no COCO JSON: "):
        CocoDetection(*folder([], text=text))


def test_missing_and_corrupt_files(folder):
    root, file = folder([])
    with pytest.raises(FileNotFoundError, match=r"no file '.*other\.json'"):
        CocoDetection(root, root / "other.json")
    images = CocoDetection(root, file)
    (root / "0.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"^0\.png is no image that Pillow reads: "):
        images[0]
    (root / "0.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"no image file '.*0\.png'"):
        images[0]


def test_masks_there_and_back(folder):
    masks = torch.rand(3, 10, 20, generator=torch.Generator().manual_seed(0)) > 0.5
    runs = [found | {"counts": found["counts"].decode()} for found in encode_masks(masks)]
    objects = [annotation(100, 1, [0, 0, 20, 10], segmentation=found) for found in runs]
    ((_, target),) = CocoDetection(*folder(objects))
    assert torch.equal(target["masks"], masks.byte())


def test_results_are_json_with_coco_ids():
    prediction = {
        "boxes": torch.tensor([[1.0, 2.0, 4.0, 8.0]]),
        "labels": torch.tensor([2]),
        "scores": torch.tensor([0.75]),
        "masks": torch.rand(1, 1, 10, 20),
    }
    (result,) = json.loads(json.dumps(coco_results(42, prediction, (1, 13, 90))))
    assert result.pop("segmentation")["size"] == [10, 20]
    assert result == {"image_id": 42, "category_id": 13, "bbox": [1, 2, 3, 6], "score": 0.75}
    assert coco_results(1, {key: value[:0] for key, value in prediction.items()}) == []
