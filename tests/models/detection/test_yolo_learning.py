"""The YOLO networks learn a handful of scenes by heart, from scratch."""

import dataclasses

import pytest
import torch

from fastcnn import models
from fastcnn.models.detection.priors import kmeans_anchors
from fastcnn.models.detection.yolo import SQUARE_416
from fastcnn.models.detection.yolo_boxes import box_iou

COLOURS = torch.eye(3)


def scenes(count, side):
    """Noise with a rectangle in each of two quarters, whose class is its colour."""
    generator = torch.Generator().manual_seed(0)
    images, targets = [], []
    for _ in range(count):
        image = torch.rand(3, side, side, generator=generator) * 0.3
        boxes, labels = [], torch.randint(3, (2,), generator=generator)
        for quarter, label in zip(torch.randperm(4, generator=generator)[:2].tolist(), labels, strict=True):
            width, height = (torch.rand(2, generator=generator) * side / 4 + side / 5).int().tolist()
            x, y = quarter % 2 * side // 2 + 2, quarter // 2 * side // 2 + 2
            image[:, y : y + height, x : x + width] = COLOURS[label][:, None, None]
            boxes.append([x, y, x + width, y + height])
        images.append(image)
        targets.append({"boxes": torch.tensor(boxes, dtype=torch.float32), "labels": labels})
    return images, targets


@pytest.mark.long
@pytest.mark.parametrize(
    ("network", "side", "steps", "options"),
    [
        ("yolov1", 128, 150, {"width_mult": 0.125, "dropout": 0.0}),
        ("yolov2", 96, 50, {"width_mult": 0.25, "multi_scale": False}),
        ("yolov3_tiny", 96, 80, {"width_mult": 0.25, "multi_scale": False}),
        pytest.param("yolov3", 96, 80, {"width_mult": 0.25, "multi_scale": False}, marks=pytest.mark.slow),
    ],
)
def test_learns(network, side, steps, options):
    torch.manual_seed(0)
    images, targets = scenes(8, side)
    if network == "yolov2":
        priors = kmeans_anchors(torch.cat([target["boxes"] for target in targets]), 3)
        options = {**options, "priors": tuple(map(tuple, priors.tolist()))}
    square = dataclasses.replace(SQUARE_416, input_size=side)
    net = models.create(network, num_classes=3, preprocess=square, **options)
    optimizer = torch.optim.Adam(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3 if network == "yolov1" else 3e-3, total_steps=steps)
    seen = []
    for _ in range(steps):
        loss = sum(net(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        seen.append(loss.item())
    assert seen[-1] < 0.35 * seen[0], seen
    hits = wrong = 0
    with torch.inference_mode():
        for found, target in zip(net.eval()(images), targets, strict=True):
            sure = found["scores"] > 0.25
            overlap = box_iou(found["boxes"][sure][:, None], target["boxes"]) > 0.5
            right = overlap & (found["labels"][sure][:, None] == target["labels"])
            hits += int(right.any(0).sum())
            wrong += int((~right.any(1)).sum())
    assert hits >= 14 and wrong <= 2, (hits, wrong)
