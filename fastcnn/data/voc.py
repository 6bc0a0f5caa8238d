"""PASCAL VOC's folders: JPEGImages/*.jpg, Annotations/*.xml, ImageSets/Main/*.txt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fastcnn.data.images import read_image
from fastcnn.data.targets import Target, clip_to_image, keep_objects, make_target
from fastcnn.models import VOC_CLASSES


class VOCDetection(Dataset[tuple[Tensor, Target]]):
    """Images of a VOC folder with their boxes: Everingham et al., The PASCAL Visual Object Classes Challenge, 2010.

    Item ``i`` is an image, float32 (3, H, W) in [0, 1] of the stored pixels (see
    :func:`~fastcnn.data.images.read_image`), and its target (see :func:`~fastcnn.data.targets.make_target`;
    ``image_id`` is ``i``) with ``difficult``, bool (L), beside. A file's box from pixel xmin to pixel xmax, counted
    from 1 and both inside, becomes x1 = xmin - 1, x2 = xmax: areas and IoUs are those of VOC's development kit.
    What of a box is outside the image is cut off. Metrics want the difficult objects, training mostly does not.

    Args:
        root: the folder with the three folders, such as VOCdevkit/VOC2007.
        image_set: a file of ImageSets/Main without ".txt"; of its lines, the first word.
        classes: names; the first has label 1.
        difficult: False leaves out objects that are marked so.
        transforms: applied to image and target, as of :mod:`fastcnn.data.transforms`.

    Raises:
        FileNotFoundError: no such image set; on access, no such image or annotation.
        ValueError: on access, naming the file: XML that is not well-formed or has a DOCTYPE (entities are never
            expanded), an unknown class, a box that is not four numbers or has no area inside the image, an image that
            cannot be read.
    """

    def __init__(
        self,
        root: str | Path,
        image_set: str = "train",
        classes: Sequence[str] = VOC_CLASSES,
        *,
        difficult: bool = True,
        transforms: Callable[[Tensor, Target], tuple[Tensor, Target]] | None = None,
    ) -> None:
        self.root, self.classes, self.difficult, self.transforms = Path(root), tuple(classes), difficult, transforms
        listed = _existing(self.root / "ImageSets" / "Main" / f"{image_set}.txt").read_text()
        self.ids = [line.split()[0] for line in listed.splitlines() if line.strip()]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        name = self.ids[index]
        image = read_image(self.root / "JPEGImages" / f"{name}.jpg").float() / 255
        target = self._target(_existing(self.root / "Annotations" / f"{name}.xml"), image, index % len(self.ids))
        if not self.difficult:
            target = keep_objects(target, ~target["difficult"])
        return (image, target) if self.transforms is None else self.transforms(image, target)

    def _target(self, path: Path, image: Tensor, index: int) -> Target:
        boxes, labels, difficult = [], [], []
        for found in parse_xml(path).findall("object"):
            name = (found.findtext("name") or "").strip()
            if name not in self.classes:
                raise ValueError(f"{path.name}: class {name!r} is none of {', '.join(self.classes)}")
            corners = [found.findtext(f"bndbox/{side}") or "" for side in ("xmin", "ymin", "xmax", "ymax")]
            try:
                xmin, ymin, xmax, ymax = (float(corner) for corner in corners)
            except ValueError:
                raise ValueError(f"{path.name}: a box's xmin, ymin, xmax, ymax are {corners}, not numbers") from None
            boxes.append((xmin - 1, ymin - 1, xmax, ymax))
            labels.append(self.classes.index(name) + 1)
            difficult.append((found.findtext("difficult") or "0").strip() == "1")
        size = (image.size(1), image.size(2))
        clipped = clip_to_image(path.name, torch.tensor(boxes).reshape(-1, 4), size)
        target = make_target(clipped, torch.tensor(labels, dtype=torch.int64), index)
        return target | {"difficult": torch.tensor(difficult, dtype=torch.bool)}


def parse_xml(path: Path) -> Element:
    """The root element of a file without a DOCTYPE, so without entities that could grow or read other files.

    Raises:
        ValueError: naming the file, for one with a DOCTYPE or not well-formed.
    """
    builder, parser = TreeBuilder(), expat.ParserCreate()

    def refuse(*_: Any) -> None:
        raise ValueError(f"{path.name} has a DOCTYPE, which no annotation needs")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        raise ValueError(f"{path.name} is no XML: {error}") from None
    return builder.close()


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}")
    return path
