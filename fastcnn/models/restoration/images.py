"""What images pass through around the networks: bicubic resizing, luminance and chrominance, Gaussian windows."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

# ITU-R BT.601, studio swing: of RGB in [0, 1], Y in [16, 235] / 255, Cb and Cr in [16, 240] / 255.
_TO_YCBCR = ((65.481, 128.553, 24.966), (-37.797, -74.203, 112.0), (112.0, -93.786, -18.214))
_OFFSET = (16.0, 128.0, 128.0)


def bicubic(image: Tensor, scale: float) -> Tensor:
    """Sides ``scale`` times as long, rounded, by Keys' cubic convolution with a = -1/2.

    (..., C, h, w), floating, to (..., C, round(h * scale), round(w * scale)). Pixels are squares, whose corners meet;
    where sides become shorter, the kernel is as much wider (antialiasing). So MATLAB's ``imresize``, except within two
    pixels of a border, where this leaves out what lies beyond it. Linear ramps stay exact elsewhere. Values may exceed
    the image's. Deterministic on a CPU. Source: Keys, Cubic Convolution Interpolation, IEEE TASSP 1981.

    Raises:
        TypeError: pixels that are not floating.
        ValueError: a ``scale`` that is not positive or leaves no pixel, or fewer than three dimensions.
    """
    if not image.is_floating_point():
        raise TypeError(f"bicubic takes floating pixels, got {image.dtype}")
    if image.dim() < 3 or 0 in image.shape[-2:]:
        raise ValueError(f"bicubic takes (..., C, h, w), got {tuple(image.shape)}")
    size = tuple(round(side * scale) for side in image.shape[-2:])
    if min(size) < 1:
        raise ValueError(f"scale {scale} makes {size} of {tuple(image.shape[-2:])}")
    flat = image.reshape(-1, *image.shape[-3:])
    result = F.interpolate(flat, size, mode="bicubic", align_corners=False, antialias=True)
    return result.reshape(*image.shape[:-2], *size)


@cache
def _ycbcr() -> tuple[Tensor, Tensor, Tensor]:
    matrix = torch.tensor(_TO_YCBCR, dtype=torch.float64) / 255
    return matrix, matrix.inverse(), torch.tensor(_OFFSET, dtype=torch.float64)[:, None, None] / 255


def _check_three(image: Tensor, name: str) -> None:
    if image.dim() < 3 or image.shape[-3] != 3 or not image.is_floating_point():
        raise ValueError(f"{name} takes floating (..., 3, h, w), got {image.dtype} {tuple(image.shape)}")


def rgb_to_ycbcr(image: Tensor) -> Tensor:
    """(..., 3, h, w) RGB in [0, 1] to Y, Cb, Cr by ITU-R BT.601: white has Y = 235 / 255, grey Cb = Cr = 128 / 255.

    What MATLAB's ``rgb2ycbcr`` and papers on super-resolution call YCbCr. Deterministic; linear up to an offset.

    Raises:
        ValueError: another shape or dtype.
    """
    _check_three(image, "rgb_to_ycbcr")
    to, _, offset = _ycbcr()
    return torch.einsum("dc,...chw->...dhw", to.to(image), image) + offset.to(image)


def ycbcr_to_rgb(image: Tensor) -> Tensor:
    """The inverse of :func:`rgb_to_ycbcr`; not clamped, as some colours of YCbCr are outside of RGB.

    Raises:
        ValueError: another shape or dtype.
    """
    _check_three(image, "ycbcr_to_rgb")
    _, back, offset = _ycbcr()
    return torch.einsum("dc,...chw->...dhw", back.to(image), image - offset.to(image))


def gaussian_blur(image: Tensor, window: Tensor, padding: int = 0) -> Tensor:
    """Each channel of (N, C, h, w) correlated with ``window`` (n) along both axes; zeros beyond the borders."""
    channels, size = image.shape[1], len(window)
    weight = window.to(image).expand(channels, 1, size)
    image = F.conv2d(image, weight[..., None], padding=(padding, 0), groups=channels)
    return F.conv2d(image, weight[..., None, :], padding=(0, padding), groups=channels)


def gaussian_window(size: int, sigma: float) -> Tensor:
    """(size) float64, of sum 1: a Gaussian of deviation ``sigma`` pixels, sampled around the middle.

    Raises:
        ValueError: a ``size`` that is not odd, or a ``sigma`` that is not positive.
    """
    if size < 1 or size % 2 == 0 or not sigma > 0:
        raise ValueError(f"a window has an odd size and a positive sigma, got {size} and {sigma}")
    distance = torch.arange(size, dtype=torch.float64) - size // 2
    return torch.softmax(-distance.square() / (2 * sigma**2), 0)
