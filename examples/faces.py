"""Faces before networks: eigenfaces, and the boosted rectangles of Viola and Jones.

Turk and Pentland (1991) take a face as a sum of the principal components of faces; Viola and Jones (CVPR 2001) take
sums over rectangles, each in four look-ups of an integral image, and let AdaBoost choose few of many. Both on 100 faces
of 25 x 25 pixels that scikit-image has (``pip install 'fastcnn[bench,examples]'``). Run: ``python examples/faces.py``.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Eigenfaces:
    """The mean of images (N, H, W) and their first principal components."""

    def __init__(self, images: Tensor, components: int) -> None:
        if not 1 <= components <= min(len(images), images[0].numel()):
            raise ValueError(f"components must be from 1 to {min(len(images), images[0].numel())}, got {components}")
        flat = images.flatten(1).double()
        self.shape, self.mean = images.shape[1:], flat.mean(0)
        self.basis = torch.linalg.svd(flat - self.mean, full_matrices=False).Vh[:components]

    def encode(self, images: Tensor) -> Tensor:
        """(N, H, W) to (N, components)."""
        return (images.flatten(1).double() - self.mean) @ self.basis.T

    def decode(self, codes: Tensor) -> Tensor:
        """The images (N, H, W) of codes: of all that have them, the nearest to the mean."""
        return (codes @ self.basis + self.mean).unflatten(1, self.shape)

    def error(self, images: Tensor) -> Tensor:
        """(N): mean square of what the components cannot say: small for faces."""
        return (self.decode(self.encode(images)) - images).square().mean((1, 2))


def rectangles(images: np.ndarray, kinds: tuple[str, ...], chosen: np.ndarray | None = None) -> np.ndarray:
    """(N, features): differences between neighbouring rectangles of (N, H, W), all of these kinds or those chosen."""
    from skimage.feature import haar_like_feature, haar_like_feature_coord
    from skimage.transform import integral_image

    height, width = images.shape[1:]
    coordinates, types = haar_like_feature_coord(width, height, list(kinds))
    if chosen is not None:
        coordinates, types = coordinates[chosen], types[chosen]
    return np.stack(
        [haar_like_feature(integral_image(i), 0, 0, width, height, types, coordinates) for i in images]
    ).astype(np.float32)


def viola_jones(train: np.ndarray, labels: np.ndarray, candidates: int = 3000, rounds: int = 20):
    """Boosted stumps, and the numbers of the rectangles they look at among ``candidates`` drawn ones."""
    from skimage.feature import haar_like_feature_coord
    from sklearn.ensemble import AdaBoostClassifier

    total = len(haar_like_feature_coord(train.shape[2], train.shape[1], list(KINDS))[1])
    drawn = np.sort(np.random.default_rng(0).choice(total, min(candidates, total), replace=False))
    boosted = AdaBoostClassifier(n_estimators=rounds, random_state=0)
    boosted.fit(rectangles(train, KINDS, drawn), labels)
    return boosted, drawn


KINDS = ("type-2-x", "type-2-y", "type-3-x", "type-4")


def main(candidates: int = 3000, rounds: int = 20) -> tuple[float, float]:
    """Returns how many of the held-out images eigenfaces and boosted rectangles tell rightly."""
    try:
        from skimage.data import lfw_subset
    except ImportError as error:
        raise SystemExit("this example needs scikit-image: pip install 'fastcnn[bench,examples]'") from error
    images = torch.from_numpy(lfw_subset()).double()
    labels = torch.arange(200) < 100
    train = torch.arange(200) % 4 != 0

    for components in (1, 5, 25, 75):
        error = Eigenfaces(images[train & labels], components).error(images[train & labels]).mean().sqrt()
        print(f"{components:2} eigenfaces: faces they are of within {error:.3f} of a grey level in [0, 1]")
    space = Eigenfaces(images[train & labels], 25)
    codes = space.encode(images)
    nearest = torch.cdist(codes[~train], codes[train]).argmin(1)
    by_space = (labels[train][nearest] == labels[~train]).double().mean().item()
    print(f"held out, by the nearest of the codes in 25 eigenfaces: {by_space:.0%} of {int((~train).sum())} right")

    pixels, answers = images.float().numpy(), labels.numpy()
    boosted, drawn = viola_jones(pixels[train], answers[train], candidates, rounds)
    found = boosted.predict(rectangles(pixels[~train], KINDS, drawn)) == answers[~train]
    used = int((boosted.feature_importances_ > 0).sum())
    print(f"held out, by {rounds} boosted stumps on {used} of {len(drawn)} rectangles: {found.mean():.0%} right")
    return by_space, float(found.mean())


if __name__ == "__main__":
    main()
