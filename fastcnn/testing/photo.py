"""A real photograph, and any other, as what a network's ``preprocess`` takes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor

# A cat by Stefan van der Walt, CC0, which scikit-image ships inside its wheel (skimage.data.chelsea).
PHOTOGRAPH = "chelsea.png"


def photograph() -> Tensor:
    """The photograph that benches run on: uint8 pixels ``[3, 300, 451]``.

    Raises:
        ImportError: without scikit-image or Pillow, both of the extra ``bench``.
    """
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise ImportError("the photograph comes with scikit-image: pip install 'fastcnn[bench]'")
    return read_image(Path(spec.origin).parent / "data" / PHOTOGRAPH)


def read_image(path: str | Path) -> Tensor:
    """An image file's pixels as RGB: uint8 ``[3, H, W]``.

    Raises:
        ImportError: without Pillow, of the extra ``bench``.
        FileNotFoundError: no such file.
        ValueError: Pillow cannot read it.
    """
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("reading an image needs Pillow: pip install 'fastcnn[bench]'") from None
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no image file {str(path)!r}")
    try:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path.name} is no image that Pillow reads: {error}") from None
    pixels = torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8)
    return pixels.reshape(rgb.height, rgb.width, 3).permute(2, 0, 1).contiguous()


def noise() -> Tensor:
    """Seeded noise of the photograph's size, for machines without it: uint8 pixels ``[3, 300, 451]``."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (3, 300, 451), generator=generator, dtype=torch.uint8)
