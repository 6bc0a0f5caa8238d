"""Image files as tensors."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor

from fastcnn.models._extras import extra

# A cat by Stefan van der Walt, CC0, which scikit-image ships inside its wheel (skimage.data.chelsea).
PHOTOGRAPH = "chelsea.png"


def read_image(path: str | Path) -> Tensor:
    """An image file's pixels as RGB: uint8 ``[3, H, W]``; grey is repeated, alpha dropped.

    An EXIF orientation is not applied: the boxes and masks of VOC and COCO are of the pixels as they are stored.

    Raises:
        ImportError: without Pillow, of the extra ``detection``.
        FileNotFoundError: no such file.
        ValueError: Pillow cannot read it.
    """
    pillow = extra("PIL.Image", "reading an image", "Pillow")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no image file {str(path)!r}")
    try:
        with pillow.open(path) as image:
            rgb = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
        raise ValueError(f"{path.name} is no image that Pillow reads: {error}") from None
    pixels = torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8)
    return pixels.reshape(rgb.height, rgb.width, 3).permute(2, 0, 1).contiguous()


def photograph() -> Tensor:
    """A real photograph, offline: uint8 pixels ``[3, 300, 451]``.

    Raises:
        ImportError: without scikit-image or Pillow, both of the extra ``bench``.
    """
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise ImportError("the photograph comes with scikit-image: pip install 'fastcnn[bench]'")
    return read_image(Path(spec.origin).parent / "data" / PHOTOGRAPH)
