"""COCO's instances: a folder of images and a JSON file of boxes and masks; and detections as COCO takes them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fastcnn.data.images import read_image
from fastcnn.data.targets import Target, clip_to_image, make_target
from fastcnn.models._extras import extra


class CocoDetection(Dataset[tuple[Tensor, Target]]):
    """Images of a folder with the boxes and masks of an instances file: Lin et al., Microsoft COCO, ECCV 2014.

    Item ``i``, in the order of image ids, is an image, float32 (3, H, W) in [0, 1] of the stored pixels (see
    :func:`~fastcnn.data.images.read_image`), and its target (see :func:`~fastcnn.data.targets.make_target`), with
    COCO's image id and areas. What of a box is outside the image is cut off; a box of no width or height, of which
    COCO's own files have a few, is left out with its object.

    Attributes:
        classes: names; label k is of the k-th, in the order of category ids.
        category_ids: COCO's, in the same order: ``category_ids[label - 1]`` leads back.

    Args:
        root: the folder with the images.
        annotations: the JSON file.
        masks: False leaves out masks, and needs no pycocotools.
        crowd: False leaves out regions marked iscrowd: metrics want them, training does not.
        transforms: applied to image and target, as of :mod:`fastcnn.data.transforms`.

    Raises:
        ImportError: ``masks`` without pycocotools, of the extra ``detection``.
        FileNotFoundError: no such annotations; on access, no such image.
        ValueError: a file that is no COCO JSON. On access, naming the file and the annotation: an unknown category, a
            box that is not four finite numbers or lies outside the image, a mask that is neither polygons nor runs of
            the image's size; an image that cannot be read.
    """

    def __init__(
        self,
        root: str | Path,
        annotations: str | Path,
        *,
        masks: bool = True,
        crowd: bool = True,
        transforms: Callable[[Tensor, Target], tuple[Tensor, Target]] | None = None,
    ) -> None:
        self.root, self.file, self.masks, self.transforms = Path(root), Path(annotations), masks, transforms
        if masks:
            _mask_api()
        if not self.file.is_file():
            raise FileNotFoundError(f"no file {str(self.file)!r}")
        try:
            content = json.loads(self.file.read_bytes())
            categories = sorted(content["categories"], key=lambda category: category["id"])
            self.classes = tuple(category["name"] for category in categories)
            self.category_ids = tuple(category["id"] for category in categories)
            self.images = sorted((info["id"], info["file_name"]) for info in content["images"])
            self._found: dict[int, list[dict[str, Any]]] = defaultdict(list)
            for found in content["annotations"]:
                if crowd or not found.get("iscrowd", 0):
                    self._found[found["image_id"]].append(found)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.file.name} is no COCO JSON: {type(error).__name__}: {error}") from None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        image_id, name = self.images[index]
        image = read_image(self.root / name).float() / 255
        target = self._target(image_id, (image.size(1), image.size(2)))
        return (image, target) if self.transforms is None else self.transforms(image, target)

    def _target(self, image_id: int, size: tuple[int, int]) -> Target:
        boxes, labels, masks, area, crowd = [], [], [], [], []
        for found in self._found.get(image_id, ()):
            where = f"{self.file.name}: annotation {found.get('id')}"
            box = found.get("bbox")
            if not (isinstance(box, list) and len(box) == 4 and all(isinstance(side, int | float) for side in box)):
                raise ValueError(f"{where}: bbox must be x, y, width, height, got {box!r}")
            if box[2] == 0 or box[3] == 0:
                continue
            if found.get("category_id") not in self.category_ids:
                raise ValueError(f"{where}: category {found.get('category_id')!r} is none of {self.category_ids}")
            x, y, width, height = (float(side) for side in box)
            corners = torch.tensor([(x, y, x + width, y + height)])
            boxes.append(clip_to_image(where, corners, size)[0])
            labels.append(self.category_ids.index(found["category_id"]) + 1)
            area.append(float(found.get("area", width * height)))
            crowd.append(int(found.get("iscrowd", 0)))
            if self.masks:
                masks.append(decode_mask(where, found.get("segmentation"), size))
        return make_target(
            torch.stack(boxes) if boxes else torch.zeros(0, 4),
            torch.tensor(labels, dtype=torch.int64),
            image_id,
            masks=(torch.stack(masks) if masks else torch.zeros(0, *size)) if self.masks else None,
            area=torch.tensor(area),
            iscrowd=torch.tensor(crowd, dtype=torch.int64),
        )


def decode_mask(where: str, segmentation: Any, size: tuple[int, int]) -> Tensor:
    """A mask, uint8 (H, W), from COCO's polygons, run lengths or compressed run lengths.

    Raises:
        ValueError: in the name of ``where``, for anything else.
    """
    api = _mask_api()
    if isinstance(segmentation, list):
        if not segmentation or not all(_is_polygon(polygon) for polygon in segmentation):
            raise ValueError(f"{where}: a polygon must have three or more pairs of numbers")
        return torch.from_numpy(api.decode(api.merge(api.frPyObjects(segmentation, *size))))
    if not isinstance(segmentation, Mapping):
        raise ValueError(f"{where}: segmentation must be polygons or runs, got {type(segmentation).__name__}")
    runs, counts = segmentation, segmentation.get("counts")
    if list(runs.get("size", ())) != list(size):
        raise ValueError(f"{where}: runs of size {runs.get('size')} in an image of size {list(size)}")
    if isinstance(counts, list):
        # pycocotools would write runs that are too long past the end of the mask.
        if min(counts, default=0) < 0 or sum(counts) != size[0] * size[1]:
            pixels = size[0] * size[1]
            raise ValueError(f"{where}: runs of {sum(counts)} pixels in an image of {pixels}, or negative ones")
        runs = api.frPyObjects(runs, *size)
    try:
        return torch.from_numpy(api.decode(runs))
    except Exception as error:  # pycocotools raises bare ones.
        raise ValueError(f"{where}: no mask that pycocotools reads: {error}") from None


def _is_polygon(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) >= 6
        and len(value) % 2 == 0
        and all(isinstance(number, int | float) for number in value)
    )


def encode_masks(masks: Tensor) -> list[dict[str, Any]]:
    """Compressed run lengths, ``counts`` bytes, of masks (L, H, W) or (L, 1, H, W): bool, integers, or probabilities
    over a half."""
    masks = masks.flatten(0, -3)
    filled = masks > 0.5 if masks.is_floating_point() else masks != 0
    columns = filled.to("cpu", torch.uint8).permute(1, 2, 0).numpy()
    runs: list[dict[str, Any]] = _mask_api().encode(columns.copy(order="F"))
    return runs


def coco_results(
    image_id: int, prediction: Mapping[str, Tensor], category_ids: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """Detections of an image as entries of COCO's results file, ready for JSON.

    Args:
        prediction: a detector's ``boxes`` (D, 4), ``labels`` and ``scores`` (D), and ``masks`` (D, 1, H, W) where it
            has them.
        category_ids: those of a :class:`CocoDetection`; without, labels are taken for them.
    """
    x1, y1, x2, y2 = prediction["boxes"].double().cpu().reshape(-1, 4).unbind(1)
    boxes = torch.stack((x1, y1, x2 - x1, y2 - y1), 1).tolist()
    scores, labels = prediction["scores"].tolist(), prediction["labels"].tolist()
    results = [
        {"image_id": image_id, "category_id": category_ids[label - 1] if category_ids else label} for label in labels
    ]
    for result, box, score in zip(results, boxes, scores, strict=True):
        result.update(bbox=box, score=score)
    if "masks" in prediction:
        for result, runs in zip(results, encode_masks(prediction["masks"]), strict=True):
            result["segmentation"] = runs | {"counts": runs["counts"].decode()}
    return results


def _mask_api() -> Any:
    return extra("pycocotools.mask", "masks of COCO", "pycocotools")
