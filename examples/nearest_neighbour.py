"""The first classifier of every course: the label of the training image with the smallest sum of absolute differences.

Nothing is learnt: "training" remembers the images. On scikit-learn's handwritten digits, with a fifth held out
(``pip install 'fastcnn[examples]'``). Run: ``python examples/nearest_neighbour.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor

# A lecture's worked example: a test and a training image, whose distance is 456.
TEST_IMAGE = ((56, 32, 10, 18), (90, 23, 128, 133), (24, 26, 178, 200), (2, 0, 255, 220))
TRAINING_IMAGE = ((10, 20, 24, 17), (8, 10, 89, 100), (12, 16, 178, 170), (4, 32, 233, 112))


def distances(images: Tensor, others: Tensor) -> Tensor:
    """L1 between all of (N, ...) and (M, ...): (N, M)."""
    return torch.cdist(images.flatten(1).double(), others.flatten(1).double(), p=1)


class NearestNeighbour:
    """Of several nearest neighbours the label most of them have; of equals the smallest."""

    def __init__(self, images: Tensor, labels: Tensor, neighbours: int = 1) -> None:
        if not 1 <= neighbours <= len(images) or len(images) != len(labels):
            raise ValueError(
                f"1 to {len(images)} neighbours, a label for each image: got {neighbours}, {len(labels)} labels"
            )
        self.images, self.labels, self.neighbours = images, labels, neighbours

    def __call__(self, images: Tensor) -> Tensor:
        """Labels (N,) of (N, ...)."""
        nearest = distances(images, self.images).topk(self.neighbours, largest=False).indices
        return self.labels[nearest].mode(1).values


def load() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images (N, 8, 8) and digits to remember, and those held out."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise SystemExit("this example needs scikit-learn: pip install 'fastcnn[examples]'") from error
    digits = load_digits()
    images, labels = torch.from_numpy(digits.images), torch.from_numpy(digits.target)
    train, test = train_test_split(range(len(labels)), test_size=0.2, random_state=0, stratify=digits.target)
    return images[train], labels[train], images[test], labels[test]


def main() -> float:
    """Prints the lecture's distance and the accuracy on held-out digits; returns the latter."""
    images = (torch.tensor(image)[None] for image in (TEST_IMAGE, TRAINING_IMAGE))
    print(f"the lecture's two images: {distances(*images).item():.0f} apart")
    train, train_labels, test, test_labels = load()
    for neighbours in (5, 1):
        predict = NearestNeighbour(train, train_labels, neighbours)
        found = (predict(test) == test_labels).double().mean().item()
        print(f"{neighbours} nearest of {len(train)} digits: {found:.1%} of {len(test)} right")
    shifted = (predict(test.roll(1, 2)) == test_labels).double().mean().item()
    print(f"the same images moved by one pixel of eight: {shifted:.1%}, as whole images are compared")
    return found


if __name__ == "__main__":
    main()
