"""``fastcnn detect`` on files of all kinds, with the detector that lies in the package; and what it draws."""

import json

import pytest
import torch

from fastcnn import models
from fastcnn.cli import main
from fastcnn.data import SHAPES, Scenes, draw_detections, read_image
from fastcnn.data.draw import label_colour, label_name
from fastcnn.models.detection.boxes import box_iou
from fastcnn.models.detection.darknet_weights import save_darknet_weights

Image = pytest.importorskip("PIL.Image")
SCENES = Scenes(3, 160, seed=77)


@pytest.fixture
def detect(capsys):
    """The command's exit status, output and errors."""

    def call(*arguments):
        try:
            status = main(["detect", *map(str, arguments)])
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.fixture
def scene(tmp_path):
    """A file of a scene, and what is in it."""
    image, target = SCENES[0]
    path = tmp_path / "scene.png"
    picture(image).save(path)
    return path, target


def picture(image):
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())


def test_finds_draws_and_lists_what_is_there(detect, scene, tmp_path):
    path, target = scene
    status, out, err = detect(path, "--out", tmp_path / "out.png", "--json", tmp_path / "out.json")
    assert (status, err) == (0, "")
    (entry,) = json.loads((tmp_path / "out.json").read_text())
    assert (entry["image"], entry["width"], entry["height"]) == (str(path), 160, 160)
    found = entry["detections"]
    assert out.splitlines()[0] == f"{path}: {len(found)} found" and len(out.splitlines()) == 1 + len(found)
    overlap = box_iou(torch.tensor([each["box"] for each in found]), target["boxes"])
    names = [SHAPES_BY_LABEL[label] for label in target["labels"].tolist()]
    right = [
        names[int(row.argmax())] == each["name"] and row.max() > 0.5 for row, each in zip(overlap, found, strict=True)
    ]
    assert sum(right) >= 0.7 * len(names) and all(each["score"] > 0.5 for each in found)
    before, after = read_image(path), read_image(tmp_path / "out.png")
    changed = (before != after).any(0)
    assert before.shape == after.shape and 0 < changed.sum() < 0.6 * changed.numel()


SHAPES_BY_LABEL = dict(enumerate(SHAPES, 1))


def test_the_threshold_decides(detect, scene):
    counts = []
    for threshold in ("0.05", "0.5", "1"):
        status, out, _ = detect(scene[0], "--threshold", threshold, "--json", "-")
        counts.append(len(json.loads(out)[0]["detections"]))
        assert status == 0
    assert counts[0] > counts[1] > counts[2] == 0


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1", "I;16"])
def test_files_of_every_mode(detect, scene, tmp_path, mode):
    path = tmp_path / ("image.tiff" if mode in ("CMYK", "I;16") else "image.png")
    image = Image.open(scene[0])
    if mode == "I;16":
        array = (SCENES[0][0].mean(0) * 65535).round().int().numpy().astype("uint16")
        Image.fromarray(array).save(path)
    else:
        image.convert(mode).save(path)
    status, out, err = detect(path)
    assert (status, err) == (0, "") and out.startswith(f"{path}: ")
    assert read_image(path).shape == (3, 160, 160)
    if mode in ("L", "RGBA", "I;16"):  # Grey is near what the network has seen.
        assert int(out.split(": ")[1].split()[0]) >= 1


def test_a_turned_photograph_is_seen_upright(detect, scene, tmp_path):
    image = Image.open(scene[0]).crop((0, 0, 160, 120))
    turned = image.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # To be turned by 90 degrees clockwise.
    turned.save(tmp_path / "turned.png", exif=exif)
    image.save(tmp_path / "upright.png")
    both = [json.loads(detect(tmp_path / f"{name}.png", "--json", "-")[1])[0] for name in ("turned", "upright")]
    assert both[0]["detections"] == both[1]["detections"] and (both[0]["width"], both[0]["height"]) == (160, 120)


@pytest.mark.parametrize("size", [(1, 1), (4000, 3), (2, 4000), (4000, 1500)])
def test_images_of_every_size(detect, tmp_path, size):
    Image.new("RGB", size, (90, 120, 150)).save(tmp_path / "image.png")
    status, _, err = detect(tmp_path / "image.png", "--out", tmp_path / "out.png", "--threshold", "0.01")
    assert (status, err) == (0, "") and Image.open(tmp_path / "out.png").size == size


def test_several_images_are_as_each_alone(detect, tmp_path):
    paths = []
    for index, (image, _) in enumerate(SCENES):
        paths.append(tmp_path / f"{index}.png")
        picture(image[:, : 160 - 20 * index]).save(paths[-1])
    together = json.loads(detect(*paths, "--out", tmp_path / "drawn", "--json", "-")[1])
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["0.png", "1.png", "2.png"]
    for path, entry in zip(paths, together, strict=True):
        (alone,) = json.loads(detect(path, "--json", "-")[1])
        assert [each["name"] for each in alone["detections"]] == [each["name"] for each in entry["detections"]]
        for one, other in zip(alone["detections"], entry["detections"], strict=True):
            assert one["box"] == pytest.approx(other["box"], abs=1e-2)


def test_weights_of_files(detect, scene, tmp_path):
    path, _ = scene
    net = models.create_from()
    models.save_weights(net, tmp_path / "own.safetensors", network="ssdlite160_mobilenet_v2_x0_35")
    assert detect(path, "--weights", tmp_path / "own.safetensors") == detect(path)
    torch.save(net.state_dict(), tmp_path / "plain.pth")
    status, _, err = detect(path, "--weights", tmp_path / "plain.pth")
    assert status == 2 and err == "fastcnn detect: plain.pth does not say which network it is of: name it\n"
    save_darknet_weights(models.create("yolov2_x0_25"), tmp_path / "own.weights")
    arguments = ("--model", "yolov2_x0_25", "--weights", tmp_path / "own.weights")
    status, out, err = detect(path, *arguments, "--threshold", "0.02")
    assert (status, err) == (0, "") and f"{path}: " in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.png"], "no image file 'missing.png'"),
        (["text.png"], "text.png is no image that Pillow reads"),
        (["cut.png"], "cut.png is no image that Pillow reads"),
        (["."], "no image file '.'"),
        (["scene.png", "--threshold", "2"], "expected a score from 0 to 1, got '2'"),
        (["scene.png", "--model", "resnet18"], "resnet18 is no detector"),
        (["scene.png", "--model", "ssdlit"], "no network is called 'ssdlit'"),
        (["scene.png", "--weights", "missing.safetensors"], "no weights file 'missing.safetensors'"),
        (["scene.png", "--device", "tpu"], "has no device 'tpu' here"),
        (["scene.png", "--out", "scene.png"], "--out would write over the image 'scene.png'"),
        (["scene.png", "--out", "out.xyz"], "--out must be a folder or an image file such as out.png, got 'out.xyz'"),
        (["scene.png", "--out", "text.png/out.png"], "text.png"),
        (["scene.png", "scene.png", "--out", "out.png"], "--out must be a folder for 2 images, got 'out.png'"),
        (["scene.png", "scene.png", "--out", "drawn"], "two images would be drawn into"),
        ([], "the following arguments are required: IMAGE"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(detect, scene, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.png").write_bytes(scene[0].read_bytes()[:2000])
    status, out, err = detect(*arguments)
    assert (status, out) == (2, "") and message in err and err.count("\n") == 1


def test_drawing_keeps_to_the_image_and_to_its_colours():
    image = torch.full((3, 60, 80), 128, dtype=torch.uint8)
    found = {
        "boxes": torch.tensor([[10.0, 30, 40, 50], [-5, -5, 200, 200]]),
        "labels": torch.tensor([1, 2]),
        "scores": torch.tensor([0.9, 0.6]),
    }
    drawn = draw_detections(image, found, ("__background__", "circle", "square"))
    assert torch.equal(drawn, draw_detections(image, found, ("__background__", "circle", "square")))
    assert drawn.shape == image.shape and (image == 128).all()
    for label, (y, x) in ((1, (49, 25)), (2, (59, 40))):
        assert tuple(drawn[:, y, x].tolist()) == label_colour(label)
    assert (drawn[:, 52:58, 50:70] == 128).all()
    masked = draw_detections(image, {**found, "masks": torch.ones(2, 1, 60, 80)})
    assert (masked != 128).any(0).all()
    assert len({label_colour(label) for label in range(91)}) == 91
    assert (label_name(1, ("a", "b")), label_name(2, ("a", "b"))) == ("b", "2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": torch.zeros(2, 4)}, r"boxes must be \(1, 4\) and scores \(1,\), got \(2, 4\)"),
        ({"scores": torch.zeros(3)}, r"got \(1, 4\), \(3,\)"),
        ({"masks": torch.zeros(1, 8, 9)}, r"masks must be \(1, 8, 8\), got \(1, 8, 9\)"),
    ],
)
def test_drawing_wants_parts_that_fit(changes, message):
    found = {"boxes": torch.tensor([[1.0, 1, 5, 5]]), "labels": torch.tensor([1]), "scores": torch.ones(1)}
    with pytest.raises(ValueError, match=message):
        draw_detections(torch.zeros(3, 8, 8, dtype=torch.uint8), {**found, **changes})
