"""The kinds of networks that ``fastcnn train`` trains, by the ``task`` of their row."""

from __future__ import annotations

from fastcnn.train.classification import Classification
from fastcnn.train.detection import Detection
from fastcnn.train.segmentation import Segmentation
from fastcnn.train.super_resolution import SuperResolution
from fastcnn.train.task import Task

TASKS: dict[str, type[Task]] = {
    "detection": Detection,
    "classification": Classification,
    "segmentation": Segmentation,
    "super_resolution": SuperResolution,
}


def find_task(name: str) -> type[Task]:
    """The class of a kind.

    Raises:
        ValueError: one that is not trained.
    """
    if name not in TASKS:
        raise ValueError(f"fastcnn train trains {', '.join(TASKS)}, not {name}")
    return TASKS[name]
