"""Images as histograms: of colours, of visual words, of words in a pyramid; and as Fisher vectors.

Local descriptors are Lowe's SIFT (IJCV 2004); words are their k-means clusters (Sivic and Zisserman, ICCV 2003), which
Lazebnik et al. (CVPR 2006) count in the cells of a pyramid; Fisher vectors (Perronnin et al., ECCV 2010) are gradients
of a mixture of Gaussians. Each tells squares of scikit-image's photographs apart with a linear SVM; the halves of each
photograph are trained on and held out (``pip install 'fastcnn[bench,examples]'``). Run: ``python
examples/bag_of_words.py``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
SIDE = 96


class Descriptors(NamedTuple):
    """What SIFT finds in an image: descriptors (N, 128), and where, (N, 2), rows and columns in [0, 1)."""

    values: np.ndarray
    places: np.ndarray


def sift(image: np.ndarray) -> Descriptors:
    """Of (H, W) in [0, 1]; of an image without corners none."""
    from skimage.feature import SIFT

    extractor = SIFT(upsampling=1, c_dog=0.005)
    try:
        extractor.detect_and_extract(image)
    except RuntimeError:  # It says so where it finds nothing.
        return Descriptors(np.zeros((0, 128)), np.zeros((0, 2)))
    values = np.sqrt(extractor.descriptors / np.maximum(extractor.descriptors.sum(1, keepdims=True), 1))
    return Descriptors(values, extractor.keypoints / image.shape)


def colour_histogram(pixels: np.ndarray, bins: int = 4) -> np.ndarray:
    """Shares, which sum to 1, of the bins^3 colours of bytes (H, W, 3)."""
    levels = pixels.reshape(-1, 3).astype(np.int64) * bins // 256
    counts = np.bincount(levels @ (bins**2, bins, 1), minlength=bins**3)
    return counts / counts.sum()


def word_histogram(found: Descriptors, words: np.ndarray) -> np.ndarray:
    """Shares of the nearest of ``words`` (K, 128), which sum to 1; zeros of no descriptor."""
    counts = np.bincount(_nearest(found.values, words), minlength=len(words))
    return counts / max(counts.sum(), 1)


def spatial_pyramid(found: Descriptors, words: np.ndarray, levels: int = 3) -> np.ndarray:
    """Histograms of the cells of 1 x 1, 2 x 2, 4 x 4, ... grids, weighted so that sums of minima, over all entries, are
    the pyramid match kernel: of an image with itself 1."""
    nearest, parts = _nearest(found.values, words), []
    for level in range(levels):
        side = 2**level
        cells = np.minimum((found.places * side).astype(np.int64), side - 1) @ (side, 1)
        counts = np.bincount(cells * len(words) + nearest, minlength=side**2 * len(words))
        weight = 2.0 ** -(levels - 1 if level == 0 else levels - level)
        parts.append(weight * counts)
    return np.concatenate(parts) / max(len(nearest), 1)


def _nearest(values: np.ndarray, words: np.ndarray) -> np.ndarray:
    return (((words**2).sum(1) - 2 * values @ words.T).argmin(1)) if len(values) else np.zeros(0, np.int64)


def squares(name: str, half: int, step: int) -> list[np.ndarray]:
    """(SIDE, SIDE, 3) pieces of the left or right half of a photograph, which share no pixel across halves."""
    from skimage import data

    pixels = getattr(data, name)()
    middle = pixels.shape[1] // 2
    pixels = pixels[:, middle:] if half else pixels[:, :middle]
    corners = [(y, x) for y in range(0, pixels.shape[0] - SIDE + 1, step) for x in range(0, middle - SIDE + 1, step)]
    return [pixels[y : y + SIDE, x : x + SIDE] for y, x in corners]


def main(step: int = 48, count: int = 60) -> dict[str, float]:
    """Returns, for each description, how many of the held-out squares are told rightly; ``count`` words."""
    try:
        from skimage.color import rgb2gray
        from skimage.feature import fisher_vector, learn_gmm
        from sklearn.cluster import KMeans
        from sklearn.decomposition import PCA
        from sklearn.svm import SVC, LinearSVC
    except ImportError as error:
        needed = "scikit-image and scikit-learn: pip install 'fastcnn[bench,examples]'"
        raise SystemExit(f"this example needs {needed}") from error
    pieces = [[p for name in PHOTOGRAPHS for p in squares(name, half, step)] for half in (0, 1)]
    labels = [np.array([i for i, name in enumerate(PHOTOGRAPHS) for _ in squares(name, half, step)]) for half in (0, 1)]
    found = [[sift(rgb2gray(piece)) for piece in half] for half in pieces]
    every = np.concatenate([each.values for each in found[0]])
    words = KMeans(count, n_init=1, random_state=0).fit(every).cluster_centers_
    smaller = PCA(16, random_state=0).fit(every)
    mixture = learn_gmm(smaller.transform(every), n_modes=8, gm_args={"covariance_type": "diag", "random_state": 0})

    def fisher(each: Descriptors) -> np.ndarray:
        if not len(each.values):
            return np.zeros(8 * (1 + 2 * 16))
        vector = fisher_vector(smaller.transform(each.values), mixture, improved=True)
        return np.nan_to_num(vector)

    print(f"{len(labels[0])} squares to learn from, {len(labels[1])} held out, {len(every)} descriptors")
    right = {}
    for name, describe, sources in (
        ("colour histograms", colour_histogram, pieces),
        ("visual words", lambda each: word_histogram(each, words), found),
        ("spatial pyramids", lambda each: spatial_pyramid(each, words), found),
        ("Fisher vectors", fisher, found),
    ):
        train, test = (np.stack([describe(each) for each in half]) for half in sources)
        if name == "Fisher vectors":
            answers = LinearSVC(random_state=0).fit(train, labels[0]).predict(test)
        else:  # What two histograms share, the kernel of all three papers' comparisons.
            shared = [np.minimum(each[:, None], train).sum(2) for each in (train, test)]
            answers = SVC(kernel="precomputed", C=10).fit(shared[0], labels[0]).predict(shared[1])
        right[name] = float((answers == labels[1]).mean())
        print(f"{name}: {train.shape[1]} numbers, {right[name]:.0%} right")
    return right


if __name__ == "__main__":
    main()
