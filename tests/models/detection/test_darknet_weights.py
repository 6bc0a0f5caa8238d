"""Darknet's .weights files, written here byte by byte as the format says."""

import struct

import pytest
import torch

from fastcnn import models
from fastcnn.models.detection.darknet_weights import (
    load_darknet_weights,
    read_darknet_header,
    save_darknet_weights,
)

NETWORKS = {
    "darknet19": {"stages": ((4,), (8, 4, 8)), "num_classes": 5},
    "darknet53": {"stem_channels": 4, "blocks": (1, 2), "num_classes": 5},
    "yolov2": {"width_mult": 0.02, "num_classes": 2},
    "yolov2_tiny": {"width_mult": 0.02, "num_classes": 2},
    "yolo9000": {"width_mult": 0.02, "num_classes": 6},
    "yolov3": {"width_mult": 0.02, "num_classes": 2},
    "yolov3_tiny": {"width_mult": 0.02, "num_classes": 2},
}
# The layers in the order of the authors' configurations, where it is not simply that of the stages.
ORDER = {
    "yolov2": (
        [f"backbone.stages.{s}.{i}" for s, n in enumerate((1, 1, 3, 3, 5, 5)) for i in range(n)]
        + ["convs.0", "convs.1", "passthrough.0", "last", "predictor"]
    ),
    "yolov3_tiny": (
        [f"backbone.{i}" for i in (0, 2, 4, 6, 8, 10, 13)]
        + ["heads.0.body.0", "heads.0.out", "heads.0.predictor"]
        + ["heads.1.lateral", "heads.1.out", "heads.1.predictor"]
    ),
    "yolov3": (
        ["backbone.stem.conv1"]
        + [
            f"backbone.stages.{s}.{part}"
            for s, n in enumerate((1, 2, 8, 8, 4))
            for part in ["conv_down", *(f"blocks.{b}.conv{c}" for b in range(n) for c in (1, 2))]
        ]
        + [f"heads.0.{part}" for part in (*(f"body.{i}" for i in range(5)), "out", "predictor")]
        + [f"heads.1.{part}" for part in ("lateral", *(f"body.{i}" for i in range(5)), "out", "predictor")]
        + [f"heads.2.{part}" for part in ("lateral", *(f"body.{i}" for i in range(5)), "out", "predictor")]
    ),
    "darknet19": ["stages.0.0", "stages.1.0", "stages.1.1", "stages.1.2", "classifier"],
}


def build(network, seed=0, **options):
    torch.manual_seed(seed)
    net = models.create(network, **NETWORKS[network], **options)
    with torch.no_grad():
        for key, value in net.state_dict().items():
            if not key.endswith("num_batches_tracked"):
                value.uniform_(0.1, 1)
    return net.eval()


def file_of(net, order, version=(0, 2, 0), seen=32_013_312):
    """The bytes of the file, from the state dict."""
    state = net.state_dict()
    numbers = []
    for layer in order:
        if f"{layer}.bn.weight" in state:
            keys = ["bn.bias", "bn.weight", "bn.running_mean", "bn.running_var", "conv.weight"]
        else:
            keys = ["bias", "weight"]
        for key in keys:
            numbers += state[f"{layer}.{key}"].flatten().tolist()
    wide = version[0] * 10 + version[1] >= 2
    return (
        struct.pack("<3i", *version)
        + struct.pack("<q" if wide else "<i", seen)
        + struct.pack(f"<{len(numbers)}f", *numbers)
    )


def equal(a, b):
    a, b = a.state_dict(), b.state_dict()
    return all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("network", ORDER)
@pytest.mark.parametrize("version", [(0, 2, 0), (0, 1, 0)])
def test_reads_a_file(network, version, tmp_path):
    net, other = build(network), build(network, seed=1)
    content = file_of(net, ORDER[network], version)
    (tmp_path / "net.weights").write_bytes(content)
    header = read_darknet_header(tmp_path / "net.weights")
    assert header == (*version, 32_013_312, 20 if version[1] == 2 else 16)
    assert not equal(net, other)
    assert load_darknet_weights(other, tmp_path / "net.weights") is other
    assert equal(net, other)
    if version[1] == 2:
        save_darknet_weights(net, tmp_path / "again.weights", seen=32_013_312)
        assert (tmp_path / "again.weights").read_bytes() == content


@pytest.mark.parametrize("network", NETWORKS)
def test_what_is_written_is_read(network, tmp_path):
    net, other = build(network), build(network, seed=1)
    save_darknet_weights(net, tmp_path / "net.weights")
    load_darknet_weights(other, tmp_path / "net.weights")
    assert equal(net, other)
    size = (tmp_path / "net.weights").stat().st_size
    assert size == 20 + 4 * models.count_params(net, include_bn_stats=True)
    double = load_darknet_weights(build(network, seed=1, dtype=torch.float64), tmp_path / "net.weights")
    assert all(torch.equal(a.double(), b) for a, b in zip(net.parameters(), double.parameters(), strict=True))


def test_a_backbones_file_loads_into_a_detectors_backbone(tmp_path):
    classifier = models.create("darknet53", stem_channels=8, features_only=True)
    save_darknet_weights(classifier, tmp_path / "darknet53.conv.74")
    net = build("yolov3")
    load_darknet_weights(net.backbone, tmp_path / "darknet53.conv.74")
    assert equal(classifier, net.backbone)


def test_bad_files_change_nothing(tmp_path):
    net, path = build("yolov2"), tmp_path / "net.weights"
    before = {key: value.clone() for key, value in net.state_dict().items()}
    good = file_of(net, ORDER["yolov2"])
    first = 20 + 4 * 3 * 8  # The first layer's variances.
    negative = good[:first] + struct.pack("<f", -1.0) + good[first + 4 :]
    for content, message in [
        (b"", "is no Darknet weights file: 0 bytes are less than its header"),
        (good[:14], "14 bytes are less than its header"),
        (good[:18], "18 bytes are less than its header"),
        (good[:-4], "is cut short or of another network: it has"),
        (good[:-1], "is cut short or of another network: it has"),
        (good + b"\0\0\0\0", "is of another network: it has"),
        (b"\x89PNG\r\n\x1a\n" + good, r"its version is \d+"),
        (file_of(build("yolov3"), ORDER["yolov3"]), "another network: it has"),
        (negative, "what should be variances is negative or not finite"),
        (good[:first] + struct.pack("<f", float("nan")) + good[first + 4 :], "negative or not finite"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as error:
            load_darknet_weights(net, path)
        assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match="no weights file"):
        load_darknet_weights(net, tmp_path / "none.weights")
    with pytest.raises(ValueError, match="is a directory"):
        load_darknet_weights(net, tmp_path)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_networks_without_such_files(tmp_path):
    path = tmp_path / "net.weights"
    path.write_bytes(file_of(build("yolov2"), ORDER["yolov2"]))
    with pytest.raises(TypeError, match="not ResNet"):
        load_darknet_weights(models.create("resnet18", device="meta"), path)
    with pytest.raises(TypeError, match="not YOLOv1"):
        save_darknet_weights(models.create("yolov1", device="meta"), path)
    with pytest.raises(ValueError, match="on the meta device"):
        load_darknet_weights(models.create("yolov2", device="meta"), path)
    with pytest.raises(ValueError, match="are fused"):
        load_darknet_weights(build("yolov2").fuse(), path)
    with pytest.raises(ValueError, match="seen must be 0 or more, got -1"):
        save_darknet_weights(build("yolov2"), path, seen=-1)
