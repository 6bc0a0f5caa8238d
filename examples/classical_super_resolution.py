"""Super-resolution before networks: interpolation, self-similarity, an external database, sparse coding.

Shortens the luminance of a photograph bicubically, enlarges it again by each method and prints PSNR and SSIM beside
the original. The images come with scikit-image (``pip install 'fastcnn[examples]'``); the external ones are others than
the photograph. Run: ``python examples/classical_super_resolution.py``.

Patches, of any method: of the bicubic enlargement's derivatives, divided by their length, a method guesses the detail
that is missing, and where patches overlap the guesses are averaged.

- self-similarity: the most alike patches of the image itself, one scale down: Glasner et al., ICCV 2009, with one step.
- external database: the most alike patches of other photographs: Freeman et al., 2002, without the Markov network.
- sparse coding: few atoms of a learned dictionary, coupled to one of details: Yang et al., IEEE TIP 2010; the coupling
  by least squares is that of Zeyde et al., 2010.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch

from fastcnn.metrics import psnr, ssim
from fastcnn.models.restoration.images import bicubic, rgb_to_ycbcr

Guess = Callable[[np.ndarray], np.ndarray]
PATCH = 5
_BLANK = 1e-3  # The length of derivatives below which a patch has no detail to look for.


def load(side: int, scale: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Luminances in [0, 1]: the middle of a photograph, ``side`` at most and a multiple of ``scale``, and of others."""
    from skimage import data

    def luminance(rgb: np.ndarray) -> np.ndarray:
        middle = [slice(max(0, (n - side) // 2), (n - side) // 2 + side if n > side else n) for n in rgb.shape[:2]]
        image = torch.from_numpy(np.ascontiguousarray(rgb[tuple(middle)])).movedim(-1, 0).double() / 255
        image = image[:, : image.shape[1] // scale * scale, : image.shape[2] // scale * scale]
        return rgb_to_ycbcr(image)[0].numpy()

    return luminance(data.chelsea()), [luminance(rgb) for rgb in (data.coffee(), data.astronaut())]


def resized(image: np.ndarray, scale: float) -> np.ndarray:
    """Bicubic convolution, antialiased where it shortens."""
    return bicubic(torch.from_numpy(image)[None], scale)[0].numpy()


def interpolated(low: np.ndarray, scale: int, order: int) -> np.ndarray:
    """Splines of an order: 1 is bilinear, 3 the cubic B-spline through all pixels."""
    from skimage.transform import resize

    size = tuple(scale * side for side in low.shape)
    return resize(low, size, order=order, mode="edge", anti_aliasing=False, clip=False)


def windows(image: np.ndarray) -> np.ndarray:
    """Every patch: (number, PATCH * PATCH)."""
    found = np.lib.stride_tricks.sliding_window_view(image, (PATCH, PATCH))
    return found.reshape(-1, PATCH * PATCH)


def described(enlarged: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every patch its derivatives, down and across, once and twice, of length 1; and what the length was."""
    down, across = np.gradient(enlarged)
    parts = [windows(part) for part in (down, across, np.gradient(down, axis=0), np.gradient(across, axis=1))]
    features = np.concatenate(parts, 1)
    length = np.maximum(np.linalg.norm(features, axis=1, keepdims=True), _BLANK)
    return features / length, length


def examples(images: Sequence[np.ndarray], scale: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Patches of shortened and enlarged images, and the details that they lack: ``count`` of those with the most."""
    features, details = [], []
    for image in images:
        image = image[: image.shape[0] // scale * scale, : image.shape[1] // scale * scale]
        enlarged = resized(resized(image, 1 / scale), scale)
        found, length = described(enlarged)
        clear = length[:, 0] > _BLANK
        features.append(found[clear])
        details.append((windows(image - enlarged) / length)[clear])
    features, details = np.concatenate(features), np.concatenate(details)
    chosen = np.random.RandomState(0).permutation(len(features))[:count]
    return features[chosen], details[chosen]


def nearest(features: np.ndarray, details: np.ndarray, neighbours: int = 8) -> Guess:
    """A patch's detail is the mean of its most alike examples', the nearer the heavier."""
    from sklearn.neighbors import NearestNeighbors

    neighbours = min(neighbours, len(features))
    index = NearestNeighbors(n_neighbors=neighbours).fit(features)

    def guess(patches: np.ndarray) -> np.ndarray:
        distance, which = index.kneighbors(patches)
        weight = np.exp(-((distance / 0.3) ** 2)) + 1e-9
        weight /= weight.sum(1, keepdims=True)
        return np.einsum("nk,nkd->nd", weight, details[which])

    return guess


def sparse(features: np.ndarray, details: np.ndarray, atoms: int = 128, used: int = 3) -> Guess:
    """A patch is a sum of a few atoms, and its detail the same sum of the atoms' details."""
    from sklearn.decomposition import MiniBatchDictionaryLearning, sparse_encode

    options = {"transform_algorithm": "omp", "transform_n_nonzero_coefs": used, "random_state": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of patches that fewer atoms make exactly.
        learned = MiniBatchDictionaryLearning(min(atoms, len(features)), alpha=0.1, max_iter=10, **options)
        dictionary = learned.fit(features).components_
        codes = sparse_encode(features, dictionary, algorithm="omp", n_nonzero_coefs=used)
    coupled = np.linalg.solve(codes.T @ codes + 1e-2 * np.eye(codes.shape[1]), codes.T @ details)

    def guess(patches: np.ndarray) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return sparse_encode(patches, dictionary, algorithm="omp", n_nonzero_coefs=used) @ coupled

    return guess


def detailed(low: np.ndarray, scale: int, guess: Guess) -> np.ndarray:
    """The bicubic enlargement and the details of its patches, averaged where they overlap."""
    enlarged = resized(low, scale)
    features, length = described(enlarged)
    clear = length[:, 0] > _BLANK
    details = np.zeros((len(features), PATCH * PATCH))
    details[clear] = guess(features[clear]) * length[clear]
    summed, counts = np.zeros_like(enlarged), np.zeros_like(enlarged)
    rows, columns = (side - PATCH + 1 for side in enlarged.shape)
    for place in range(PATCH * PATCH):
        y, x = divmod(place, PATCH)
        summed[y : y + rows, x : x + columns] += details[:, place].reshape(rows, columns)
        counts[y : y + rows, x : x + columns] += 1
    return enlarged + summed / counts


def methods(low: np.ndarray, others: Sequence[np.ndarray], scale: int, count: int) -> dict[str, np.ndarray]:
    """``low`` enlarged by each."""
    external = examples(others, scale, count)
    return {
        "bilinear": interpolated(low, scale, 1),
        "bicubic": resized(low, scale),
        "spline": interpolated(low, scale, 3),
        "self-similarity": detailed(low, scale, nearest(*examples([low], scale, count))),
        "external database": detailed(low, scale, nearest(*external)),
        "sparse coding": detailed(low, scale, sparse(*external)),
    }


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Prints the table; returns each method's PSNR in decibels."""
    parser = argparse.ArgumentParser(description="Super-resolution before networks, in decibels.")
    parser.add_argument("--scale", type=int, default=2, choices=(2, 3, 4))
    parser.add_argument("--side", type=int, default=160, help="of the photograph's middle that is taken, in pixels")
    parser.add_argument("--examples", type=int, default=10000, help="patches to learn from")
    options = parser.parse_args(argv)
    if options.side < 32 or options.examples < 1:
        parser.error(f"side must be at least 32 and examples 1, got {options.side} and {options.examples}")
    try:
        image, others = load(options.side, options.scale)
        enlarged = methods(resized(image, 1 / options.scale), others, options.scale, options.examples)
    except ImportError as error:
        raise SystemExit("this example needs scikit-image and scikit-learn: pip install 'fastcnn[examples]'") from error
    print(f"{image.shape[1]}x{image.shape[0]} pixels, {options.scale} times shorter and longer again\n")
    print(f"{'method':18}  PSNR, dB    SSIM")
    found, target = {}, torch.from_numpy(image)[None]
    for name, result in enlarged.items():
        result = torch.from_numpy(result)[None].clamp(0, 1)
        found[name] = psnr(result, target, border=options.scale).item()
        print(f"{name:18}  {found[name]:8.2f}  {ssim(result, target, border=options.scale).item():.4f}")
    return found


if __name__ == "__main__":
    main()
