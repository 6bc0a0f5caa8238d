"""The ideas behind the CUDA kernels, as numpy models: exact, not nearly so."""

import numpy as np
import pytest

BAND = 3
FAMILIES = ["uniform", "dense", "clustered", "same", "chain", "ties"]


def boxes_of(family, count, rng):
    """``[count, 4]`` boxes in order of score."""
    if family == "same":
        return np.tile(np.array([[0.0, 0, 10, 10]]), (count, 1))
    if family == "chain":  # Each suppresses its neighbours only: the longest dependency there is.
        x = np.arange(count) * 3.0
        return np.stack([x, 0 * x, x + 10, 0 * x + 10], 1)
    if family == "ties":  # Few places and sizes: many IoUs exactly at the threshold.
        corner = rng.integers(0, 6, (count, 2)) * 4.0
        return np.concatenate([corner, corner + rng.integers(1, 4, (count, 2)) * 4.0], 1)
    if family == "clustered":
        corner = rng.integers(0, 5, (count, 1)) * 100.0 + rng.normal(0, 5, (count, 2))
        return np.concatenate([corner, corner + 40 + rng.normal(0, 5, (count, 2))], 1)
    corner = rng.random((count, 2)) * (1000 if family == "uniform" else 60)
    return np.concatenate([corner, corner + rng.random((count, 2)) * 50], 1)


def suppression_matrix(boxes, threshold):
    """``[i, j]``: box i, if kept, suppresses the later box j."""
    low, high = np.maximum(boxes[:, None, :2], boxes[None, :, :2]), np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    inter = np.clip(high - low, 0, None).prod(2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    with np.errstate(invalid="ignore"):
        above = inter / (area[:, None] + area[None] - inter) > threshold
    return np.triu(above, 1)


def greedy(matrix):
    keep = np.zeros(len(matrix), bool)
    for i in range(len(matrix)):
        keep[i] = not (matrix[:, i] & keep).any()
    return keep


def fixpoint(matrix, alive):
    keep, sweeps = alive, 0
    while True:
        again = alive & ~(matrix & keep[:, None]).any(0)
        sweeps += 1
        if (again == keep).all():
            return keep, sweeps
        keep = again


def tiled(matrix, tile):
    """As csrc/nms/nms_cuda.cuh: kept boxes up to the band, then the band, then the tile itself by fixed point."""
    count = len(matrix)
    keep = np.zeros(count, bool)
    most_sweeps = 0
    for begin in range(0, count, tile):
        end, band = min(begin + tile, count), max(begin - BAND * tile, 0)
        alive = np.ones(end - begin, bool)
        for earlier in (np.flatnonzero(keep[:band]), band + np.flatnonzero(keep[band:begin])):
            alive &= ~matrix[earlier, begin:end].any(0)
        keep[begin:end], sweeps = fixpoint(matrix[begin:end, begin:end], alive)
        most_sweeps = max(most_sweeps, sweeps)
    return keep, most_sweeps


@pytest.mark.parametrize("threshold", [0.0, 1 / 3, 0.5, 0.9])
@pytest.mark.parametrize("tile", [1, 8, 64])
@pytest.mark.parametrize("family", FAMILIES)
def test_tiled_fixpoint_is_greedy_suppression(family, tile, threshold):
    for count in (1, 63, 64, 65, 500):
        matrix = suppression_matrix(boxes_of(family, count, np.random.default_rng(count)), threshold)
        keep, sweeps = tiled(matrix, tile)
        assert (keep == greedy(matrix)).all()
        assert sweeps <= tile + 1


def test_fixpoint_needs_as_many_sweeps_as_a_chain_is_long():
    matrix = np.eye(64, k=1, dtype=bool)
    keep, sweeps = fixpoint(matrix, np.ones(64, bool))
    assert keep.tolist() == [i % 2 == 0 for i in range(64)]
    assert 60 <= sweeps <= 65


def axis(low, high, bins, size, grid):
    """``[bins, grid]`` of (low pixel, high pixel, low weight, high weight), 0 weights where a sample is outside."""
    step = (high - low) / bins
    at = low + (np.arange(bins)[:, None] + (np.arange(grid) + 0.5) / grid) * step
    inside = (at >= -1) & (at <= size)
    at = np.clip(at, 0, size - 1)
    first = np.minimum(at.astype(int), size - 1)
    w_high = at - first
    return first, np.minimum(first + 1, size - 1), np.where(inside, 1 - w_high, 0), np.where(inside, w_high, 0)


def matrix_of(taps, size):
    """``[bins, size]``: the weights a bin gives to pixels, all its samples added up."""
    low, high, w_low, w_high = taps
    matrix = np.zeros((low.shape[0], size))
    for b in range(low.shape[0]):
        np.add.at(matrix[b], low[b], w_low[b])
        np.add.at(matrix[b], high[b], w_high[b])
    return matrix


def scatter(grad, y, x, size, out):
    """As torchvision's backward: every sample of every bin adds to its four pixels."""
    bins_y, grid_y = y[0].shape
    bins_x, grid_x = x[0].shape
    for ph, pw, i, j in np.ndindex(bins_y, bins_x, grid_y, grid_x):
        share = grad[ph, pw] / (grid_y * grid_x)
        for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
            out[y[a][ph, i], x[b][pw, j]] += share * y[2 + a][ph, i] * x[2 + b][pw, j]


def gather(grads, matrices, size, tile):
    """As csrc/roi_align/roi_align_backward_cuda.cuh: a tile of pixels adds up the RoIs that touch it, in order."""
    out = np.zeros(size)
    for top in range(0, size[0], tile):
        for left in range(0, size[1], tile):
            rows, columns = slice(top, top + tile), slice(left, left + tile)
            for grad, (a_y, a_x) in zip(grads, matrices, strict=True):
                if a_y[:, rows].any() and a_x[:, columns].any():
                    out[rows, columns] += a_y[:, rows].T @ grad @ a_x[:, columns]
    return out


@pytest.mark.parametrize("tile", [1, 8])
@pytest.mark.parametrize("grid", [1, 2, 5])
def test_gather_backward_is_the_scatter(grid, tile):
    rng = np.random.default_rng(grid)
    size, bins = (13, 21), (3, 4)
    expected, grads, matrices = np.zeros(size), [], []
    for _ in range(12):
        corner, extent = rng.uniform(-8, 22, 2), rng.uniform(-2, 25, 2)
        y = axis(corner[0], corner[0] + extent[0], bins[0], size[0], grid)
        x = axis(corner[1], corner[1] + extent[1], bins[1], size[1], grid)
        grads.append(rng.normal(size=bins))
        matrices.append((matrix_of(y, size[0]) / grid**2, matrix_of(x, size[1])))
        scatter(grads[-1], y, x, size, expected)
    np.testing.assert_allclose(gather(grads, matrices, size, tile), expected, rtol=0, atol=1e-12)
