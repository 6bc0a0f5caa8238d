"""``fastcnn detect`` on files of every kind: the right box, or one line and exit status 2."""

import dataclasses
import hashlib
import json
import sys

import pytest
import torch

from fastcnn import models
from fastcnn.cli import main
from fastcnn.data import read_image
from fastcnn.models import _published, _registry
from fastcnn.models._published import PUBLISHED, Published
from fastcnn.models.detection.darknet_weights import save_darknet_weights
from fastcnn.models.detection.detector import DetectorRow, square

Image = pytest.importorskip("PIL.Image")
ImageDraw = pytest.importorskip("PIL.ImageDraw")
NAMES = ("__background__", "lamp", "sun")


class Finder(models.ConvNet):
    """Detects the smallest box around bright pixels: its score is their mean brightness, its label 2 above 0.95."""

    classifier_path = ""

    def __init__(self, row, *, device=None, dtype=None):
        super().__init__(row)
        self.level = torch.nn.Parameter(torch.full((), 0.3, device=device, dtype=dtype))

    def forward(self, images):
        return [self.find(image.mean(0)) for image in images]

    def find(self, grey):
        rows, columns = (grey > self.level).nonzero().unbind(1)
        score = grey[rows, columns].mean() if len(rows) else torch.tensor(0.0)
        if score <= self.row.score_threshold:
            return {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long(), "scores": torch.zeros(0)}
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        return {
            "boxes": torch.stack(box)[None].float(),
            "labels": (1 + (score > 0.95).long())[None],
            "scores": score[None],
        }


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A file of a network that finds bright rectangles."""
    row = DetectorRow(source="here", backbone="none", num_classes=3, score_threshold=0.05)
    monkeypatch.setitem(_registry._ENTRIES, "finder", _registry.Entry(row, Finder))
    path = tmp_path / "finder.safetensors"
    models.save_weights(models.create("finder"), path, network="finder", classes=NAMES)
    return path


def run(capsys, *arguments):
    try:
        status = main(["detect", *map(str, arguments)])
    except SystemExit as stop:
        status = stop.code
    out, err = capsys.readouterr()
    return status, out, err


def picture(mode="RGB", size=(60, 40), box=(10, 5, 29, 19), value=255):
    """Black, with a bright rectangle from pixel to pixel."""
    image = Image.new("L", size, 0)
    ImageDraw.Draw(image).rectangle(box, fill=value)
    return image.convert(mode)


def detected(capsys, weights, *arguments):
    status, out, err = run(capsys, *arguments, "--weights", weights, "--json", "-")
    assert (status, err) == (0, "")
    return json.loads(out)


def transparent(image):
    image.putalpha(128)
    return image


def sixteen(image):
    pixels = torch.tensor(list(image.tobytes()), dtype=torch.int32).reshape(image.height, image.width) * 200
    return Image.frombytes("I;16", image.size, pixels.to(torch.int16).numpy().tobytes())


def rotated(image):
    turned = image.transpose(Image.Transpose.ROTATE_90)  # As a camera on its side stores it.
    turned.getexif()[0x0112] = 6
    return turned


FILES = {
    "rgb.png": picture,
    "photograph.jpg": picture,
    "grey.png": lambda: picture("L"),
    "bits.png": lambda: picture("1"),
    "alpha.png": lambda: transparent(picture("RGBA")),
    "grey_alpha.png": lambda: picture("LA"),
    "palette.png": lambda: picture("P"),
    "palette.gif": lambda: picture("P"),
    "sixteen.png": lambda: sixteen(picture("L")),
    "sixteen.tif": lambda: sixteen(picture("L")),
    "cmyk.jpg": lambda: picture("CMYK"),
    "cmyk.tif": lambda: picture("CMYK"),
    "rotated.jpg": lambda: rotated(picture()),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file(name, weights, tmp_path, capsys):
    image = FILES[name]()
    path = tmp_path / name
    image.save(path, **({"exif": image.getexif(), "quality": 100} if name.endswith("jpg") else {}))
    (entry,) = detected(capsys, weights, path, "--out", tmp_path / "out.png")
    (one,) = entry["detections"]
    near = 1 if name.endswith("jpg") else 0
    assert all(abs(a - b) <= near for a, b in zip(one["box"], (10, 5, 30, 20), strict=True))
    assert one["name"] == NAMES[one["label"]]
    # 200 * 255 of 65535 is 0.78 of white.
    assert one["score"] == pytest.approx(199 / 255 if "sixteen" in name else 1, abs=0.03)
    drawn = read_image(tmp_path / "out.png")
    assert drawn.shape == (3, 40, 60) and not torch.equal(drawn, read_image(path, upright=True))


@pytest.mark.parametrize("size", [(1, 1), (4000, 3), (4000, 3000)])
def test_small_and_large_images(size, weights, tmp_path, capsys):
    picture(size=size, box=(0, 0, *size)).save(tmp_path / "a.png")
    (entry,) = detected(capsys, weights, tmp_path / "a.png", "--out", tmp_path / "b.png")
    assert (entry["width"], entry["height"]) == size
    assert entry["detections"] == [{"label": 2, "name": "sun", "score": 1.0, "box": [0, 0, *map(float, size)]}]
    assert read_image(tmp_path / "b.png").shape == (3, size[1], size[0])


def test_several_images_of_different_sizes(weights, tmp_path, capsys):
    for index in range(11):  # More than a batch.
        picture(size=(60 + index, 40), box=(index, 5, 29, 19)).save(tmp_path / f"{index}.png")
    files = [tmp_path / f"{index}.png" for index in range(11)]
    found = detected(capsys, weights, *files, "--out", tmp_path / "new" / "folder")
    assert [entry["image"] for entry in found] == [str(file) for file in files]
    assert [entry["detections"][0]["box"] for entry in found] == [[float(i), 5.0, 30.0, 20.0] for i in range(11)]
    for file in files:
        assert read_image(tmp_path / "new" / "folder" / file.name).shape == read_image(file).shape


def test_what_is_printed(weights, tmp_path, capsys):
    picture(value=179).save(tmp_path / "a.png")
    picture(value=0).save(tmp_path / "b.png")
    a, b = tmp_path / "a.png", tmp_path / "b.png"
    lines = f"{a}: 1 found\n  lamp  0.702  10.0 5.0 30.0 20.0\n{b}: 0 found\n"
    assert run(capsys, a, b, "--weights", weights) == (0, lines, "")
    report = tmp_path / "new" / "report.json"
    assert run(capsys, a, b, "--weights", weights, "--json", report) == (0, lines, "")
    assert [len(entry["detections"]) for entry in json.loads(report.read_text())] == [1, 0]
    assert run(capsys, a, "--weights", weights, "--threshold", "0.71")[1] == f"{a}: 0 found\n"
    # Below the threshold of the network's own row.
    picture(value=90).save(a)
    assert "0.353" in run(capsys, a, "--weights", weights, "--threshold", "0")[1]


def test_numbers_for_want_of_names(weights, tmp_path, capsys):
    models.save_weights(models.create("finder"), weights, network="finder")
    picture().save(tmp_path / "a.png")
    assert "\n  2  1.000  " in run(capsys, tmp_path / "a.png", "--weights", weights)[1]


def files(tmp_path):
    picture().save(tmp_path / "ok.png")
    picture(size=(600, 400)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:900])
    (tmp_path / "text.png").write_bytes(b"not a picture")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "other").mkdir()
    picture().save(tmp_path / "other" / "ok.png")
    models.save_weights(models.create("lenet5"), tmp_path / "lenet.safetensors", network="lenet5")
    torch.save({}, tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["missing.png"], "no image file 'missing.png'"),
        (["cut.jpg"], "cut.jpg is no image that Pillow reads"),
        (["ok.png", "cut.jpg"], "cut.jpg is no image"),
        (["text.png"], "text.png is no image"),
        (["empty.png"], "empty.png is no image"),
        (["folder"], "no image file 'folder'"),
        ([], "IMAGE"),
        (["ok.png", "--out", "ok.png"], "write over the image 'ok.png'"),
        (["ok.png", "--out", "other/../ok.png"], "write over the image"),
        (["other/ok.png", "--out", "other"], "write over the image 'other/ok.png'"),
        (["ok.png", "other/ok.png", "--out", "folder"], "two images would be drawn into 'folder/ok.png'"),
        (["ok.png", "whole.jpg", "--out", "x.png"], "--out must be a folder for 2 images, got 'x.png'"),
        (["ok.png", "--out", "x.nonsense"], "--out must be a folder or an image file such as out.png"),
        (["ok.png", "--out", "text.png/x.png"], "text.png"),
        (["ok.png", "--out", "text.png/x"], "text.png"),
        (["ok.png", "--json", "folder"], "--json folder is a directory"),
        (["ok.png", "--json", "text.png/x.json"], "text.png"),
        (["ok.png", "--threshold", "1.5"], "'1.5'"),
        (["ok.png", "--threshold", "nan"], "'nan'"),
        (["ok.png", "--device", "nonsense"], "no device 'nonsense'"),
        (["ok.png", "--device", "cuda:99"], "no device 'cuda:99'"),
        (["ok.png", "--device", "meta"], "no device 'meta'"),
        (["ok.png", "--weights", "missing.safetensors"], "no weights file 'missing.safetensors'"),
        (["ok.png", "--weights", "lenet.safetensors"], "lenet.safetensors is of no detector"),
        (["ok.png", "--weights", "w.pth"], "w.pth does not say which network"),
        (["ok.png", "--weights", "COCO_V1"], "'COCO_V1' is a tag"),
        (["ok.png", "--model", "resnet50"], "resnet50 is no detector"),
        (["ok.png", "--model", "yolov33"], "did you mean yolov3"),
        (["ok.png", "--model", "yolov3"], "no published weights of yolov3"),
        (["ok.png", "--model", "lamps", "--weights", "NEW"], "o.pth cannot be fetched"),
    ],
)
def test_errors_are_one_line(arguments, shown, weights, tmp_path, capsys, monkeypatch):
    files(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(_registry._ENTRIES, "lamps", _registry._ENTRIES["finder"])
    monkeypatch.setitem(PUBLISHED, "lamps", {"NEW": Published("http://127.0.0.1:1/o.pth", None)})
    given = [] if {"--weights", "--model"} & {*arguments} else ["--weights", weights]
    status, _, err = run(capsys, *arguments, *given)
    assert status == 2 and len(err.splitlines()) == 1 and shown in err


def test_a_disk_that_is_full(weights, tmp_path, capsys):
    picture().save(tmp_path / "a.png")
    (tmp_path / "full.png").symlink_to("/dev/full")
    status, _, err = run(capsys, tmp_path / "a.png", "--weights", weights, "--out", tmp_path / "full.png")
    assert status == 2 and "No space left" in err and len(err.splitlines()) == 1


def test_without_pillow(weights, tmp_path, capsys, monkeypatch):
    picture().save(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    status, _, err = run(capsys, tmp_path / "a.png", "--weights", weights)
    assert status == 2 and "fastcnn[detection]" in err and len(err.splitlines()) == 1


def test_the_network_in_the_package(tmp_path, capsys, monkeypatch):
    """A small SSDLite, untrained, as a row and a file of the package."""
    picture().save(tmp_path / "a.png")
    monkeypatch.setattr(_published, "PACKAGED", tmp_path)
    monkeypatch.setattr(_published, "PUBLISHED", {})
    status, _, err = run(capsys, tmp_path / "a.png")
    assert status == 2 and "no weights lie in this package" in err

    network = "ssdlite320_mobilenet_v2"
    small = {"num_classes": 3, "preprocess": square(64), "backbone_options": (("width_mult", 0.35),)}
    net = models.create(network, **small, extras=(64,) * 4).eval()
    models.save_weights(net, tmp_path / "w-.safetensors", network=network, classes=NAMES)
    digest = hashlib.sha256((tmp_path / "w-.safetensors").read_bytes()).hexdigest()
    (tmp_path / "w-.safetensors").rename(tmp_path / f"w-{digest[:8]}.safetensors")
    monkeypatch.setattr(
        _published, "PUBLISHED", {network: {"SCENES_V1": Published(f"w-{digest[:8]}.safetensors", None)}}
    )
    (entry,) = json.loads(run(capsys, tmp_path / "a.png", "--threshold", "0.01", "--json", "-")[1])
    expected = net([picture_tensor(tmp_path / "a.png")])[0]
    kept = expected["scores"] > 0.01
    assert torch.allclose(torch.tensor([f["score"] for f in entry["detections"]]), expected["scores"][kept])
    assert torch.allclose(torch.tensor([f["box"] for f in entry["detections"]]), expected["boxes"][kept], atol=1e-4)
    assert {f["name"] for f in entry["detections"]} <= {"lamp", "sun"} and entry["detections"]


def picture_tensor(path):
    return read_image(path).float() / 255


def test_darknets_file(tmp_path, capsys, monkeypatch):
    picture().save(tmp_path / "a.png")
    entry = models.find_entry("yolov3")
    row = dataclasses.replace(entry.row, width_mult=0.05)
    monkeypatch.setitem(_registry._ENTRIES, "yolov3", _registry.Entry(row, entry.build))
    net = models.create("yolov3").eval()
    save_darknet_weights(net, tmp_path / "y.weights")
    arguments = ["--model", "yolov3", "--weights", tmp_path / "y.weights", "--threshold", "0.006", "--json", "-"]
    status, out, err = run(capsys, tmp_path / "a.png", *arguments)
    assert (status, err) == (0, "")
    found = json.loads(out)[0]["detections"]
    expected = net([picture_tensor(tmp_path / "a.png")])[0]
    kept = expected["scores"] > 0.006
    assert [f["label"] for f in found] == expected["labels"][kept].tolist() and found
    assert all(f["name"] == models.COCO_CLASSES[f["label"]] for f in found)
