"""The YOLO networks: published counts and shapes, their layers and their switches."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import nn
from yolo_net import scene, small

from fastcnn import models
from fastcnn.models.__main__ import network_line
from fastcnn.models.detection.yolo import SQUARE_416, YOLORow
from fastcnn.models.detection.yolov2 import TABLE_2, column_of_table_2

NETWORKS_PAGE = (Path(__file__).parents[3] / "docs" / "networks.md").read_text().splitlines()


class Expected(NamedTuple):
    """Parameters, G MACs, boxes, raw outputs of one image, and bytes of the published file where it is known."""

    params: int
    macs: float
    boxes: int
    outputs: tuple[tuple[int, ...], ...]
    file: int | None = None


V2 = ((125, 13, 13),)
V3 = ((255, 13, 13), (255, 26, 26), (255, 52, 52))
EXPECTED = {
    "yolov1": Expected(271_703_550, 20.29, 98, ((1470,),)),
    "fast_yolov1": Expected(45_089_374, 2.419, 98, ((1470,),)),
    "yolov1_vgg16": Expected(259_296_510, 63.91, 98, ((1470,),)),
    "yolov2": Expected(50_655_389, 14.68, 845, V2),
    "yolov2_544": Expected(50_655_389, 25.10, 1445, ((125, 17, 17),)),
    "yolov2_coco": Expected(50_962_889, 14.73, 845, ((425, 13, 13),), 203_934_260),
    "yolov2_tiny": Expected(15_861_773, 3.486, 845, V2, 63_471_556),
    "yolov2_unreduced": Expected(67_137_565, 17.45, 845, V2),
    "yolov2_x0_25": Expected(3_194_117, 0.9496, 845, V2),
    "yolo9000": Expected(48_793_101, 24.53, 867, ((28_269, 17, 17),)),
    "yolov3": Expected(61_949_149, 32.93, 10_647, V3, 248_007_048),
    "yolov3_tiny": Expected(8_852_366, 2.782, 2_535, V3[:2], 35_434_956),
    "yolov3_x0_25": Expected(3_968_245, 2.144, 10_647, V3),
}


def test_every_yolo_is_here():
    names = models.list_models(task="detection")
    assert sorted(EXPECTED) == [name for name in names if isinstance(models.find_entry(name).row, YOLORow)]


@pytest.mark.parametrize("network", EXPECTED)
def test_counts_and_shapes(network):
    expected, counted = EXPECTED[network], models.summary(network)
    assert counted.params == expected.params
    assert counted.macs / 1e9 == pytest.approx(expected.macs, rel=5e-4)
    assert network_line(network, counted) in NETWORKS_PAGE
    net = models.create(network, device="meta").eval()
    outputs = net.head_outputs(torch.empty(2, 3, net.size, net.size, device="meta"))
    assert tuple(tuple(each.shape[1:]) for each in outputs) == expected.outputs
    boxes, scores = net.decode(outputs)
    assert boxes.shape == (2, expected.boxes, 4)
    assert scores.shape == (2, expected.boxes, net.num_classes)
    if expected.file is not None:
        # Header, four bytes for each number; what the authors published has that size.
        assert 4 * counted.params_with_bn_stats + (20 if "v3" in network else 16) == expected.file


def kinds(net):
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    return len(convs), sum(isinstance(m, nn.Linear) for m in net.modules())


def test_layers_are_as_many_as_published():
    found = {name: kinds(models.create(name, device="meta")) for name in EXPECTED}
    assert found["yolov1"] == (24, 2)
    assert found["fast_yolov1"] == (9, 3)
    assert found["yolov1_vgg16"] == (13 + 4, 2)
    # Darknet-19 without its last convolution, three of 3x3, the passthrough's and the predictor.
    assert found["yolov2"] == (18 + 3 + 1 + 1, 0)
    assert found["yolov3"] == (75, 0)
    net = models.create("yolov1", device="meta")
    assert [m for m in net.modules() if isinstance(m, nn.LeakyReLU) and m.negative_slope != 0.1] == []
    assert sum(isinstance(m, nn.LeakyReLU) for m in net.modules()) == 25
    assert isinstance(net.fc[-1], nn.Linear)


@pytest.mark.parametrize(("size", "macs"), [(288, 7.04), (352, 10.51), (416, 14.68), (480, 19.54), (544, 25.10)])
def test_yolov2_takes_every_size_with_the_same_weights(size, macs):
    net = models.create("yolov2", device="meta").eval()
    assert models.count_macs(net, size) / 1e9 == pytest.approx(macs, rel=1e-3)
    assert net.head_outputs(torch.empty(1, 3, size, size, device="meta"))[0].shape == (1, 125, size // 32, size // 32)


# From column to column of table 2: boxes, parameters, side of the input.
COLUMNS = [
    (98, 271_703_550, 448),
    (98, 271_716_734, 448),
    (98, 271_716_734, 448),
    (1521, 60_399_777, 416),
    (1521, 48_365_697, 416),
    (845, 48_263_197, 416),
    (845, 50_655_389, 416),
    (845, 50_655_389, 416),
    (1445, 50_655_389, 544),
]


@pytest.mark.parametrize("column", range(9))
def test_ten_switches_make_table_2(column):
    switches = column_of_table_2(column)
    assert len(switches) == len(TABLE_2) == 10
    net = models.create("yolov2", device="meta", **switches).eval()
    outputs = net.head_outputs(torch.empty(1, 3, net.size, net.size, device="meta"))
    assert (net.decode(outputs)[0].shape[1], models.count_params(net), net.size) == COLUMNS[column]
    normed = any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    dropped = any(isinstance(m, nn.Dropout) and m.p for m in net.modules())
    assert (normed, dropped) == (switches["batch_norm"], not switches["batch_norm"])
    phases = [(phase.task, phase.sizes) for phase in net.recipe]
    assert (("classification", (448,)) in phases) == switches["hi_res_classifier"]
    assert phases[-1] == ("detection", tuple(range(320, 609, 32)) if switches["multi_scale"] else (net.size,))


def test_switches_that_contradict_each_other():
    for options, message in [
        ({"convolutional": False}, "new_network needs convolutional"),
        ({"batch_norm": False}, "new_network needs batch_norm"),
        ({"new_network": False}, "passthrough needs new_network"),
        ({"anchors": True}, "needs one of anchors and dimension_priors, got True for both"),
        ({"head": ()}, "passthrough needs Darknet-19 and a convolution"),
        ({"priors": ((1.0, 0.0),)}, "priors must be pairs of positive numbers"),
        ({"width_mult": 0}, "width_mult must be positive, got 0"),
        ({"nms_thresh": 1.5}, "nms_thresh must be between 0 and 1, got 1.5"),
        ({"detections_per_img": 0}, "detections_per_img must be a positive int, got 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            models.create("yolov2", device="meta", **options)
    with pytest.raises(ValueError, match="columns 0 to 8, got 9"):
        column_of_table_2(9)
    with pytest.raises(ValueError, match="parents must be one for each of 5 classes, got 2"):
        models.create("yolo9000", device="meta", num_classes=5, parents=(-1, 0))
    with pytest.raises(ValueError, match="multiple of 64, got 100"):
        models.create("yolov1", device="meta", preprocess=dataclasses.replace(SQUARE_416, input_size=100))


def test_multi_scale_draws_a_size_for_ten_batches(monkeypatch):
    net = small("yolov2", multi_scale=True, preprocess=dataclasses.replace(SQUARE_416, input_size=96))
    assert net.training_sizes() == (64, 96, 128)
    seen = []
    monkeypatch.setattr(net, "head_outputs", lambda batch: seen.append(tuple(batch.shape[2:])))
    monkeypatch.setattr(net, "loss", lambda outputs, truth: {})
    images, targets = scene(net)
    for _ in range(200):
        net(images, targets)
    runs = [set(seen[start : start + 10]) for start in range(0, 200, 10)]
    assert all(len(run) == 1 for run in runs)
    assert set.union(*runs) == {(64, 64), (96, 96), (128, 128)}
    whole, net.batches_seen = seen[95:125], 95
    seen.clear()
    for _ in range(30):
        net(images, targets)
    assert seen == whole, "a run that goes on draws what it would have drawn"
