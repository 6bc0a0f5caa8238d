"""Position-sensitive pooling against what torchvision's documentation says of it, bin by bin and pixel by pixel."""

import math

import pytest
import torch

from fastcnn.nn import PSRoIPool
from fastcnn.nn.pooling import ps_roi_pool

BOXES = torch.tensor(
    [
        [0, 3.0, 2.0, 60.0, 50.0],
        [1, 0.0, 0.0, 8.0, 8.0],
        [1, -20.0, -30.0, 40.0, 35.0],
        [0, 24.0, 40.0, 23.0, 100.0],
        [0, 500.0, 500.0, 600.0, 600.0],
        [1, 12.0, 20.0, 13.0, 21.0],
        [0, 0.0, 0.0, math.nan, 9.0],
        [1, 36.0, 4.0, 44.0, 60.0],
    ]
)


def by_hand(input, boxes, bins, scale):
    """In lists of pixels; halves are rounded away from zero."""
    height, width = bins
    channels = input.size(1) // (height * width)
    result = input.new_zeros(len(boxes), channels, height, width)
    for k, (image, *corners) in enumerate(boxes.tolist()):
        if any(map(math.isnan, corners)):
            continue
        x1, y1, x2, y2 = (math.copysign(math.floor(abs(c * scale) + 0.5), c) for c in corners)
        for c in range(channels):
            for i in range(height):
                for j in range(width):
                    sides = []
                    for start, end, bin_, count, size in (
                        (y1, y2, i, height, input.size(2)),
                        (x1, x2, j, width, input.size(3)),
                    ):
                        step = max(end - start, 1) / count
                        first, after = math.floor(bin_ * step) + start, math.ceil((bin_ + 1) * step) + start
                        sides.append([p for p in range(size - 1) if first <= p < after])
                    values = [input[int(image), (c * height + i) * width + j, y, x] for y in sides[0] for x in sides[1]]
                    if values:
                        result[k, c, i, j] = sum(values) / len(values)
    return result


@pytest.mark.parametrize("bins", [(3, 3), (2, 4), (1, 1)])
def test_means_of_bins(bins):
    maps = torch.randn(2, 5 * bins[0] * bins[1], 8, 9, dtype=torch.float64, requires_grad=True)
    found, wanted = ps_roi_pool(maps, BOXES.double(), bins, 0.125), by_hand(maps, BOXES, bins, 0.125)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    assert found.is_contiguous() and (found[4] == 0).all() and (found[6] == 0).all() and found[0].ne(0).all()
    weights = torch.randn_like(found)
    gradients = [torch.autograd.grad((each * weights).sum(), maps)[0] for each in (found, wanted)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_gradients():
    maps = torch.randn(1, 8, 5, 6, dtype=torch.float64, requires_grad=True)
    boxes = [torch.tensor([[0.0, 1.0, 3.0, 4.0], [1.0, 0.0, 6.0, 5.0]])]
    assert torch.autograd.gradcheck(lambda x: ps_roi_pool(x, boxes, 2), maps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes_and_layouts(dtype):
    maps = torch.randn(2, 18, 8, 9)
    pool, maps = PSRoIPool(3, 0.125), maps.to(dtype)
    wanted = pool(maps.double(), BOXES.double())
    for each in (maps, maps.to(memory_format=torch.channels_last), maps.repeat(1, 1, 1, 2)[..., :9]):
        found = pool(each, BOXES)
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), wanted, rtol=torch.finfo(dtype).eps, atol=1e-7)
    assert torch.equal(pool(maps, BOXES), pool(maps, BOXES))
    assert pool(maps, BOXES[:0]).shape == (0, 2, 3, 3)
    as_list = [BOXES[BOXES[:, 0] == image, 1:] for image in (0, 1)]
    assert torch.equal(pool(maps, as_list), pool(maps, BOXES[BOXES[:, 0].argsort(stable=True)]))
    assert pool(maps.to("meta"), BOXES.to("meta")).shape == (8, 2, 3, 3)


@pytest.mark.parametrize(
    ("shape", "boxes", "error", "message"),
    [
        ((2, 10, 8, 9), BOXES, ValueError, r"channels in multiples of 3 \* 3 bins, got 10"),
        ((10, 8, 9), BOXES, ValueError, r"4 dimensions, got shape \(10, 8, 9\)"),
        ((2, 9, 8, 9), BOXES[:, 1:], ValueError, r"boxes of shape \[K, 5\]"),
        ((1, 9, 8, 9), BOXES, ValueError, r"box 1 has batch index 1, but the input holds 1 image"),
        ((2, 9, 8, 9), BOXES.long(), TypeError, "floating-point dtype, got torch.int64"),
    ],
)
def test_bad_arguments(shape, boxes, error, message):
    with pytest.raises(error, match=message):
        ps_roi_pool(torch.zeros(shape), boxes, 3)
