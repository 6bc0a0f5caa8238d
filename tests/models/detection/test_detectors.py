"""Every registered detector: counts, the interface, training, and what is asked of it that is out of the ordinary."""

import copy
from pathlib import Path

import pytest
import torch
from detection_rows import EXPECTED, LARGE, TYPICAL

from fastcnn import models
from fastcnn.models.__main__ import network_line
from fastcnn.models.detection.fast_rcnn import FastRCNN
from fastcnn.models.detection.svm_detectors import SVMDetector
from fastcnn.models.detection.yolo import YOLORow

NETWORKS_PAGE = (Path(__file__).parents[3] / "docs" / "networks.md").read_text().splitlines()


def create(detector, **options):
    torch.manual_seed(0)
    return models.create(detector, **{**EXPECTED[detector].small, **options})


def images_of(*sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(3, *size, generator=generator) for size in sizes]


def targets_of(images, count=2):
    result = []
    for index, image in enumerate(images):
        height, width = image.shape[1:]
        number = count[index] if isinstance(count, tuple) else count
        boxes = torch.tensor([[0.1, 0.2, 0.6, 0.9], [0.4, 0.3, 0.9, 0.8], [0.05, 0.05, 0.2, 0.3]])[:number]
        boxes = boxes * torch.tensor([width, height, width, height])
        masks = torch.zeros(number, height, width, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.long().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
        target = {"boxes": boxes, "labels": torch.arange(1, number + 1), "masks": masks}
        result.append(target | {"landmarks": landmarks_of(boxes)})
    return result


def landmarks_of(boxes):
    """Five points in every box, but none in the first."""
    places = torch.tensor([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
    points = boxes[:, None, :2] + places * (boxes[:, 2:] - boxes[:, :2])[:, None]
    points[:1] = torch.nan
    return points


def run(net, images, targets=None):
    """With the regions that some want to be given."""
    if type(net) is not FastRCNN and not isinstance(net, SVMDetector):
        return net(images, targets)
    boxes = torch.rand(40, 4, generator=torch.Generator().manual_seed(3)).sort(1).values
    proposals = [boxes * torch.tensor([image.size(2), image.size(1)] * 2) for image in images]
    return net(images, targets, proposals=proposals)


def test_every_detector_has_expectations():
    """Those of the YOLOs are in test_yolo_networks.py."""
    names = models.list_models(task="detection")
    assert sorted(EXPECTED) == [n for n in names if not isinstance(models.find_entry(n).row, YOLORow)]


@pytest.mark.parametrize("detector", EXPECTED)
def test_counts(detector):
    counted, expected = models.summary(detector), EXPECTED[detector]
    assert (counted.params, counted.macs) == (expected.params, expected.macs)
    assert network_line(detector, counted) in NETWORKS_PAGE


@pytest.mark.parametrize("detector", [name for name, row in EXPECTED.items() if row.boxes[1]])
def test_boxes(detector):
    """One for every output of the head."""
    (size, count), net = EXPECTED[detector].boxes, models.create(detector, device="meta").eval()
    layers = net.forward_layers(torch.empty(1, 3, *size, device="meta"))
    assert layers["objectness" if "objectness" in layers else "cls_logits"].shape[:2] == (1, count)


@pytest.mark.parametrize("detector", EXPECTED)
def test_options_on_meta(detector):
    net = models.create(detector, num_classes=5, in_channels=2, device="meta", dtype=torch.bfloat16).eval()
    assert {p.dtype for p in net.parameters()} == {torch.bfloat16}
    assert {t.device.type for t in net.state_dict().values()} == {"meta"}
    side = net.preprocess.input_size
    assert net.forward_layers(torch.empty(2, 2, side, side, device="meta", dtype=torch.bfloat16))
    with pytest.raises(ValueError, match=r"has no features_only: create '\w+' with it instead"):
        models.create(detector, device="meta", features_only=True)


FORMS = [*TYPICAL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]


def slow_unless(names):
    return [pytest.param(name, marks=[] if name in names else [pytest.mark.slow]) for name in EXPECTED]


@pytest.mark.parametrize("detector", slow_unless(TYPICAL))
def test_every_parameter_gets_a_gradient(detector):
    """Of boxes of all sizes, so that some match in every map."""
    net = create(detector)
    images = images_of((80, 96), (96, 70), (64, 64))  # Of two, a norm on one pixel makes -1 and 1.
    half = torch.tensor([[0.06], [0.1], [0.18], [0.25], [0.32], [0.4], [0.48]])
    boxes = torch.cat((0.5 - half, 0.5 - half, 0.5 + half, 0.5 + half), 1)
    boxes[5] = torch.tensor([0.0, 0.0, 0.65, 0.65])  # Of a map of 2x2 pixels no default box is in the middle.
    target = {"boxes": boxes, "labels": torch.arange(7) % 6 + 1}
    sides = [torch.tensor([image.size(2), image.size(1)] * 2) for image in images]
    masks = [torch.ones(7, *image.shape[1:], dtype=torch.uint8) for image in images]
    targets = [
        {**target, "boxes": boxes * side, "masks": mask, "landmarks": landmarks_of(boxes * side)}
        for side, mask in zip(sides, masks, strict=True)
    ]
    losses = run(net, images, targets)
    assert set(losses) == set(EXPECTED[detector].losses)
    assert all(loss.shape == () and torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert [key for key, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    silent = [key for key, p in net.named_parameters() if not p.grad.any()]
    assert not [key for key in silent if not key.startswith("roi_heads.mask")]


@pytest.mark.parametrize("detector", slow_unless(TYPICAL))
def test_detections(detector):
    """Of a batch those of its images, in their pixels, in descending order, the same every time."""
    net = create(detector, score_threshold=0.0, max_detections=20).eval()
    images = images_of((80, 96), (80, 96), seed=1)
    with torch.inference_mode():
        found, again = run(net, images), run(net, torch.stack(images))
        alone = run(net, images[:1])
    for image, each, second in zip(images, found, again, strict=True):
        assert all(torch.equal(each[key], second[key]) for key in each)
        height, width = image.shape[1:]
        limits = torch.tensor([width, height, width, height]) * (1 + 1e-6)
        assert ((each["boxes"] >= 0) & (each["boxes"] <= limits)).all()
        assert (each["scores"].diff() <= 0).all()
        assert 0 < len(each["labels"]) <= 20 and each["labels"].dtype == torch.int64
        assert each["labels"].min() >= int(net.has_background)
        if net.has_masks:
            assert each["masks"].shape == (len(each["labels"]), 1, height, width)
        if net.landmarks:
            assert each["landmarks"].shape == (len(each["labels"]), 5, 2) and each["landmarks"].isfinite().all()
    torch.testing.assert_close(alone[0]["scores"], found[0]["scores"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("detector", slow_unless(TYPICAL))
def test_fused_networks_detect_the_same(detector, filled):
    net = filled(create(detector, score_threshold=0.0, max_detections=5))
    images = images_of((80, 96), (70, 64))
    with torch.inference_mode():
        wanted, found = run(net, images), run(net.fuse(), images)
    assert not [name for name, m in net.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for first, second in zip(wanted, found, strict=True):
        torch.testing.assert_close(second["scores"], first["scores"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("detector", FORMS)
def test_unusual_targets_and_images(detector):
    net = create(detector)
    images = images_of((80, 96), (1, 1), (90, 3))
    for count in (0, (0, 1, 2)):
        losses = net(images, targets_of(images, count))
        assert all(torch.isfinite(loss) for loss in losses.values())
        sum(losses.values()).backward()
    assert [key for key, p in net.named_parameters() if p.grad is None] == []
    net = create(detector, score_threshold=1.0).eval()
    with torch.inference_mode():
        nothing = net(images_of((1, 1), (4000, 2), (64, 64)))
    assert [tuple(each["boxes"].shape) for each in nothing] == [(0, 4)] * 3
    if net.has_masks:
        assert [tuple(each["masks"].shape) for each in nothing] == [(0, 1, 1, 1), (0, 1, 4000, 2), (0, 1, 64, 64)]
    if net.landmarks:
        assert [tuple(each["landmarks"].shape) for each in nothing] == [(0, 5, 2)] * 3


@pytest.mark.parametrize("detector", slow_unless(TYPICAL))
def test_losses_fall(detector):
    """A step down the gradient, by which the loss would fall by a fiftieth if it were a plane."""
    net = create(detector)
    images = images_of((80, 96), (64, 64))
    targets, totals = targets_of(images), []
    for _ in range(2):
        net.generator = torch.Generator().manual_seed(0)
        totals.append(sum(run(net, images, targets).values()))
        if len(totals) == 1:
            parameters = [p for p in net.parameters() if p.requires_grad]
            grads = torch.autograd.grad(totals[0], parameters)
            length = totals[0].detach() / 50 / sum(grad.square().sum() for grad in grads)
            with torch.no_grad():
                for parameter, grad in zip(parameters, grads, strict=True):
                    parameter -= length * grad
    assert totals[1] < 0.995 * totals[0], totals


def test_thin_images_of_networks_that_pad_nothing():
    """ZF's pools take away more pixels than a thin image has: it is padded."""
    few = EXPECTED["fasterrcnn_zf"].small | {"backbone_options": (("hidden", 64),), "max_size": 256}
    net = models.create("fasterrcnn_zf", **few).eval()
    with torch.inference_mode():
        found = net(images_of((1, 4000), (4000, 1)))
    assert all(torch.isfinite(each["boxes"]).all() for each in found)


def test_a_generator_fixes_what_training_samples():
    net, images = create("fasterrcnn_resnet50_fpn", frozen_norms=True), images_of((80, 96))
    losses = []
    for seed in (1, 1, 2):
        net.generator = torch.Generator().manual_seed(seed)
        losses.append(net(images, targets_of(images))["loss_objectness"].item())
    assert losses[0] == losses[1] != losses[2]


def test_bad_calls_show_what_was_wrong():
    net = create("retinanet_resnet50_fpn", device="meta")
    with pytest.raises(ValueError, match=r"^RetinaNet needs targets in training mode$"):
        net(images_of((64, 64)))
    with pytest.raises(ValueError, match=r"labels'\] must be 0 to 6, got 7"):
        net(images_of((64, 64)), [{"boxes": torch.tensor([[1.0, 1, 9, 9]]), "labels": torch.tensor([7])}])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_size": 900, "max_size": 800}, "1 <= min_size <= max_size, got 900 and 800"),
        ({"score_threshold": 1.5}, r"score_threshold must be between 0 and 1, got 1\.5"),
        ({"max_detections": 0}, "max_detections must be at least 1, got 0"),
        ({"backbone": "resnet05"}, "no network is called 'resnet05'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        models.create("fasterrcnn_resnet50_fpn", device="meta", **options)


@pytest.mark.parametrize("detector", FORMS)
def test_replace_head(detector, tmp_path):
    net = create(detector, num_classes=5).eval()
    torch.save(net.state_dict(), tmp_path / "w.pth")
    loaded = create(detector, num_classes=5, weights=tmp_path / "w.pth").eval()
    kept = {key: value.clone() for key, value in net.state_dict().items()}
    assert loaded.replace_head(3) is loaded and loaded.num_classes == 3
    assert not any(module.training for module in loaded.modules())
    changed = [key for key, value in loaded.state_dict().items() if not torch.equal(value, kept[key])]
    assert changed and all(key.startswith(tuple(net.class_paths)) for key in changed)
    with torch.inference_mode():
        assert len(loaded(images_of((64, 64)))) == 1
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        loaded.replace_head(0)
    with pytest.raises(ValueError, match=r"w\.pth has 5 classes|w\.pth does not fit"):
        create(detector, num_classes=7, weights=tmp_path / "w.pth")


def test_fast_rcnn_wants_regions():
    net, images = create("fastrcnn_caffenet", device="meta").eval(), images_of((64, 64))
    for proposals, message in (
        ([], "proposals must be one tensor for each of 1 images, got 0"),
        ([torch.tensor([[3.0, 0, 3, 4]])], r"proposals\[0\] must be finite with x1 < x2"),
    ):
        with pytest.raises(ValueError, match=message):
            net(images, proposals=proposals)


def test_frozen_parts_stay():
    net = create("fasterrcnn_resnet50_fpn", frozen_norms=True, frozen_stages=2)
    images = images_of((80, 96))
    before = copy.deepcopy(net.state_dict())
    sum(net(images, targets_of(images)).values()).backward()
    without = {key for key, p in net.named_parameters() if p.grad is None}
    body = [key for key in before if key.startswith("backbone.body")]
    norms = {key for key in body if ".bn" in key or "downsample.1" in key}
    stem = {key for key in body if key.startswith(("backbone.body.conv1", "backbone.body.layer1"))}
    assert without == {key for key in norms | stem if key.endswith(("weight", "bias"))}
    assert all(torch.equal(net.state_dict()[key], before[key]) for key in norms)


OLD = {
    "maskrcnn_resnet50_fpn": [
        (r"^(backbone\.fpn\.\w+_blocks\.\d)\.0\.", r"\1."),
        (r"^rpn\.head\.conv\.0\.0\.", "rpn.head.conv."),
        (r"^roi_heads\.mask_head\.(\d)\.0\.", lambda key: f"roi_heads.mask_head.mask_fcn{int(key[1]) + 1}."),
    ],
    "retinanet_resnet50_fpn": [
        (r"^(backbone\.fpn\.\w+_blocks\.\d)\.0\.", r"\1."),
        (r"^(head\.\w+\.conv)\.(\d)\.0\.", lambda key: f"{key[1]}.{int(key[2]) * 2}."),
    ],
}


@pytest.mark.parametrize("detector", OLD)
def test_published_files_with_old_keys_load(detector, tmp_path):
    """Without num_batches_tracked, and with the names that torchvision's layers had when they were trained."""
    import re

    net = create(detector)
    state = {key: value for key, value in net.state_dict().items() if not key.endswith("num_batches_tracked")}
    old = {}
    for key, value in state.items():
        for pattern, name in OLD[detector]:
            key = re.sub(pattern, name, key)
        old[key] = value
    assert len(set(state) - set(old)) > 10
    torch.save(old, tmp_path / "old.pth")
    loaded = create(detector, weights=tmp_path / "old.pth", frozen_norms=True).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())
