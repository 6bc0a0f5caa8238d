"""Image files as tensors."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastcnn.models._extras import extra

# A cat by Stefan van der Walt, CC0, which scikit-image ships inside its wheel (skimage.data.chelsea).
PHOTOGRAPH = "chelsea.png"

LUMA = (0.299, 0.587, 0.114)  # Of red, green and blue: ITU-R BT.601.


def read_image(path: str | Path, *, upright: bool = False) -> Tensor:
    """An image file's pixels as RGB: uint8 ``[3, H, W]``; grey is repeated, alpha dropped, of 16 bits the upper 8 kept.

    An EXIF orientation is applied only where ``upright``: the boxes and masks of VOC and COCO are of the pixels as they
    are stored.

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
        with pillow.open(path) as opened:
            image = extra("PIL.ImageOps", "turning an image", "Pillow").exif_transpose(opened) if upright else opened
            # Of 16 bits Pillow would make white of all that 8 do not hold.
            deep = image.mode.startswith("I")
            whole = pillow.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)) if deep else image
            rgb = whole.convert("RGB")
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
        raise ValueError(f"{path.name} is no image that Pillow reads: {error}") from None
    return from_pillow(rgb)


def image_suffixes() -> set[str]:
    """Of files that :func:`write_image` writes, such as ".png"; raises what :func:`read_image` does without Pillow."""
    pillow = extra("PIL.Image", "writing an image", "Pillow")
    return {suffix for suffix, kind in pillow.registered_extensions().items() if kind in pillow.SAVE}


def write_image(path: str | Path, pixels: Tensor) -> None:
    """Writes RGB, uint8 ``[3, H, W]``, in the format of the path's suffix.

    Raises:
        ImportError: without Pillow, of the extra ``detection``.
        OSError: the file cannot be written.
        ValueError: a suffix of no format, or a size that the format does not have.
    """
    to_pillow(pixels).save(path)


def write_mask(path: str | Path, classes: Tensor) -> None:
    """Writes a map of classes, integers (H, W) from 0 to 255, as the grey values of a PNG.

    Raises:
        ImportError, OSError: as :func:`write_image`.
        ValueError: another shape, or a class that a byte does not hold.
    """
    if classes.dim() != 2 or classes.is_floating_point() or not classes.numel():
        raise ValueError(f"classes must be integers (H, W), got {classes.dtype} {tuple(classes.shape)}")
    if classes.min() < 0 or classes.max() > 255:
        raise ValueError(f"classes must be from 0 to 255, got {classes.min()} to {classes.max()}")
    pillow = extra("PIL.Image", "writing an image", "Pillow")
    pillow.fromarray(classes.to("cpu", torch.uint8).numpy()).save(path, "PNG")


def to_pillow(pixels: Tensor) -> Any:
    """A Pillow image of RGB, uint8 ``[3, H, W]``."""
    pillow = extra("PIL.Image", "an image", "Pillow")
    if pixels.dtype != torch.uint8 or pixels.dim() != 3 or pixels.size(0) != 3 or 0 in pixels.shape:
        raise ValueError(f"pixels must be uint8 (3, H, W), got {pixels.dtype} {tuple(pixels.shape)}")
    return pillow.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy())


def from_pillow(rgb: Any) -> Tensor:
    """uint8 ``[3, H, W]`` of a Pillow image in RGB."""
    pixels = torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8)
    return pixels.reshape(rgb.height, rgb.width, 3).permute(2, 0, 1).contiguous()


def fit_channels(images: Tensor, channels: int) -> Tensor:
    """RGB images (..., 3, H, W) as a network of 3 input channels or 1 takes them: grey is BT.601's luma."""
    if channels == 3:
        return images
    return (images * images.new_tensor(LUMA).reshape(3, 1, 1)).sum(-3, keepdim=True)


def photograph() -> Tensor:
    """A real photograph, offline: uint8 pixels ``[3, 300, 451]``.

    Raises:
        ImportError: without scikit-image or Pillow, both of the extra ``bench``.
    """
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise ImportError("the photograph comes with scikit-image: pip install 'fastcnn[bench]'")
    return read_image(Path(spec.origin).parent / "data" / PHOTOGRAPH)
