"""The YOLO networks: published counts and shapes, the interface, and what every network promises."""

import copy
import dataclasses
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import nn

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
SMALL = {
    "yolov1": {"width_mult": 0.05, "preprocess": dataclasses.replace(SQUARE_416, input_size=64)},
    "fast_yolov1": {"width_mult": 0.05, "preprocess": dataclasses.replace(SQUARE_416, input_size=128)},
    "yolov2": {"width_mult": 0.05, "multi_scale": False},
    "yolov2_tiny": {"width_mult": 0.1, "multi_scale": False},
    "yolo9000": {"width_mult": 0.05, "num_classes": 30, "multi_scale": False},
    "yolov3": {"width_mult": 0.05, "num_classes": 5, "multi_scale": False},
    "yolov3_tiny": {"width_mult": 0.1, "num_classes": 5, "multi_scale": False},
}
ANCHORED = [network for network in SMALL if "v1" not in network]


def small(network, **options):
    torch.manual_seed(0)
    net = models.create(network, **{**SMALL[network], **options})
    if "v1" not in network:
        net.size = 64
    return net


def scene(net, images=2):
    generator = torch.Generator().manual_seed(0)
    dtype = next(net.parameters()).dtype
    shapes = [(net.in_channels, 48, 80), (net.in_channels, 100, 60)] * images
    pictures = [torch.rand(shape, generator=generator).to(dtype) for shape in shapes[:images]]
    box = torch.tensor([[4.0, 5, 30, 40], [30.0, 20, 50, 47]])
    return pictures, [{"boxes": box, "labels": torch.tensor([1, 2])}] * images


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


@pytest.mark.parametrize("network", SMALL)
def test_training_gives_losses_and_every_parameter_a_gradient(network):
    net = small(network)
    images, targets = scene(net)
    losses = net(images, targets)
    assert set(losses) == {"loss_box_reg", "loss_objectness", "loss_classifier"}
    assert all(loss.dim() == 0 and loss.isfinite() and loss > 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert [key for key, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("network", SMALL)
def test_images_without_objects_train_objectness_alone(network):
    net = small(network)
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    losses = net(scene(net)[0], [none, none])
    assert losses["loss_box_reg"] == losses["loss_classifier"] == 0 < losses["loss_objectness"]
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("network", SMALL)
def test_detections(network, filled):
    net = filled(small(network))
    images, _ = scene(net)
    with torch.inference_mode():
        found, again = net(images), net(images)
    for detections, repeated, image in zip(found, again, images, strict=True):
        boxes, scores, labels = (detections[key] for key in ("boxes", "scores", "labels"))
        assert all(torch.equal(detections[key], repeated[key]) for key in detections)
        assert boxes.shape == (len(scores), 4) and 0 < len(scores) <= 100 and labels.dtype == torch.int64
        height, width = image.shape[1:]
        assert (boxes >= 0).all() and (boxes[:, 2::2] <= width).all() and (boxes[:, 1::2] <= height).all()
        assert (scores > net.row.score_thresh).all() and torch.equal(scores, scores.sort(descending=True).values)
        assert (labels >= 0).all() and (labels < net.num_classes).all()


@pytest.mark.parametrize("network", SMALL)
def test_a_batch_detects_what_its_images_alone_do(network, filled):
    net = filled(small(network, dtype=torch.float64))
    images, _ = scene(net)
    with torch.inference_mode():
        together, alone = net(images), [net([image])[0] for image in images]
    for a, b in zip(together, alone, strict=True):
        assert torch.equal(a["labels"], b["labels"])
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_no_detections():
    net = small("yolov3", score_thresh=1.0).eval()
    found = net(scene(net)[0])
    assert [{key: tuple(value.shape) for key, value in each.items()} for each in found] == [
        {"boxes": (0, 4), "scores": (0,), "labels": (0,)}
    ] * 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (700, 3)])
@pytest.mark.parametrize("network", ["yolov1", "yolov3"])
def test_images_of_odd_sizes(network, shape, filled):
    net = filled(small(network))
    with torch.inference_mode():
        (found,) = net([torch.rand(3, *shape)])
    assert len(found["boxes"]) and found["boxes"].isfinite().all()
    assert (found["boxes"][:, 2] <= shape[1]).all() and (found["boxes"][:, 3] <= shape[0]).all()


@pytest.mark.parametrize("network", SMALL)
def test_fuse(network, filled):
    net = filled(small(network))
    images, _ = scene(net)
    batch = torch.rand(2, 3, net.size, net.size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted, detections = net.head_outputs(batch), net(images)
        net.fuse()
        found, fused = net.head_outputs(batch), net(images)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    for a, b in zip(fused, detections, strict=True):
        torch.testing.assert_close(a["scores"][:3], b["scores"][:3], rtol=1e-2, atol=1e-3)


ONE_GRAPH = [pytest.param(name, marks=[pytest.mark.slow] if name != "yolov1" else []) for name in SMALL]


@pytest.mark.parametrize("network", ONE_GRAPH)
def test_detects_as_one_graph(network, filled):
    net = filled(small(network, dtype=torch.float64))
    batch = torch.rand(2, 3, net.size, net.size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch._dynamo.reset()
    with torch.inference_mode():
        wanted = net.detect(batch)
        found = torch.compile(net.detect, fullgraph=True, backend="aot_eager")(batch)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_detects_without_knowing_values():
    net = small("yolo9000", device="meta").eval()
    boxes, scores, labels, counts = net.detect(torch.empty(2, 3, 64, 64, device="meta"))
    assert (boxes.shape, scores.shape, labels.shape, counts.shape) == ((2, 100, 4), (2, 100), (2, 100), (2,))


@pytest.mark.parametrize("network", ["yolov1", "yolov2", "yolov3"])
def test_channels_last_and_bfloat16(network, filled):
    net = filled(small(network))
    batch = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = net.head_outputs(batch)
        found = net.to(memory_format=torch.channels_last).head_outputs(batch.to(memory_format=torch.channels_last))
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
        detections = net.to(torch.bfloat16)(list(batch))
        for a, b in zip(net.head_outputs(batch.bfloat16()), wanted, strict=True):
            assert (a.float() - b).norm() < 0.1 * b.norm()
    assert all(each["boxes"].dtype == torch.float32 and len(each["boxes"]) for each in detections)


def test_bad_input():
    net = small("yolov3", device="meta")
    with pytest.raises(ValueError, match="YOLOv3 needs targets in training mode"):
        net([torch.rand(3, 64, 64)])
    for shape in ((3, 64, 64), (1, 4, 64, 64), (1, 3, 64, 65)):
        with pytest.raises(ValueError, match=r"takes \(N, 3, H, W\) with H and W multiples of 32, got") as error:
            net.head_outputs(torch.empty(shape, device="meta"))
        assert str(shape) in str(error.value)
    with pytest.raises(ValueError, match=r"H and W of 64, got \(1, 3, 128, 128\)"):
        small("yolov1", device="meta").head_outputs(torch.empty(1, 3, 128, 128, device="meta"))


@pytest.mark.parametrize("network", SMALL)
def test_replace_head(network, filled):
    net = small(network).eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    assert net.replace_head(4) is net and net.num_classes == 4
    changed = {key for key, value in net.state_dict().items() if value.shape != before[key].shape}
    assert changed == {f"{path}.{kind}" for path in net.predictors for kind in ("weight", "bias")}
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items() if key not in changed)
    found = net(scene(net)[0])
    assert all((each["labels"] < 4).all() for each in found)
    with pytest.raises(ValueError, match="has no head"):
        small(network, features_only=True, device="meta").replace_head(4)


@pytest.mark.parametrize("network", SMALL)
def test_features_only_is_the_backbone(network):
    net = models.create(network, features_only=True, device="meta", **SMALL[network])
    assert not any(path.startswith(name) for path, _ in net.named_parameters() for name in net.head_names)
    maps = net(torch.empty(1, 3, 128, 128, device="meta"))
    assert {name: tuple(each.shape[1:]) for name, each in maps.items()} == {
        feature.name: (feature.channels, 128 // feature.stride, 128 // feature.stride) for feature in net.feature_info
    }
    with pytest.raises(ValueError, match=r"takes \(N, 3, H, W\)"):
        net(torch.empty(3, 128, 128, device="meta"))


def test_a_classifiers_weights_load_into_the_backbone(tmp_path):
    classifier = models.create("darknet19", num_classes=3, stages=((8,), (8,), (8,)))
    torch.save(classifier.state_dict(), tmp_path / "classifier.pth")
    net = models.create("yolov2", width_mult=0.05)
    with pytest.raises(ValueError, match="does not fit"):
        models.load_weights(net.backbone, tmp_path / "classifier.pth")
    for network, backbone in (("yolov2", "darknet19"), ("yolov3", "darknet53")):
        wide = models.create(backbone, device="meta").state_dict()
        own = models.create(network, device="meta").backbone.state_dict()
        assert own and {key: value.shape for key, value in own.items()} == {key: wide[key].shape for key in own}


def test_weights_and_copies(tmp_path):
    net, twin = small("yolov2"), small("yolov2")
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
    torch.save(net.state_dict(), tmp_path / "yolo.pth")
    models.load_weights(twin, tmp_path / "yolo.pth")
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), twin.parameters(), strict=True))
    copied = copy.deepcopy(net)
    assert copied.row == net.row and not any(a is b for a, b in zip(copied.parameters(), net.parameters(), strict=True))


def test_seed_fixes_the_initialisation():
    states = [small("yolov3").state_dict() for _ in range(2)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_autocast():
    net = small("yolov2")
    images, targets = scene(net)
    with torch.autocast("cpu", torch.bfloat16):
        losses = net(images, targets)
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
