"""The backward passes of the CUDA kernels over RoIs as plain loops: which bins reach a pixel, added in which order."""

import numpy as np

TILE = (4, 16)  # Pixels of a block of roi_pool's gather.
LOWEST = np.finfo(np.float32).min


def pool_bounds(low, high, scale, bins, size):
    """Pixels [begin, end) of every bin of one axis, computed in float32."""
    first, last = (np.trunc(c) + np.sign(c) * (abs(c - np.trunc(c)) >= 0.5) for c in np.float32([low, high]) * scale)
    step = np.float32(max(last - first + 1, 1)) / np.float32(bins)
    edges = [(first + np.floor(np.float32(b) * step), first + np.ceil(np.float32(b + 1) * step)) for b in range(bins)]
    return [(int(min(max(begin, 0), size)), int(min(max(end, 0), size))) for begin, end in edges]


def pool_places(x, rois, scale, bins):
    """``[K, height, width, C, 2]`` rows and columns of the first maxima, -1 where there is none."""
    _, channels, height, width = x.shape
    places = np.full((len(rois), *bins, channels, 2), -1)
    for k, (image, x1, y1, x2, y2) in enumerate(rois):
        rows, columns = pool_bounds(y1, y2, scale, bins[0], height), pool_bounds(x1, x2, scale, bins[1], width)
        for ph, (top, bottom) in enumerate(rows):
            for pw, (left, right) in enumerate(columns):
                largest = np.full(channels, LOWEST, x.dtype)
                for y in range(top, bottom):
                    for column in range(left, right):
                        value = x[int(image), :, y, column]
                        places[k, ph, pw, value > largest] = y, column
                        largest = np.where(value > largest, value, largest)
    return places


def roi_pool_backward(grad, x, rois, scale, warps, threads):
    """A tile looks through the RoIs in order, `threads` at a time; those that reach it go to the warps by turns."""
    images, channels, height, width = x.shape
    bins = grad.shape[2:]
    places = pool_places(x, rois, scale, bins)
    bounds = [
        (pool_bounds(y1, y2, scale, bins[0], height), pool_bounds(x1, x2, scale, bins[1], width))
        for _, x1, y1, x2, y2 in rois
    ]

    def overlapping(bounds, begin, size):
        return [b for b, (first, end) in enumerate(bounds) if first < begin + size and begin < end]

    out = np.zeros_like(x)
    for image, top, left in np.ndindex(images, -(-height // TILE[0]), -(-width // TILE[1])):
        top, left = top * TILE[0], left * TILE[1]
        sums = np.zeros((warps, channels, *TILE), x.dtype)
        for base in range(0, len(rois), threads):
            turn = 0
            for k in range(base, min(base + threads, len(rois))):
                (rows, columns) = bounds[k]
                spans = [(axis[0][0], axis[-1][1]) for axis in (rows, columns)]
                if int(rois[k][0]) != image or not all(
                    begin < at + size and at < end
                    for (begin, end), at, size in zip(spans, (top, left), TILE, strict=True)
                ):
                    continue
                for ph in overlapping(rows, top, TILE[0]):
                    for pw in overlapping(columns, left, TILE[1]):
                        for c in range(channels):
                            y, column = places[k, ph, pw, c] - (top, left)
                            if 0 <= y < TILE[0] and 0 <= column < TILE[1]:
                                sums[turn % warps, c, y, column] += grad[k, c, ph, pw]
                turn += 1
        total = sums[0]
        for warp in range(1, warps):
            total = total + sums[warp]
        bottom, right = min(top + TILE[0], height), min(left + TILE[1], width)
        out[image, :, top:bottom, left:right] = total[:, : bottom - top, : right - left]
    return out


def align_weights(low, high, scale, bins, size, ratio, aligned):
    """``[bins, size]`` summed weights of the samples of one axis, and samples per bin."""
    offset = 0.5 if aligned else 0.0
    start = low * scale - offset
    length = high * scale - offset - start
    step = (length if aligned else max(length, 1)) / bins
    grid = ratio if ratio > 0 else max(int(np.ceil(step)), 0)
    weights = np.zeros((bins, size))
    for b, sample in np.ndindex(bins, grid):
        at = start + b * step + (sample + 0.5) * step / grid
        if -1 <= at <= size:
            at = min(max(at, 0), size - 1)
            first = int(at)
            weights[b, first] += 1 - (at - first)
            weights[b, min(first + 1, size - 1)] += at - first
    return weights, grid


def multi_scale_roi_align_backward(grad, rois, levels, scales, sizes, ratio, aligned):
    """A pixel adds up, in the order of the RoIs of its level, the bins with weight on its row and column."""
    outs = []
    for level, (scale, size) in enumerate(zip(scales, sizes, strict=True)):
        out = np.zeros(size)
        for k, (image, x1, y1, x2, y2) in enumerate(rois):
            if levels[k] != level:
                continue
            rows, grid_y = align_weights(y1, y2, scale, grad.shape[2], size[2], ratio, aligned)
            columns, grid_x = align_weights(x1, x2, scale, grad.shape[3], size[3], ratio, aligned)
            for y, x in np.argwhere(np.outer(rows.any(0), columns.any(0))):
                for ph in np.flatnonzero(rows[:, y]):
                    for pw in np.flatnonzero(columns[:, x]):
                        weight = rows[ph, y] * columns[pw, x] / (grid_y * grid_x)
                        out[int(image), :, y, x] += weight * grad[k, :, ph, pw]
        outs.append(out)
    return outs
