"""Anchors and default boxes against the papers' tables and counts."""

import pytest
import torch

from fastcnn.models.detection.anchors import AnchorGenerator, DefaultBoxes, even_scales, ssd_shapes
from fastcnn.models.detection.boxes import box_area, is_inside


def maps_of(*sides, dtype=torch.float32):
    return [torch.empty(1, 1, *(side if isinstance(side, tuple) else (side, side)), dtype=dtype) for side in sides]


def test_nine_anchors_of_three_sizes_and_ratios():
    (cell,) = AnchorGenerator([(128, 256, 512)]).cells()
    assert cell.shape == (9, 4)
    width, height = cell[:, 2] - cell[:, 0], cell[:, 3] - cell[:, 1]
    torch.testing.assert_close(
        box_area(cell).reshape(3, 3), torch.tensor([[128.0, 256, 512]]).square().expand(3, 3), rtol=0.02, atol=0
    )
    torch.testing.assert_close(
        (height / width).reshape(3, 3), torch.tensor([[0.5], [1], [2]]).expand(3, 3), rtol=0.02, atol=0
    )
    torch.testing.assert_close(cell[:, :2], -cell[:, 2:])


def test_anchors_of_the_paper_at_600x1000():
    (anchors,) = AnchorGenerator([(128, 256, 512)])((600, 1000), maps_of((37, 62)))
    assert len(anchors) == 37 * 62 * 9 == 20_646
    # Those that do not cross the border, of which section 3.1.3 says "roughly 6000": each shape fits so often.
    limits = torch.tensor([1000.0, 600, 1000, 600])
    inside = is_inside(anchors, limits).reshape(-1, 9).sum(0).tolist()
    cell = anchors[:9]
    sides = (cell[:, 2:] - cell[:, :2]).tolist()
    for count, (width, height) in zip(inside, sides, strict=True):
        fitting = [max(0, (extent - side) / 16) for extent, side in ((1000, width), (600, height))]
        assert abs(count - fitting[0] * fitting[1]) <= sum(fitting) + 1
    assert sum(inside) == 8044


def test_anchors_do_not_depend_on_the_place():
    """Rows of positions, and at each its cell moved by the stride: 600 // 37 = 16."""
    generator = AnchorGenerator([(128, 256, 512)])
    (anchors,) = generator((600, 1000), maps_of((37, 62)))
    grid = anchors.reshape(37, 62, 9, 4)
    torch.testing.assert_close(grid[0, 0], generator.cells()[0])
    torch.testing.assert_close(grid[5, 7], grid[0, 0] + torch.tensor([7.0, 5, 7, 5]) * 16)


@pytest.mark.parametrize(
    ("size", "count"), [((600, 600), 67_995), ((700, 700), 92_889), ((600, 1000), 113_193), ((800, 800), 120_087)]
)
def test_retinanets_boxes(size, count):
    sizes = [[int(size * 2 ** (third / 3)) for third in range(3)] for size in (32, 64, 128, 256, 512)]
    sides = [tuple(-(-side // stride) for side in size) for stride in (8, 16, 32, 64, 128)]
    anchors = AnchorGenerator(sizes)(size, maps_of(*sides))
    assert sum(map(len, anchors)) == count


def test_default_boxes_of_ssd300():
    shapes = ssd_shapes([(2,), (2, 3), (2, 3), (2, 3), (2,), (2,)], (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05))
    boxes = DefaultBoxes(shapes, steps=(8, 16, 32, 64, 100, 300))
    assert boxes.per_position() == (4, 6, 6, 6, 4, 4)
    found = boxes((300, 300), maps_of(38, 19, 10, 5, 3, 1))
    assert [len(each) for each in found] == [38**2 * 4, 19**2 * 6, 10**2 * 6, 5**2 * 6, 3**2 * 4, 4]
    assert sum(map(len, found)) == 8732
    # A square of 0.07, one of sqrt(0.07 * 0.15), and two of 2:1; the second position is 8 pixels to the right.
    widths = (found[0][:4, 2] - found[0][:4, 0]) / 300
    torch.testing.assert_close(widths, torch.tensor([0.07, (0.07 * 0.15) ** 0.5, 0.07 * 2**0.5, 0.07 / 2**0.5]))
    torch.testing.assert_close(
        found[0][4:8] - found[0][:4], torch.tensor([8.0, 0, 8, 0]).expand(4, 4), rtol=0, atol=1e-4
    )
    # The last scale, 1.05, is cut off at the image.
    assert float(found[-1].max()) == pytest.approx(300, abs=1e-3)


def test_scales_are_even():
    assert even_scales(0.2, 0.95, 6) == pytest.approx([0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_half_types_tell_neighbouring_pixels_apart(dtype):
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    for generator in (AnchorGenerator([(32,)]), DefaultBoxes([[(0.1, 0.1)]])):
        (boxes,) = generator((1000, 1000), maps_of((1000, 1000), dtype=dtype))
        assert boxes.dtype == wanted
        assert len(boxes.reshape(1000, 1000, -1, 4)[0, :, 0, 0].unique()) == 1000


def test_other_numbers_of_maps():
    with pytest.raises(ValueError, match="anchors are for 1 feature maps, got 2"):
        AnchorGenerator([(32,)])((64, 64), maps_of(8, 4))
    with pytest.raises(ValueError, match="need a step for each of 1 maps, got 2"):
        DefaultBoxes([[(0.1, 0.1)]], steps=(8, 16))
    with pytest.raises(ValueError, match="2 maps need 3 scales, got 2"):
        ssd_shapes([(2,), (2,)], (0.1, 0.2))
