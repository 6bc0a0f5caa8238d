"""Folders of images for classification, semantic segmentation and super-resolution.

Images are float32 (3, H, W) in [0, 1] of the stored pixels (see :func:`~fastcnn.data.images.read_image`), each of the
size of its file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fastcnn.data.geometry import IGNORED
from fastcnn.data.images import read_image
from fastcnn.models import VOC_CLASSES
from fastcnn.models._extras import extra

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".tif", ".tiff")


class ImageFolder(Dataset[tuple[Tensor, int]]):
    """Images of classes, a folder each, as torchvision's class of that name: ``root/dog/a.png``, ``root/cat/b.jpg``.

    Item ``i`` is an image and its label, from 0 in the order of the classes' names; images are in the order of their
    paths.

    Attributes:
        classes: names of the folders, sorted.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no folders in it, or one without an image; on access, a file that is no image.
    """

    def __init__(self, root: str | Path) -> None:
        root = _folder(root)
        self.classes = tuple(sorted(path.name for path in root.iterdir() if path.is_dir()))
        if not self.classes:
            raise ValueError(f"{str(root)!r} has no folders, one for each class")
        self.files = [(file, label) for label, name in enumerate(self.classes) for file in list_images(root / name)]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        file, label = self.files[index]
        return _read(file), label


class Images(Dataset[tuple[Tensor, Any]]):
    """Images of a folder and the folders in it, in the order of their paths; the target is None.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no image; on access, a file that is none.
    """

    def __init__(self, root: str | Path) -> None:
        self.files = list_images(_folder(root))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        return _read(self.files[index]), None


class ClassMaps(Dataset[tuple[Tensor, Tensor]]):
    """Images, and maps of a class for each pixel: int64 (H, W) from PNG files of indices, 255 for ignored pixels.

    Attributes:
        classes: a name for each index.

    Args:
        pairs: the files of an image and of its map.
        classes: see above.

    Raises:
        FileNotFoundError: on access, no such file.
        ValueError: on access, naming the file: one that Pillow cannot read, a map that is no indices (of mode RGB),
            of another size than the image, or with an index of no class.
    """

    def __init__(self, pairs: list[tuple[Path, Path]], classes: tuple[str, ...]) -> None:
        self.pairs, self.classes = pairs, classes

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        file, mask = self.pairs[index]
        image, labels = _read(file), read_class_map(mask)
        if labels.shape != image.shape[1:]:
            raise ValueError(f"{mask.name} is {tuple(labels.shape)} pixels, its image {tuple(image.shape[1:])}")
        wrong = labels[(labels >= len(self.classes)) & (labels != IGNORED)]
        if len(wrong):
            raise ValueError(f"{mask.name} has index {int(wrong[0])}, there are {len(self.classes)} classes")
        return image, labels


class SegmentationFolder(ClassMaps):
    """``root/images`` and ``root/masks`` with files of the same names; see :class:`ClassMaps`.

    Names of the classes are the lines of ``classes.txt``, in ``root`` or beside it; the first is of index 0, the
    background. Without that file they are numbers, up to the largest index of the maps, each of which is read for it.

    Raises:
        FileNotFoundError: one of the folders is missing.
        ValueError: no image, or one without a map.
    """

    def __init__(self, root: str | Path, classes: tuple[str, ...] = ()) -> None:
        root = _folder(root)
        masks = _folder(root / "masks")
        pairs = [(file, masks / f"{file.stem}.png") for file in list_images(_folder(root / "images"))]
        for file, mask in pairs:
            if not mask.is_file():
                raise ValueError(f"{file.name} has no masks/{mask.name}")
        named = [place / "classes.txt" for place in (root, root.parent) if (place / "classes.txt").is_file()]
        if not classes and named:
            classes = tuple(line.strip() for line in named[0].read_text().splitlines() if line.strip())
        if not classes:
            indices = torch.cat([read_class_map(mask).unique() for _, mask in pairs])
            largest = int(indices[indices != IGNORED].max()) if bool((indices != IGNORED).any()) else 0
            classes = tuple(str(index) for index in range(largest + 1))
        super().__init__(pairs, classes)


class VOCSegmentation(ClassMaps):
    """VOC's folders JPEGImages, SegmentationClass and ImageSets/Segmentation; see :class:`ClassMaps`.

    Source: Everingham et al., The PASCAL Visual Object Classes Challenge, 2010. Borders of objects are ignored pixels.

    Args:
        root: the folder with the three, such as VOCdevkit/VOC2012.
        image_set: a file of ImageSets/Segmentation without ".txt".

    Raises:
        FileNotFoundError: no such image set.
    """

    def __init__(self, root: str | Path, image_set: str = "train") -> None:
        root = Path(root)
        listed = root / "ImageSets" / "Segmentation" / f"{image_set}.txt"
        if not listed.is_file():
            raise FileNotFoundError(f"no file {str(listed)!r}")
        names = [line.split()[0] for line in listed.read_text().splitlines() if line.strip()]
        pairs = [(root / "JPEGImages" / f"{name}.jpg", root / "SegmentationClass" / f"{name}.png") for name in names]
        super().__init__(pairs, ("__background__", *VOC_CLASSES))


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder and the folders in it, sorted.

    Raises:
        ValueError: none.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise ValueError(f"{str(folder)!r} has no images ({', '.join(SUFFIXES)})")
    return files


def read_class_map(path: Path) -> Tensor:
    """int64 (H, W) of a file of class indices: grey, or colours of a palette, which are not looked at.

    Raises:
        ImportError: without Pillow, of the extra ``detection``.
        FileNotFoundError: no such file.
        ValueError: Pillow cannot read it, or it has colours.
    """
    pillow = extra("PIL.Image", "reading a class map", "Pillow")
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}")
    try:
        with pillow.open(path) as opened:
            mode, indices = opened.mode, np.asarray(opened)
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
        raise ValueError(f"{path.name} is no image that Pillow reads: {error}") from None
    if indices.ndim != 2:
        raise ValueError(f"{path.name} must have an index for each pixel (mode P or L), got mode {mode}")
    return torch.from_numpy(indices.astype(np.int64))


def _read(file: Path) -> Tensor:
    return read_image(file).float() / 255


def _folder(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"no folder {str(path)!r}")
    return path
