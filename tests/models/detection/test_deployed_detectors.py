"""Detectors as they are deployed: fused, in batches, compiled."""

import copy

import pytest
import torch
from detection_rows import EXPECTED
from torch import nn
from yolo_net import small

from fastcnn import models
from fastcnn.models.detection.multibox import MultiBoxRow
from fastcnn.testing.detector_cases import DetectorCase
from fastcnn.testing.detector_rows import assert_same_detections, calibrate

REGIONS, DENSE = ("roi_heads.box_predictor.cls_score", 1e-5), ("head.classification_head", 1e-5)
YOLO = (None, 3e-5)  # Its boxes are up to ten times as large as the images here before they are cut off.
# One of each family, the layers of its classes, and how far corners may be apart over the image's sides.
FAMILIES = {
    "fasterrcnn_resnet50_fpn": REGIONS,
    "fasterrcnn_vgg16": REGIONS,
    "maskrcnn_resnet50_fpn": REGIONS,
    "retinanet_resnet50_fpn": DENSE,
    "ssd300_vgg16": DENSE,
    "ssdlite320_mobilenet_v2": DENSE,
    "yolov2": YOLO,
    "yolov3": YOLO,
}
FIXED = [name for name in EXPECTED if isinstance(models.find_entry(name).row, MultiBoxRow)]


def calibrated(detector, images):
    """As if trained: with scores apart, norms that have seen images, and a few dozen detections."""
    classes, _ = FAMILIES[detector]
    if classes is None:
        net = small(detector, num_classes=5)
    else:
        torch.manual_seed(0)
        net = models.create(detector, **EXPECTED[detector].small)
    calibrate(net.eval(), images, DetectorCase(len(images), 0, {}, classes, 30))
    return net


def photographs(*sizes):
    """Smooth, as photographs are, so that resizing them rounds little."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(len(sizes), 3, 9, 9, generator=generator)
    return [
        nn.functional.interpolate(each[None], size, mode="bicubic")[0].clamp(0, 1)
        for each, size in zip(coarse, sizes, strict=True)
    ]


@pytest.mark.parametrize("detector", FAMILIES)
def test_fused_networks_detect_the_same(detector):
    """Every class, box, score and mask, in float32."""
    images = photographs((80, 96), (80, 96))
    net = calibrated(detector, images)
    with torch.inference_mode():
        wanted = net(images)
        fused = copy.deepcopy(net).to(memory_format=torch.channels_last).fuse()
        found, alone = fused(images), [fused([image])[0] for image in images]
    assert all(len(each["boxes"]) for each in wanted)
    for some in (found, alone):
        assert_same_detections(some, wanted, images, what=detector, most=FAMILIES[detector][1], share=1.0)


@pytest.mark.parametrize("detector", ["fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "retinanet_resnet50_fpn"])
def test_fuse_leaves_no_norm_and_no_activation_to_itself(detector):
    """In the layers that run for every pixel; those on regions' features are linear and have functions after them."""
    net = models.create(detector, device="meta").eval().fuse()
    left = (nn.modules.batchnorm._BatchNorm, nn.ReLU)
    found = [name for name, module in net.named_modules() if isinstance(module, left)]
    # One module that several convolutions of a block call, and the one after a transposed convolution.
    shared = [name for name in found if ".layer" in name and name.endswith(".relu")]
    assert len(shared) == 16 and set(found) - set(shared) <= {"backbone.body.relu", "roi_heads.mask_predictor.relu"}


def one_graph(detector, backend):
    slow = backend == "inductor" or detector not in ("ssd300_vgg16", "ssdlite320_mobilenet_v2", "dssd321_resnet50")
    return pytest.param(detector, backend, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize(
    ("detector", "backend"),
    [one_graph(name, "aot_eager") for name in FIXED] + [one_graph("ssdlite320_mobilenet_v3_large", "inductor")],
)
def test_fixed_sizes_are_one_graph(detector, backend):
    torch.manual_seed(0)
    net = models.create(detector, **EXPECTED[detector].small, score_threshold=0.0).eval()
    batch, _, _ = net.transform(photographs((300, 320)))
    torch._dynamo.reset()
    with torch.no_grad():
        wanted = net.detect_padded(batch)
        found = torch.compile(net.detect_padded, fullgraph=True, backend=backend)(batch)
    for first, second in zip(wanted, found, strict=True):
        torch.testing.assert_close(second, first)
