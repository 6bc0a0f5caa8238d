"""Images and targets on their way into the square batch and back, and the overlap of boxes."""

import pytest
import torch

from fastcnn.models.detection.yolo_boxes import (
    Truth,
    box_iou,
    first_of_each,
    place_images,
    place_targets,
    shape_iou,
)


def image(height, width):
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))


def place(*images, size=64, letterbox=True):
    return place_images(images, size, channels=3, letterbox=letterbox, like=torch.zeros(()))


def target(boxes, labels=None):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return {"boxes": boxes, "labels": torch.zeros(len(boxes), dtype=torch.int64) if labels is None else labels}


def test_letterbox_keeps_the_ratio_in_the_middle_of_grey():
    picture = image(100, 200)
    batch, placement = place(picture)
    assert batch.shape == (1, 3, 64, 64)
    assert (batch[0, :, :16] == 0.5).all() and (batch[0, :, 48:] == 0.5).all()
    resized = torch.nn.functional.interpolate(picture[None], (32, 64), mode="bilinear", antialias=True)[0]
    assert torch.equal(batch[0, :, 16:48], resized)
    assert placement.scale.tolist() == [[[pytest.approx(0.32), pytest.approx(0.32)]]]
    assert placement.offset.tolist() == [[[0, 16]]] and placement.size.tolist() == [[[200, 100]]]


def test_stretching_leaves_no_grey():
    batch, placement = place(image(100, 200), letterbox=False)
    assert batch.shape == (1, 3, 64, 64) and (batch != 0.5).any(1).all()
    assert placement.scale.flatten().tolist() == [pytest.approx(0.32), pytest.approx(0.64)]


def test_an_image_of_the_input_size_is_left_alone():
    pictures = [image(64, 64), image(64, 40)]
    batch, _ = place(*pictures)
    assert torch.equal(batch[0], pictures[0]) and torch.equal(batch[1, :, :, 12:52], pictures[1])
    assert torch.equal(place(*torch.stack([pictures[0]] * 2))[0][1:], batch[:1])


def test_images_of_several_dtypes_make_a_batch_of_the_networks():
    pictures = [image(40, 64), image(40, 64).double(), image(40, 64).bfloat16()]
    batch, _ = place_images(pictures, 32, channels=3, letterbox=True, like=torch.zeros((), dtype=torch.bfloat16))
    assert batch.dtype == torch.bfloat16
    torch.testing.assert_close(batch[1], batch[0])
    torch.testing.assert_close(batch[2], batch[0], rtol=0.02, atol=0.02)


@pytest.mark.parametrize("letterbox", [True, False])
def test_boxes_go_in_and_come_back(letterbox):
    pictures = [image(100, 60), image(33, 190), image(64, 64), image(1, 1)]
    boxes = [[[3.0, 5, 20, 90], [0, 0, 60, 100]], [[100.0, 2, 190, 33]], [], [[0.0, 0, 1, 1]]]
    _, placement = place(*pictures, letterbox=letterbox)
    truth = place_targets([target(each) for each in boxes], placement, 1, tags=False)
    assert truth.image.tolist() == [0, 0, 1, 3]
    assert (truth.boxes >= 0).all() and (truth.boxes <= 64).all()
    padded = torch.zeros(4, 2, 4)
    padded[truth.image, torch.tensor([0, 1, 0, 0])] = truth.boxes
    back = placement.back(padded)
    for index, each in enumerate(boxes):
        wanted = torch.tensor(each).reshape(-1, 4)
        torch.testing.assert_close(back[index, : len(each)], wanted, rtol=1e-5, atol=1e-4)
    # What lies beyond an image's edge is cut off.
    beyond = placement.back(torch.tensor([-1000.0, -1000, 1000, 1000]).expand(4, 1, 4))
    assert beyond[:, 0].tolist() == [[0, 0, 60, 100], [0, 0, 190, 33], [0, 0, 64, 64], [0, 0, 1, 1]]


def test_boxes_are_cut_off_at_the_edges():
    _, placement = place(image(64, 64))
    truth = place_targets([target([[-9.0, 10, 80, 90]])], placement, 1, tags=False)
    assert truth.boxes.tolist() == [[0, 10, 64, 64]]


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        ([target([[5.0, 5, 5, 9]])], ValueError, r"targets\[0\]: box 0 must have finite x1 < x2 and y1 < y2, got"),
        ([target([[0.0, 0, 9, 9], [5, 5, 9, 4]])], ValueError, r"targets\[0\]: box 1 must have finite"),
        ([target([[0.0, float("nan"), 9, 9]])], ValueError, r"box 0 must have finite .* nan"),
        ([target([[0.0, 0, float("inf"), 9]])], ValueError, r"box 0 must have finite .* inf"),
        ([target([[70.0, 0, 80, 9]])], ValueError, "box 0 lies outside its image of 64x64, got"),
        ([target([[0.0, 0, 9, 9]], torch.tensor([7]))], ValueError, r"targets\[0\] has label 7; classes are 0 to 4"),
        ([target([[0.0, 0, 9, 9]], torch.tensor([-1]))], ValueError, "has label -1; classes are 0 to 4"),
        (
            [target([[0.0, 0, 9, 9]], torch.tensor([1, 2]))],
            ValueError,
            r"boxes \(L, 4\) for its 2 labels, got \(1, 4\)",
        ),
        ([target([[0.0, 0, 9, 9]], torch.tensor([[1]]))], ValueError, r"must have labels \(L\), got \(1, 1\)"),
        ([target([[0.0, 0, 9, 9]], torch.tensor([1.0]))], TypeError, "integer labels, got torch.float32"),
        ([{"labels": torch.tensor([1])}], TypeError, r"targets\[0\] must have floating boxes, got NoneType"),
        ([{"boxes": torch.zeros(0, 4)}], TypeError, "integer labels, got NoneType"),
        ([target([])] * 2, ValueError, "one for each image, got 2 for 1"),
        (torch.zeros(1, 4), TypeError, "targets must be a list of dicts, got Tensor"),
    ],
)
def test_bad_targets(targets, error, message):
    _, placement = place(image(64, 64))
    with pytest.raises(error, match=message) as raised:
        place_targets(targets, placement, 5, tags=False)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ([], ValueError, "one or more, got none"),
        ([torch.rand(1, 9, 9)], ValueError, r"images\[0\] must be \(3, H, W\), got \(1, 9, 9\)"),
        ([image(9, 9), torch.rand(4, 9, 9)], ValueError, r"images\[1\] must be \(3, H, W\), got \(4, 9, 9\)"),
        ([torch.rand(3, 0, 9)], ValueError, r"got \(3, 0, 9\)"),
        ([torch.zeros(3, 9, 9, dtype=torch.uint8)], TypeError, r"values in \[0, 1\], got torch.uint8"),
        (["x.png"], TypeError, r"images\[0\] must be a floating tensor .*, got str"),
        (torch.rand(3, 9, 9), ValueError, r"list of \(3, H, W\) tensors, got \(3, 9, 9\)"),
        (None, TypeError, "got NoneType"),
    ],
)
def test_bad_images(images, error, message):
    with pytest.raises(error, match=message):
        place_images(images, 64, channels=3, letterbox=True, like=torch.zeros(()))


def test_tags_are_labels_of_images():
    _, placement = place(image(9, 9), image(9, 9), image(9, 9))
    targets = [{"labels": torch.tensor([4])}, target([[0.0, 0, 4, 4]]), {"labels": torch.tensor([2])}]
    truth = place_targets(targets, placement, 5, tags=True)
    assert (truth.tagged.tolist(), truth.tags.tolist(), truth.image.tolist()) == ([0, 2], [4, 2], [1])
    with pytest.raises(ValueError, match=r"targets\[0\] without boxes must have one label, got 2"):
        place_targets([{"labels": torch.tensor([4, 1])}, *targets[1:]], placement, 5, tags=True)


def area(box):
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def iou(a, b):
    shared = area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
    union = area(a) + area(b) - shared
    return shared / union if union else 0.0


def random_boxes(count):
    corner, size = torch.rand(2, count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).mul(50)
    return torch.cat([corner, corner + size], 1)


def test_iou_by_hand():
    boxes = torch.cat([random_boxes(9), torch.tensor([[3.0, 3, 3, 9], [1, 1, 1, 1]], dtype=torch.float64)])
    found = box_iou(boxes[:, None], boxes)
    wanted = [[iou(a, b) for b in boxes.tolist()] for a in boxes.tolist()]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))
    sizes = boxes[:9, 2:] - boxes[:9, :2]
    centred = torch.cat([-sizes / 2, sizes / 2], 1)
    torch.testing.assert_close(shape_iou(sizes, sizes[:4]), box_iou(centred[:, None], centred[:4]))


def test_best_iou_is_of_the_objects_of_the_image():
    boxes, none = random_boxes(12), torch.zeros(0, dtype=torch.int64)
    image = torch.tensor([0, 0, 0, 2])
    truth = Truth(image, boxes[:4], torch.zeros(4, dtype=torch.int64), none, none)
    found = truth.best_iou(boxes[4:].expand(3, -1, -1))
    for index in range(3):
        own = [b for b, i in zip(boxes[:4].tolist(), image.tolist(), strict=True) if i == index]
        wanted = [max([iou(box, b) for b in own], default=0.0) for box in boxes[4:].tolist()]
        torch.testing.assert_close(found[index], torch.tensor(wanted, dtype=torch.float64))
    assert not truth.take(none).best_iou(boxes[None]).any()


def test_first_of_each():
    assert first_of_each(torch.tensor([5, 2, 5, 9, 2, 5])).tolist() == [0, 1, 3]
    assert first_of_each(torch.zeros(0, dtype=torch.int64)).tolist() == []
