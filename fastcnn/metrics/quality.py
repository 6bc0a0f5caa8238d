"""How near an image is to another: PSNR and SSIM."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcnn.models.restoration.images import gaussian_blur, gaussian_window, rgb_to_ycbcr


def psnr(image: Tensor, target: Tensor, *, border: int = 0, luminance: bool = False) -> Tensor:
    """Peak signal-to-noise ratio in decibels, ``-10 * log10(mean squared error)``, of pixels in [0, 1].

    Two images (C, H, W) or batches (N, C, H, W) to a float64 scalar or (N); infinite where they are equal. Papers on
    super-resolution drop a border as wide as the scale, and take the luminance of BT.601.

    Args:
        border: pixels along each border that do not count.
        luminance: of RGB images, Y of :func:`fastcnn.models.restoration.images.rgb_to_ycbcr` alone.

    Raises:
        ValueError: other shapes, or a border that leaves nothing.
        TypeError: pixels that are not floating.
    """
    image, target = _prepared(image, target, border, luminance, "psnr")
    return -10 * (image - target).square().mean((-3, -2, -1)).log10()


def ssim(image: Tensor, target: Tensor, *, border: int = 0, luminance: bool = False) -> Tensor:
    """Mean structural similarity, at most 1, of pixels in [0, 1]; arguments, result and errors are :func:`psnr`'s.

    Gaussian windows of 11x11 pixels, deviation 1.5, wholly inside; constants 0.01 and 0.03 squared; the mean over
    channels. Source: Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, IEEE TIP
    2004, section III.

    Raises:
        ValueError: an image smaller than a window.
    """
    image, target = _prepared(image, target, border, luminance, "ssim")
    if min(image.shape[-2:]) < 11:
        raise ValueError(f"ssim needs 11x11 pixels, {tuple(image.shape[-2:])} are left")
    batch, other = (x if x.dim() == 4 else x[None] for x in (image, target))
    window = gaussian_window(11, 1.5)
    products = torch.cat((batch, other, batch * batch, other * other, batch * other), 1)
    mean, mean2, square, square2, product = gaussian_blur(products, window).chunk(5, 1)
    variances = square - mean**2 + square2 - mean2**2
    covariance = product - mean * mean2
    small, large = 0.01**2, 0.03**2
    similar = (2 * mean * mean2 + small) * (2 * covariance + large)
    similar = similar / ((mean**2 + mean2**2 + small) * (variances + large))
    result = similar.mean((1, 2, 3))
    return result if image.dim() == 4 else result[0]


def _prepared(image: Tensor, target: Tensor, border: int, luminance: bool, name: str) -> tuple[Tensor, Tensor]:
    if image.shape != target.shape or image.dim() not in (3, 4):
        raise ValueError(
            f"{name} takes two of (C, H, W) or (N, C, H, W), got {tuple(image.shape)} and {tuple(target.shape)}"
        )
    if not (image.is_floating_point() and target.is_floating_point()):
        raise TypeError(f"{name} takes floating pixels in [0, 1], got {image.dtype} and {target.dtype}")
    height, width = image.shape[-2:]
    if border < 0 or min(height, width) <= 2 * border:
        raise ValueError(f"a border of {border} leaves nothing of {(height, width)}")
    pair = image.double(), target.double()
    if luminance:
        pair = rgb_to_ycbcr(pair[0])[..., :1, :, :], rgb_to_ycbcr(pair[1])[..., :1, :, :]
    inside = (..., slice(border, height - border), slice(border, width - border))
    return pair[0][inside], pair[1][inside]
