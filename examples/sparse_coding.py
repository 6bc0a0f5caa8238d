"""Sparse coding, the best of ILSVRC-2010 before networks: images as few atoms of a learnt dictionary.

Patches of an image are coded by orthogonal matching pursuit over a dictionary that is learnt from patches, the largest
magnitude of each atom is kept for each quarter of the image (Yang et al., CVPR 2009), and a linear SVM tells the class.
On scikit-learn's handwritten digits, a fifth held out (``pip install 'fastcnn[examples]'``). Run: ``python
examples/sparse_coding.py``.
"""

from __future__ import annotations

import numpy as np

PATCH, ATOMS, NONZERO = 4, 64, 3


def patches(images: np.ndarray) -> np.ndarray:
    """All 4 x 4 patches of (N, 8, 8), without their mean: (N, 5, 5, 16)."""
    windows = np.lib.stride_tricks.sliding_window_view(images, (PATCH, PATCH), (1, 2))
    flat = windows.reshape(*windows.shape[:3], PATCH**2)
    return flat - flat.mean(-1, keepdims=True)


def learn_dictionary(images: np.ndarray, atoms: int = ATOMS, count: int = 4000) -> np.ndarray:
    """(atoms, 16) of length 1, from ``count`` patches of the images that are not flat."""
    from sklearn.decomposition import MiniBatchDictionaryLearning

    every = patches(images).reshape(-1, PATCH**2)
    every = every[np.abs(every).max(1) > 0.1]
    drawn = every[np.random.default_rng(0).permutation(len(every))[:count]]
    learner = MiniBatchDictionaryLearning(atoms, alpha=0.2, max_iter=20, random_state=0)
    return learner.fit(drawn).components_


def encode(images: np.ndarray, dictionary: np.ndarray) -> np.ndarray:
    """(N, 8, 8) to (N, 4 * atoms): of each quarter each atom's largest magnitude."""
    from sklearn.decomposition import sparse_encode

    found = patches(images)
    codes = sparse_encode(found.reshape(-1, PATCH**2), dictionary, algorithm="omp", n_nonzero_coefs=NONZERO)
    maps = np.abs(codes).reshape(*found.shape[:3], -1)
    halves = (slice(0, 3), slice(2, 5))
    return np.concatenate([maps[:, rows, columns].max((1, 2)) for rows in halves for columns in halves], 1)


def main(count: int = 1797) -> float:
    """Prints and returns the accuracy on held-out digits; ``count`` is how many images are used."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
        from sklearn.svm import LinearSVC
    except ImportError as error:
        raise SystemExit("this example needs scikit-learn: pip install 'fastcnn[examples]'") from error
    digits = load_digits()
    images, labels = digits.images[:count] / 16, digits.target[:count]
    train, test, train_labels, test_labels = train_test_split(
        images, labels, test_size=0.2, random_state=0, stratify=labels
    )
    dictionary = learn_dictionary(train)
    codes = [encode(part, dictionary) for part in (train, test)]
    used = (codes[0] > 0).mean()
    print(f"{len(dictionary)} atoms of {PATCH} x {PATCH}, at most {NONZERO} a patch; {used:.0%} of the codes not 0")
    svm = LinearSVC(C=1.0, random_state=0).fit(codes[0], train_labels)
    found = float((svm.predict(codes[1]) == test_labels).mean())
    print(f"{found:.1%} of {len(test)} held-out digits right")
    return found


if __name__ == "__main__":
    main()
