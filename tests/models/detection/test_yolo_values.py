"""The YOLO networks by value: losses and detections, alone and in batches, fused, compiled, copied and loaded."""

import copy

import pytest
import torch
from torch import nn
from yolo_net import SMALL, scene, small

from fastcnn import models


@pytest.mark.parametrize("network", SMALL)
def test_training_gives_losses_and_every_parameter_a_gradient(network):
    net = small(network)
    images, targets = scene(net)
    losses = net(images, targets)
    assert set(losses) == {"loss_box_reg", "loss_objectness", "loss_classifier"}
    assert all(loss.dim() == 0 and loss.isfinite() and loss > 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert [key for key, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("network", ["yolov2", "yolov3"])
def test_losses_in_double_precision(network):
    """Boxes of targets are moved in float32, whatever the network's dtype."""
    net = small(network)
    images, targets = scene(net)
    wanted = copy.deepcopy(net)(images, targets)
    found = net.double()(images, targets)
    assert {loss.dtype for loss in found.values()} == {torch.float64}
    assert all(found[key].item() == pytest.approx(wanted[key].item(), rel=1e-3) for key in wanted)


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


@pytest.mark.parametrize("network", SMALL)
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
