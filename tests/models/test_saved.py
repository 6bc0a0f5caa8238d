"""Files that say which network they are of, weights inside the package, names of classes."""

import fnmatch
import hashlib
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from yolo_net import small as small_yolo

from fastcnn import models
from fastcnn.models import _published
from fastcnn.models._published import PUBLISHED, Published, find_packaged
from fastcnn.models.detection.darknet_weights import save_darknet_weights
from fastcnn.models.detection.detector import square

NAMES = ("__background__", "circle", "square", "star")
SSDLITE = "ssdlite320_mobilenet_v2"
OPTIONS = {"num_classes": 4, "preprocess": square(64), "backbone_options": (("width_mult", 0.35),), "extras": (64,) * 4}


@pytest.fixture(scope="module")
def ssdlite():
    torch.manual_seed(0)
    return models.create(SSDLITE, **OPTIONS).eval()


def same(net, other):
    images = [torch.rand(3, 50, 70)]
    for key, value in net.eval()(images)[0].items():
        assert torch.equal(other.eval()(images)[0][key], value)
    assert list(net.state_dict()) == list(other.state_dict())
    assert all(torch.equal(other.state_dict()[key], value) for key, value in net.state_dict().items())
    assert net.row == other.row


@pytest.mark.parametrize("options", [None, OPTIONS])
def test_a_file_makes_the_network_again(options, ssdlite, tmp_path):
    path = tmp_path / "w.safetensors"
    models.save_weights(ssdlite, path, network=SSDLITE, options=options, classes=NAMES)
    found = models.read_metadata(path)
    assert (found["network"], found["classes"]) == (SSDLITE, NAMES)
    assert found["options"]["preprocess"]["input_size"] == 64
    for net in (models.create(SSDLITE, weights=path), models.create_from(path)):
        same(ssdlite, net)
        assert net.classes == NAMES
    again = tmp_path / "again.safetensors"
    models.save_weights(net, again, network=SSDLITE)
    assert models.read_metadata(again)["classes"] == NAMES
    assert models.create_from(path, score_threshold=0.7).row.score_threshold == 0.7
    assert net.replace_head(9).classes == ()


def test_names_go_with_the_head():
    for network in ("yolov2", "yolov3"):
        net = small_yolo(network)
        net.classes = ("a",) * net.num_classes
        assert net.replace_head(3).classes == ()
    net = models.create("lenet5")
    net.classes = ("a",) * 10
    assert net.replace_head(3).classes == ()


def test_a_classifier_too(tmp_path):
    net = models.create("lenet5", 3)
    models.save_weights(net, tmp_path / "w.safetensors", network="lenet5", classes="abc")
    loaded = models.create_from(tmp_path / "w.safetensors")
    assert loaded.num_classes == 3 and loaded.classes == ("a", "b", "c")
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in net.state_dict().items())


def test_another_network_or_no_name(ssdlite, tmp_path):
    path = tmp_path / "w.safetensors"
    models.save_weights(ssdlite, path, network=SSDLITE)
    with pytest.raises(ValueError, match=rf"^w.safetensors is of {SSDLITE}, not of lenet5$"):
        models.create("lenet5", weights=path)
    save_file({"a": torch.zeros(1)}, path)
    assert models.read_metadata(path) == {"network": None, "options": {}, "classes": ()}
    for file in (path, "w.pth"):
        with pytest.raises(ValueError, match=r"^w.\w+ does not say which network it is of"):
            models.create_from(file)
    with pytest.raises(ValueError, match="'COCO_V1' is a tag: name its network"):
        models.create_from("COCO_V1")
    with pytest.raises(FileNotFoundError, match=r"missing\.safetensors"):
        models.create_from(tmp_path / "missing.safetensors")


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("network", "{", "its network are no JSON: '{'"),
        ("network", "[1]", r"its network must be a name, got \[1\]"),
        ("options", "[]", r"its options must be an object without .*, got \[\]"),
        ("options", '{"backbone_weights": "/etc/passwd"}', "its options must be an object without backbone_weights"),
        ("classes", '"ab"', "its classes must be a list of printable names, got 'ab'"),
        ("classes", '["a\\u001b[2J"]', "its classes must be a list of printable names"),
        ("options", '{"nonsense": 1}', "has no option 'nonsense'"),
        ("options", '{"num_classes": "3"}', "num_classes must be an int, got '3'"),
        ("network", '"nonsense"', "no network is called 'nonsense'"),
    ],
)
def test_metadata_that_is_wrong(key, text, message, tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"network": '"lenet5"', key: text})
    with pytest.raises((ValueError, TypeError), match=message) as error:
        models.create_from(path)
    assert "\n" not in str(error.value)


def test_what_is_not_saved(ssdlite, tmp_path):
    path = tmp_path / "w.safetensors"
    for arguments, kind, message in [
        ({"path": tmp_path / "w.pth"}, ValueError, r"a .safetensors file, got '.*w.pth'"),
        ({"classes": NAMES[1:]}, ValueError, "a name for each of 4 labels, got 3"),
        ({"network": "lenet5"}, ValueError, "this SSDLite is no lenet5"),
        ({"network": "lenet"}, ValueError, "no network is called 'lenet'"),
        ({"options": {"boxes": ssdlite.row.boxes}}, TypeError, r"^options\['boxes'\] is no number"),
    ]:
        with pytest.raises(kind, match=message):
            models.save_weights(ssdlite, **{"path": path, "network": SSDLITE, **arguments})
    with pytest.raises(ValueError, match="fused, features_only or on the meta device is not saved"):
        models.save_weights(models.create("lenet5", device="meta"), path, network="lenet5")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def packaged(ssdlite, tmp_path, monkeypatch):
    """A row whose file is in the package's folder, which is another here."""
    path = tmp_path / "w.safetensors"
    models.save_weights(ssdlite, path, network=SSDLITE, classes=NAMES)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path = path.rename(tmp_path / f"ssdlite_scenes-{digest[:8]}.safetensors")
    monkeypatch.setattr(_published, "PACKAGED", tmp_path)
    tags = {"SCENES_V1": Published(path.name, None, metrics={"AP50": 0.9})}
    monkeypatch.setitem(PUBLISHED, SSDLITE, tags)
    monkeypatch.setattr(_published, "PUBLISHED", {SSDLITE: tags})
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", None)
    return path


def test_weights_in_the_package(packaged, ssdlite):
    assert models.list_weights(SSDLITE) == ["SCENES_V1"]
    assert find_packaged() == (SSDLITE, "SCENES_V1")
    nets = [models.create(SSDLITE, weights=tag) for tag in ("SCENES_V1", "DEFAULT")] + [models.create_from()]
    for net in nets:
        same(ssdlite, net)
        assert net.classes == NAMES


def test_a_package_with_another_file_or_none(packaged):
    with packaged.open("ab") as file:
        file.write(b"0")
    with pytest.raises(RuntimeError, match=rf"{packaged.name} is not the file that was published .*: install"):
        models.create_from()
    packaged.unlink()
    with pytest.raises(RuntimeError, match=rf"{packaged.name} is missing: install fastcnn again"):
        models.create(SSDLITE, weights="SCENES_V1")


def test_a_package_without_weights(monkeypatch):
    monkeypatch.setattr(_published, "PUBLISHED", {"alexnet_owt": PUBLISHED["alexnet_owt"]})
    with pytest.raises(ValueError, match="no weights lie in this package"):
        models.create_from()


def test_a_wheel_takes_the_folder_along():
    root = Path(__file__).parents[2]
    (pattern,) = re.findall(r'^"fastcnn.models" = \["(.*)"\]$', (root / "pyproject.toml").read_text(), re.M)
    assert fnmatch.fnmatch("weights/w-01234567.safetensors", pattern)
    assert root / "fastcnn/models/weights" == _published.PACKAGED
    assert "recursive-include fastcnn/models/weights *.safetensors" in (root / "MANIFEST.in").read_text()


def test_a_file_with_a_published_name_brings_what_its_tag_does(tmp_path, monkeypatch):
    options = {"norm_eps": 0.0, "min_size": 64, "max_size": 96, "backbone_options": (("layers", (1, 1, 1, 1)),)}
    state = models.create("retinanet_resnet50_fpn", **options).state_dict()
    published = PUBLISHED["retinanet_resnet50_fpn"]["COCO_V1"]
    torch.save(state, tmp_path / published.file)
    torch.save(state, tmp_path / "other.pth")
    options.pop("norm_eps")
    net = models.create("retinanet_resnet50_fpn", weights=tmp_path / published.file, **options)
    assert net.row.norm_eps == 0.0 and net.row.frozen_norms and net.classes[18] == "dog"
    net = models.create("retinanet_resnet50_fpn", weights=tmp_path / "other.pth", **options)
    assert net.row.norm_eps != 0.0 and net.classes == ()


def test_darknets_files(tmp_path):
    options = {"width_mult": 0.05, "multi_scale": False}
    for network, third in [("yolov3", "car"), ("yolov2", "bird")]:
        torch.manual_seed(0)
        net = models.create(network, **options)
        save_darknet_weights(net, tmp_path / "y.weights")
        loaded = models.create(network, weights=tmp_path / "y.weights", **options)
        assert all(
            torch.equal(loaded.state_dict()[key], value)
            for key, value in net.state_dict().items()
            if "num_batches" not in key
        )
        assert loaded.classes[2] == third
    with pytest.raises(FileNotFoundError, match="no weights file"):
        models.create("yolov3", weights=tmp_path / "no.weights", **options)


def test_names_of_coco_and_voc():
    """Category ids as the data set's own annotations have them."""
    ids = {1: "person", 13: "stop sign", 18: "dog", 27: "backpack", 31: "handbag", 44: "bottle", 46: "wine glass"}
    ids |= {67: "dining table", 70: "toilet", 72: "tv", 82: "refrigerator", 84: "book", 90: "toothbrush"}
    assert {label: models.COCO_SLOTS[label] for label in ids} == ids
    unused = [label for label, name in enumerate(models.COCO_SLOTS) if name == "N/A"]
    assert unused == [12, 26, 29, 30, 45, 66, 68, 69, 71, 83]
    assert (len(models.COCO_SLOTS), len(models.COCO_CLASSES), len(models.VOC_CLASSES)) == (91, 80, 20)
    assert len({*models.COCO_CLASSES}) == 80 and models.COCO_SLOTS[0] == "__background__"


def test_metrics_are_torchvisions():
    found = {name: tags["COCO_V1"].metrics["box_map"] for name, tags in PUBLISHED.items() if "COCO_V1" in tags}
    assert found["maskrcnn_resnet50_fpn"] == 37.9 and found["ssdlite320_mobilenet_v3_large"] == 21.3
    assert len(found) == 7
