"""PSNR and SSIM against scikit-image's, by hand, and on images that differ in one way."""

import math

import pytest
import torch

from fastcnn.metrics import psnr, ssim
from fastcnn.models.restoration.images import rgb_to_ycbcr


def pair(*shape):
    image = torch.rand(shape, dtype=torch.float64)
    return image, (image + 0.1 * torch.randn(shape, dtype=torch.float64)).clamp(0, 1)


def test_psnr_by_hand():
    image = torch.full((2, 3, 6, 5), 0.5)
    other = image + torch.tensor([0.1, 0.01])[:, None, None, None]
    torch.testing.assert_close(psnr(other, image), torch.tensor([20.0, 40.0]).double(), rtol=1e-5, atol=0)
    assert psnr(image[0], image[0]) == math.inf and psnr(image, image).shape == (2,)


def test_psnr_without_a_border_and_of_luminance():
    image, other = pair(3, 12, 14)
    inside = (slice(None), slice(3, -3), slice(3, -3))
    assert psnr(image, other, border=3) == psnr(image[inside], other[inside])
    y, other_y = (rgb_to_ycbcr(x)[:1] for x in (image, other))
    assert psnr(image, other, luminance=True) == psnr(y, other_y)
    framed = image.clone()
    framed[:, 0], framed[:, :, -1] = 0, 1
    assert psnr(framed, image, border=1) == math.inf


def test_both_are_scikit_images():
    metrics = pytest.importorskip("skimage.metrics")
    image, other = pair(2, 3, 24, 31)
    options = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    for index, found in enumerate(ssim(image, other)):
        a, b = (x[index].movedim(0, -1).numpy() for x in (image, other))
        wanted = metrics.structural_similarity(a, b, channel_axis=-1, **options)
        assert found.item() == pytest.approx(wanted, rel=1e-9)
        assert psnr(image, other)[index].item() == pytest.approx(
            metrics.peak_signal_noise_ratio(a, b, data_range=1.0), rel=1e-12
        )


def test_ssim_is_one_of_the_same_and_falls_with_noise():
    image, other = pair(1, 16, 16)
    assert ssim(image, image).item() == pytest.approx(1) and ssim(image, image).shape == ()
    assert ssim(image, 1 - image) < ssim(image, other) < 1
    assert ssim(image, other) == ssim(image[None], other[None])[0]


def test_bad_input():
    image = torch.rand(3, 12, 12)
    for metric in (psnr, ssim):
        with pytest.raises(ValueError, match=r"got \(3, 12, 12\) and \(3, 12, 11\)"):
            metric(image, image[..., 1:])
        with pytest.raises(ValueError, match=r"a border of 6 leaves nothing of \(12, 12\)"):
            metric(image, image, border=6)
        with pytest.raises(TypeError, match="takes floating pixels"):
            metric(image.byte(), image)
    with pytest.raises(ValueError, match=r"ssim needs 11x11 pixels, \(10, 10\) are left"):
        ssim(image, image, border=1)
    with pytest.raises(ValueError, match=r"floating \(\.\.\., 3, h, w\)"):
        psnr(image[:1], image[:1], luminance=True)
