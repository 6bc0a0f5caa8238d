"""Losses and decoding of the YOLO networks against the papers' formulas, object by object and box by box."""

import dataclasses
import math

import pytest
import torch

from fastcnn import models
from fastcnn.models.detection.yolo import SQUARE_416
from fastcnn.models.detection.yolo_anchors import DirectLocation, OffsetLocation, PriorGrid
from fastcnn.models.detection.yolo_boxes import Truth

PRIORS = ((20.0, 14.0), (40.0, 60.0))
NAMES = ("loss_box_reg", "loss_objectness", "loss_classifier")


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def iou(a, b):
    sides = [max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1)]
    shared = sides[0] * sides[1]
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def corners(x, y, w, h):
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def truth_of(objects, tags=()):
    """From (image, (x1, y1, x2, y2), label), images ascending, and (image, label)."""
    images, boxes, labels = zip(*objects, strict=True) if objects else ((), (), ())
    return Truth(
        torch.tensor(images, dtype=torch.int64),
        torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor([image for image, _ in tags], dtype=torch.int64),
        torch.tensor([label for _, label in tags], dtype=torch.int64),
    )


# Two objects in one cell of image 0, and one in another; image 1 has none; of image 2 one at the very edge.
OBJECTS = [
    (0, (10.0, 12, 38, 60), 1),
    (0, (6.0, 8, 42, 64), 2),
    (0, (70.0, 80, 120, 125), 0),
    (2, (100.0, 100, 128, 128), 2),
]


def net_of(network, **options):
    torch.manual_seed(0)
    options = {"num_classes": 3, "width_mult": 0.05, "dtype": torch.float64, **options}
    if "v1" not in network:
        options = {"multi_scale": False, **options}
    net = models.create(network, preprocess=dataclasses.replace(SQUARE_416, input_size=128), **options)
    return net.eval()


def raw_of(net, images=3):
    """Random raw predictions, some of which overlap objects by much."""
    outputs = net.head_outputs(torch.rand(images, 3, 128, 128, dtype=torch.float64))
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(each.shape, generator=generator, dtype=torch.float64).requires_grad_() for each in outputs]


def yolov1_loss(net, raw, objects, images):
    """Equation 3, and rules of section 2.2."""
    side, boxes, classes, size = 2, 2, 3, 128
    raw = raw.reshape(images, side, side, 5 * boxes + classes).tolist()
    losses, taken, responsible = [0.0] * 3, set(), set()
    for image, box, label in objects:
        column, row = (min(int((box[i] + box[i + 2]) / 2 / 64), 1) for i in (0, 1))
        if (image, row, column) in taken:
            continue
        taken.add((image, row, column))
        cell = raw[image][row][column]
        predicted = [cell[5 * b : 5 * b + 5] for b in range(boxes)]
        placed = [corners((x + column) * 64, (y + row) * 64, w * w * size, h * h * size) for x, y, w, h, _ in predicted]
        overlaps = [iou(each, box) for each in placed]
        apart = [sum((a - b) ** 2 for a, b in zip(each, box, strict=True)) for each in placed]
        best = overlaps.index(max(overlaps)) if max(overlaps) > 0 else apart.index(min(apart))
        responsible.add((image, row, column, best))
        x, y, w, h, confidence = predicted[best]
        wanted = ((box[0] + box[2]) / 128 - column, (box[1] + box[3]) / 128 - row)
        losses[0] += 5 * ((x - wanted[0]) ** 2 + (y - wanted[1]) ** 2)
        losses[0] += 5 * (w - ((box[2] - box[0]) / size) ** 0.5) ** 2 + 5 * (h - ((box[3] - box[1]) / size) ** 0.5) ** 2
        losses[1] += (confidence - overlaps[best]) ** 2
        losses[2] += sum((p - (c == label)) ** 2 for c, p in enumerate(cell[5 * boxes :]))
    for image in range(images):
        for row in range(side):
            for column in range(side):
                for b in range(boxes):
                    if (image, row, column, b) not in responsible:
                        losses[1] += 0.5 * raw[image][row][column][5 * b + 4] ** 2
    return [loss / images for loss in losses]


def test_yolov1_loss_by_hand():
    net = net_of("yolov1")
    (raw,) = raw_of(net)
    losses = net.loss([raw], truth_of(OBJECTS))
    wanted = yolov1_loss(net, raw.detach(), OBJECTS, 3)
    assert [losses[name].item() for name in NAMES] == pytest.approx(wanted, rel=1e-9)


def test_yolov1_teaches_nothing_but_less_confidence_where_no_object_is():
    net = net_of("yolov1")
    (raw,) = raw_of(net)
    sum(net.loss([raw], truth_of(OBJECTS)).values()).backward()
    gradient = raw.grad.unflatten(1, (2, 2, 13))
    confidence = raw.detach().unflatten(1, (2, 2, 13))[..., [4, 9]]
    full = {(0, 0, 0), (0, 1, 1), (2, 1, 1)}
    for image in range(3):
        for row in range(2):
            for column in range(2):
                cell = gradient[image, row, column]
                boxes, classes = cell[:10].reshape(2, 5), cell[10:]
                moved = boxes[:, :4].any(1)
                assert moved.sum() == ((image, row, column) in full) == classes.any()
                # Of those that are not responsible, the confidence is on its way to 0.
                pushed = boxes[~moved, 4] * confidence[image, row, column][~moved]
                assert (pushed > 0).all()


def test_yolov1_decodes():
    net = net_of("yolov1")
    (raw,) = raw_of(net, images=1)
    boxes, scores = net.decode([raw])
    cells = raw.detach().reshape(4, 13).tolist()
    for index, cell in enumerate(cells):
        row, column = divmod(index, 2)
        for b in range(2):
            x, y, w, h, confidence = cell[5 * b : 5 * b + 5]
            wanted = corners((x + column) * 64, (y + row) * 64, w * w * 128, h * h * 128)
            assert boxes[0, 2 * index + b].tolist() == pytest.approx(wanted)
            assert scores[0, 2 * index + b].tolist() == pytest.approx([confidence * p for p in cell[10:]])


def anchored_loss(network, raws, strides, priors, ignore, objects, images):
    """v2's loss as Darknet has it, and v3's (sections 2.1 and 2.2)."""
    rows = {}
    for scale, raw in enumerate(raws):
        side = raw.shape[2]
        values = raw.reshape(images, len(priors[scale]), 8, side, side).permute(0, 1, 3, 4, 2).tolist()
        for image in range(images):
            for a in range(len(priors[scale])):
                for row in range(side):
                    for column in range(side):
                        rows[image, scale, a, row, column] = values[image][a][row][column]

    def placed(key):
        _, scale, a, row, column = key
        x, y, w, h = rows[key][:4]
        size = [p * math.exp(t) for p, t in zip(priors[scale][a], (w, h), strict=True)]
        return corners((column + sigmoid(x)) * strides[scale], (row + sigmoid(y)) * strides[scale], *size)

    losses, responsible = [0.0] * 3, set()
    for image, box, label in objects:
        w, h = box[2] - box[0], box[3] - box[1]
        overlaps = {
            (scale, a): iou(corners(0, 0, w, h), corners(0, 0, *prior))
            for scale, each in enumerate(priors)
            for a, prior in enumerate(each)
        }
        scale, a = max(overlaps, key=overlaps.get)
        stride, prior = strides[scale], priors[scale][a]
        x, y = (box[0] + box[2]) / 2 / stride, (box[1] + box[3]) / 2 / stride
        key = (image, scale, a, int(y), int(x))
        if key in responsible:
            continue
        responsible.add(key)
        tx, ty, tw, th, objectness, *classes = rows[key]
        place, sizes = (x - int(x), y - int(y)), (math.log(w / prior[0]), math.log(h / prior[1]))
        errors = (tw - sizes[0]) ** 2 / 2 + (th - sizes[1]) ** 2 / 2
        if network == "yolov2":
            errors += (sigmoid(tx) - place[0]) ** 2 / 2 + (sigmoid(ty) - place[1]) ** 2 / 2
            losses[0] += errors
            losses[1] += 5 / 2 * (sigmoid(objectness) - iou(placed(key), box)) ** 2
            losses[2] -= math.log(math.exp(classes[label]) / sum(map(math.exp, classes)))
        else:
            for t, p in zip((tx, ty), place, strict=True):
                errors -= p * math.log(sigmoid(t)) + (1 - p) * math.log(1 - sigmoid(t))
            losses[0] += (2 - w * h / 128**2) * errors
            losses[1] -= math.log(sigmoid(objectness))
            losses[2] -= sum(math.log(sigmoid(t if c == label else -t)) for c, t in enumerate(classes))
    for key, values in rows.items():
        own = [box for image, box, _ in objects if image == key[0]]
        if key not in responsible and max([iou(placed(key), box) for box in own], default=0.0) <= ignore:
            objectness = sigmoid(values[4])
            losses[1] += objectness**2 / 2 if network == "yolov2" else -math.log(1 - objectness)
    return [loss / images for loss in losses]


@pytest.mark.parametrize("network", ["yolov2", "yolov3"])
@pytest.mark.parametrize("ignore", [0.6, 0.2])
def test_anchored_losses_by_hand(network, ignore):
    many = PRIORS if network == "yolov2" else ((10.0, 14.0), (20, 14), (30, 30), (40, 60), (45, 30), (100, 90))
    net = net_of(network, priors=many, ignore_iou=ignore)
    raws = raw_of(net)
    losses = net.loss(raws, truth_of(OBJECTS))
    per = len(many) // len(raws)
    priors = [many[first : first + per] for first in range(0, len(many), per)][::-1]
    wanted = anchored_loss(network, [raw.detach() for raw in raws], net.strides, priors, ignore, OBJECTS, 3)
    assert [losses[name].item() for name in NAMES] == pytest.approx(wanted, rel=1e-9)
    sum(losses.values()).backward()
    assert all(raw.grad.isfinite().all() and raw.grad.any() for raw in raws)


def grid():
    corner = torch.tensor([[0.0, 0], [32, 64]], dtype=torch.float64)
    return PriorGrid(corner, corner.new_full((2, 1), 32), torch.tensor([[20.0, 30], [50, 10]], dtype=torch.float64))


@pytest.mark.parametrize("location", [DirectLocation(), OffsetLocation()])
def test_locations_place_what_they_aim_at(location):
    boxes = torch.tensor([[3.0, 1, 40, 20], [20, 70, 90, 80]], dtype=torch.float64)
    place, size = location.aim(boxes, grid())
    raw = place.logit() if type(location) is DirectLocation else place
    torch.testing.assert_close(location.read(raw), place)
    torch.testing.assert_close(location.place(torch.cat([raw, size], 1), grid()), boxes)


def test_direct_location_keeps_the_centre_in_its_cell():
    raw = torch.randn(1000, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 20
    boxes = DirectLocation().place(raw, grid())
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    inside = (centre >= grid().corner - 1e-6) & (centre <= grid().corner + 32 + 1e-6)
    assert inside.all() and boxes.isfinite().all()
    offset = OffsetLocation().place(raw, grid())
    centre = (offset[..., :2] + offset[..., 2:]) / 2
    assert ((centre - grid().corner).abs() > 100).any()


def test_offsets_without_location_prediction_are_from_the_middle_of_the_cell():
    net = net_of("yolov2", anchors=True, dimension_priors=False, location_prediction=False)
    outputs = [torch.zeros_like(raw) for raw in raw_of(net, images=1)]
    boxes, scores = net.decode(outputs)
    assert boxes.shape == (1, 9 * 16, 4)
    first = boxes[0].unflatten(0, (9, 4, 4))[3, 2, 1].tolist()
    assert first == pytest.approx(corners(48, 80, 256 * 2**0.5, 256 / 2**0.5))
    assert torch.allclose(scores, scores.new_tensor(0.5 / 3))


def test_probabilities_of_yolov2_exclude_and_of_yolov3_do_not():
    v2, v3 = net_of("yolov2"), net_of("yolov3")
    raw = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(v2.probabilities(raw).sum(-1), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(v3.probabilities(raw), raw.sigmoid())


def test_a_pair_of_a_box_and_a_class_is_a_detection():
    net = net_of("yolov3", score_thresh=0.3, topk_candidates=50, detections_per_img=7)
    raws = [torch.full_like(raw, -9.0) for raw in raw_of(net, images=2)]
    with torch.no_grad():
        for raw in raws:
            raw[:, :4] = 0
        # In the coarsest grid, of the second image only: prior 1, row 2, column 3 has two classes; a copy is worse.
        for column, objectness in ((3, 4.0), (2, 3.0)):
            raws[0][1, 8:16, 2, column] = torch.tensor([0.0, 0, 0, 0, objectness, 2, -5, 1], dtype=torch.float64)
    net.head_outputs = lambda batch: raws
    boxes, scores, labels, counts = net.detect(torch.zeros(2, 3, 128, 128))
    assert counts.tolist() == [0, 2] and not boxes[0].any() and not scores[1, 2:].any()
    assert labels[1, :2].tolist() == [0, 2]
    assert scores[1, :2].tolist() == pytest.approx([sigmoid(4) * sigmoid(2), sigmoid(4) * sigmoid(1)])
    assert boxes[1, 0].tolist() == boxes[1, 1].tolist() == pytest.approx(corners(3.5 * 32, 2.5 * 32, 156, 198))
