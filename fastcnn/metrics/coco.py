"""COCO's average precision of boxes and masks, by pycocotools: Lin et al., Microsoft COCO, ECCV 2014."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from fastcnn.data.coco import coco_results, encode_masks
from fastcnn.metrics._inputs import check_pairs
from fastcnn.models._extras import extra
from fastcnn.models.detection.boxes import box_area

IOU_TYPES = ("bbox", "segm")
# In the order of pycocotools' stats: precision over IoUs of 0.5 to 0.95, at one of them, by area (small is under 32^2
# pixels, large over 96^2); recall with 1, 10 and 100 detections to an image, by area.
NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


class CocoMetrics:
    """Average precision and recall as COCO defines them, of boxes ("bbox"), masks ("segm") or both.

    Areas are those of the targets' ``area``, else of their boxes; regions marked ``iscrowd`` (or objects marked
    ``difficult``) count neither way. Images are told apart by their order, so ``image_id`` is not looked at.

    Args:
        iou_types: "bbox", "segm".

    Raises:
        ImportError: without pycocotools, of the extra ``detection``.
        ValueError: another type.
    """

    def __init__(self, iou_types: Sequence[str] = ("bbox",)) -> None:
        self.iou_types = (iou_types,) if isinstance(iou_types, str) else tuple(iou_types)
        if not self.iou_types or any(name not in IOU_TYPES for name in self.iou_types):
            raise ValueError(f"iou_types must be of {', '.join(IOU_TYPES)}, got {iou_types!r}")
        self._coco = extra("pycocotools.coco", "COCO's metrics", "pycocotools").COCO
        self._evaluation = extra("pycocotools.cocoeval", "COCO's metrics", "pycocotools").COCOeval
        self._mask = extra("pycocotools.mask", "COCO's metrics", "pycocotools")
        self.reset()

    def reset(self) -> None:
        """Forgets all images."""
        self._images: list[dict[str, int]] = []
        self._found: list[dict[str, Any]] = []
        self._wanted: list[dict[str, Any]] = []

    def update(self, predictions: Sequence[Mapping[str, Tensor]], targets: Sequence[Mapping[str, Tensor]]) -> None:
        """Adds images.

        Args:
            predictions: an image's each: ``boxes`` (D, 4), ``scores`` and ``labels`` (D), for "segm" ``masks``
                (D, 1, H, W) or (D, H, W), of which more than a half, or any other integer than 0, is inside.
            targets: see :func:`fastcnn.data.make_target`; ``masks`` (L, H, W) for "segm".

        Raises:
            ValueError: parts that are missing or of other shapes; a score that is NaN.
        """
        masks = "segm" in self.iou_types
        check_pairs(predictions, targets, masks)
        for prediction, target in zip(predictions, targets, strict=True):
            image: dict[str, int] = {"id": len(self._images) + 1}
            if masks:
                image["height"], image["width"] = target["masks"].shape[-2:]
            self._images.append(image)
            taken = {key: prediction[key] for key in ("boxes", "labels", "scores", *(["masks"] if masks else []))}
            self._found += coco_results(len(self._images), taken)
            self._wanted += self._objects(target, masks)

    def _objects(self, target: Mapping[str, Tensor], masks: bool) -> list[dict[str, Any]]:
        objects = coco_results(
            len(self._images), {"boxes": target["boxes"], "labels": target["labels"], "scores": target["labels"]}
        )
        area = target["area"] if "area" in target else box_area(target["boxes"])
        for found, size in zip(objects, area.tolist(), strict=True):
            found.update(area=size, iscrowd=0)
        for key in ("iscrowd", "difficult"):
            for found, marked in zip(objects, target[key].tolist() if key in target else (), strict=key in target):
                found["iscrowd"] |= int(marked)
        if masks:
            for found, runs in zip(objects, encode_masks(target["masks"]), strict=True):
                found["segmentation"] = runs
        return objects

    def compute(self) -> dict[str, dict[str, Any]]:
        """For each of the types, a dict of the twelve figures that COCO reports (``AP``, ``AP50``, ``AP75``, ``APs``,
        ``APm``, ``APl``, ``AR1``, ``AR10``, ``AR100``, ``ARs``, ``ARm``, ``ARl``), NaN where there are no such
        objects, and ``per_class``, a dict of label to AP."""
        return {name: self._evaluate(name) for name in self.iou_types}

    def _evaluate(self, iou_type: str) -> dict[str, Any]:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints as it goes.
            evaluation = self._evaluation(self._index(self._wanted), self._index(self._sized(iou_type)), iou_type)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        # IoU, recall, class, area, detections: all of them but over all areas with the most detections.
        precision = evaluation.eval["precision"][:, :, :, 0, -1]
        per_class = np.where(precision < 0, np.nan, precision).mean((0, 1))
        figures = [float(value) if value >= 0 else float("nan") for value in evaluation.stats]
        labels = [int(label) for label in evaluation.params.catIds]
        return dict(zip(NAMES, figures, strict=True), per_class=dict(zip(labels, per_class.tolist(), strict=True)))

    def _sized(self, iou_type: str) -> list[dict[str, Any]]:
        """Detections with the area by which those that miss are sorted."""
        if iou_type == "bbox":
            return [found | {"area": found["bbox"][2] * found["bbox"][3]} for found in self._found]
        return [found | {"area": float(self._mask.area(found["segmentation"]))} for found in self._found]

    def _index(self, entries: list[dict[str, Any]]) -> Any:
        coco = self._coco()
        labels = {entry["category_id"] for entry in (*self._found, *self._wanted)}
        coco.dataset = {
            "images": self._images,
            "categories": [{"id": label} for label in sorted(labels)],
            # From 1: for the evaluation, an id of 0 means that nothing was matched.
            "annotations": [{"iscrowd": 0} | entry | {"id": index + 1} for index, entry in enumerate(entries)],
        }
        coco.createIndex()
        return coco
