"""Greedy suppression from its definition, and random cases of every kind for what must agree with it."""

import math

import numpy as np
import torch


def brute_force(boxes, scores, idxs, threshold):
    """Greedy suppression from its definition, in numpy and in the dtype that boxes are compared in."""
    b = (boxes if boxes.dtype == torch.float64 else boxes.float()).numpy()
    s = (scores if scores.dtype == torch.float64 else scores.float()).numpy()
    classes = idxs.numpy()
    with np.errstate(all="ignore"):
        low, high = np.maximum(b[:, None, :2], b[None, :, :2]), np.minimum(b[:, None, 2:], b[None, :, 2:])
        sides = np.where(high - low > 0, high - low, 0).astype(b.dtype)
        area = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
        inter = sides[..., 0] * sides[..., 1]
        # Symmetric up to the order of the sum of areas, which rounds alike.
        iou = inter / (area[:, None] + area[None, :] - inter)
        over = ((iou.astype(np.float64) > threshold) & (classes[:, None] == classes[None, :])).tolist()
    # NaN first, then from high to low; sorted() is stable.
    kept: list[int] = []
    for i in sorted(range(len(s)), key=lambda i: (not np.isnan(s[i]), -s[i] if not np.isnan(s[i]) else 0)):
        if not any(over[k][i] for k in kept):
            kept.append(i)
    return kept


def random_case(draw: np.random.Generator):
    n = int(draw.integers(0, 14))
    corner = draw.random((n, 2)) * draw.choice([0.1, 20.0, 200.0])
    boxes = np.concatenate([corner, corner + draw.random((n, 2)) * draw.choice([0.1, 20.0, 200.0])], 1)
    kind = draw.integers(8)
    if kind == 1:
        boxes = boxes.round()
    elif kind == 2:
        boxes -= 150
    elif kind == 3 and n:  # NaN, infinite, empty and inverted boxes.
        rows = draw.integers(n, size=3)
        boxes[rows[0], draw.integers(4)] = draw.choice([np.nan, np.inf, -np.inf])
        boxes[rows[1], 2:] = boxes[rows[1], :2]
        boxes[rows[2]] = boxes[rows[2], [2, 3, 0, 1]]
    elif kind == 4:
        boxes *= draw.choice([1e5, 1e18, 1e30, 1e-20, 1e-30])
    elif kind == 5 and n:  # The same few boxes again and again.
        boxes = boxes[draw.integers(min(n, 3), size=n)]
    elif kind == 6:
        boxes += 1e6
    scores = draw.random(n)
    if draw.random() < 0.4:
        scores = (scores * 3).round() / 3
    if n and draw.random() < 0.1:
        scores[draw.integers(n, size=2)] = draw.choice([np.nan, np.inf, -np.inf, -0.0])
    classes = (
        draw.integers(-2, 3, n) if draw.random() < 0.8 else draw.integers(-(2**62), 2**62, 3)[draw.integers(3, size=n)]
    )
    dtypes = [torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16]
    dtype, score_dtype = dtypes[draw.integers(5)], dtypes[draw.integers(5)]
    threshold = float(draw.choice([0.5, 0.5, 0.3, 0.7, 0.0, -0.0, 0.1, 1 / 3, 0.9, 1.0, 2.0, -0.5, math.nan]))
    tensors = (torch.from_numpy(boxes).to(dtype), torch.from_numpy(scores).to(score_dtype), torch.from_numpy(classes))
    return *tensors, threshold
