"""``fastcnn segment`` and ``fastcnn upscale``: the right pixels, or one line and exit status 2."""

import sys

import pytest
import torch
import torch.nn.functional as F

from fastcnn import models
from fastcnn.cli import main
from fastcnn.data import draw_segmentation, read_image
from fastcnn.data.draw import label_colour
from fastcnn.models import _registry
from fastcnn.segment_command import segment_image

Image = pytest.importorskip("PIL.Image")
NAMES = ("background", "lamp", "sun")


class Threshold(models.ConvNet):
    """Class 1 above half brightness, class 2 above 0.95, of the mean of the channels."""

    classifier_path = ""

    def __init__(self, row, *, device=None, dtype=None):
        super().__init__(row)
        self.levels = torch.nn.Parameter(torch.tensor([0.5, 0.95], device=device, dtype=dtype))

    def forward(self, input):
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.preprocess.mean, self.preprocess.std))
        grey = (input * std + mean).mean(1, keepdim=True)
        above = [100 * (grey - level) for level in self.levels]
        return torch.cat((torch.zeros_like(grey), above[0], above[0] + 20 * above[1]), 1)


class Doubler(models.ConvNet):
    """Nearest neighbours, times a gain."""

    classifier_path = ""

    def __init__(self, row, *, device=None, dtype=None):
        super().__init__(row)
        self.gain = torch.nn.Parameter(torch.tensor(0.5, device=device, dtype=dtype))

    def upscale(self, image):
        return (F.interpolate(image[None], scale_factor=self.row.scale)[0] * self.gain.detach()).clamp(0, 1)

    def enhance(self, image):
        return (image * self.gain.detach()).clamp(0, 1)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """Files of networks that segment by brightness, double and darken."""
    vdsr = models.find_entry("vdsr").row
    unet = models.find_entry("unet_x0_25").row
    dped = next(models.find_entry(name).row for name in models.list_models(task="enhancement"))
    folder = tmp_path / "weights"
    folder.mkdir()
    for name, row, build, options in (
        ("threshold", unet, Threshold, {"num_classes": 3}),
        ("doubler", vdsr, Doubler, {}),
        ("darker", dped, Doubler, {}),
    ):
        monkeypatch.setitem(_registry._ENTRIES, name, _registry.Entry(row, build))
        net = models.create(name, **options)
        classes = NAMES if options else None
        models.save_weights(net, folder / f"{name}.safetensors", network=name, classes=classes)
    return folder


def run(capsys, *arguments):
    try:
        status = main([*map(str, arguments)])
    except SystemExit as stop:
        status = stop.code
    out, err = capsys.readouterr()
    return status, out, err


def picture(path, size=(40, 20), mode="RGB"):
    """A quarter at 200, an eighth at 255, the rest black."""
    image = Image.new("L", size, 0)
    image.paste(200, (0, 0, size[0] // 4, size[1]))
    image.paste(255, (size[0] // 4, 0, size[0] // 2, size[1] // 2))
    image.convert(mode).save(path)
    return path


@pytest.mark.parametrize(("name", "mode"), [("a.png", "RGB"), ("b.png", "L"), ("c.png", "P"), ("d.tif", "CMYK")])
def test_shares_and_colours(name, mode, weights, tmp_path, capsys):
    path, out = picture(tmp_path / name, (400, 200), mode), tmp_path / "out.png"
    lines = f"{path}:\n  background  62.50 %\n  lamp  25.00 %\n  sun  12.50 %\n"
    found = run(capsys, "segment", path, "--weights", weights / "threshold.safetensors", "--out", out)
    assert found == (0, lines, "")
    drawn = read_image(out)
    # Right of the legend and below it.
    assert drawn.shape == (3, 200, 400) and not drawn[:, :, 200:].any()
    wanted = [round(200 + 0.45 * (value - 200)) for value in label_colour(1)]
    assert drawn[:, -1, 0].tolist() == wanted


def test_several_images(weights, tmp_path, capsys):
    paths = [picture(tmp_path / f"{index}.png", size=(40 + 8 * index, 20)) for index in range(3)]
    arguments = [*paths, "--weights", weights / "threshold.safetensors", "--out", tmp_path / "new" / "folder"]
    status, out, _ = run(capsys, "segment", *arguments)
    assert status == 0 and out.count("lamp  25.00 %") == 3
    for path in paths:
        assert read_image(tmp_path / "new" / "folder" / path.name).shape == read_image(path).shape


def test_legend():
    image = torch.zeros(3, 120, 200, dtype=torch.uint8)
    labels = torch.zeros(120, 200, dtype=torch.int64)
    labels[60:, :50], labels[60:, 50:60], labels[60:, 60:] = 1, 2, 255
    drawn = draw_segmentation(image, labels, NAMES)
    assert not drawn[:, 60:, 60:].any()
    assert drawn[:, 0, 0].tolist() == list(label_colour(1))  # The larger one first.
    second = (drawn[:, :60, 0] == torch.tensor(label_colour(2))[:, None]).all(0)
    assert second.any() and second.nonzero().min() > 10
    assert torch.equal(draw_segmentation(image, torch.zeros_like(labels)), image)
    with pytest.raises(ValueError, match=r"labels must be \(120, 200\), got \(60, 200\)"):
        draw_segmentation(image, labels[:60])


def test_a_legend_without_room():
    image = torch.zeros(3, 14, 40, dtype=torch.uint8)
    labels = torch.arange(40).expand(14, 40) // 10
    assert draw_segmentation(image, labels, ("", "one", "two", "three")).shape == image.shape
    assert draw_segmentation(image[:, :1, :1], labels[:1, 39:]).shape == (3, 1, 1)


def test_size_and_grey_and_unpadded_networks(tmp_path):
    image = read_image(picture(tmp_path / "a.png", size=(41, 23)))
    seen = []
    net = models.create("unet_same", width=2, depth=1).eval()
    net.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    assert segment_image(net, image).shape == segment_image(net, image, 46).shape == (23, 41)
    assert [tuple(x.shape) for x in seen] == [(1, 1, 23, 41), (1, 1, 46, 82)]
    grey = image[0].float() / 255
    torch.testing.assert_close(seen[0][0, 0], grey)
    unpadded = models.create("unet", width=2, depth=1).eval()
    with torch.no_grad():
        wanted = unpadded.predict(grey[None, None])[0].argmax(0)
    assert torch.equal(segment_image(unpadded, image), wanted)
    with pytest.raises(ValueError, match=r"a UNet3D of inputs \(N, 3, D, H, W\) takes no pictures"):
        segment_image(models.create("unet3d", width=1, depth=1), image)


def test_upscale(weights, tmp_path, capsys):
    path, out = picture(tmp_path / "a.png"), tmp_path / "out.png"
    lines = f"{path}: 40x20 to 80x40, {out}\n"
    assert run(capsys, "upscale", path, "--weights", weights / "doubler.safetensors", "--out", out) == (0, lines, "")
    wanted = (read_image(path).float() / 2).round().to(torch.uint8).repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.equal(read_image(out), wanted)
    arguments = [path, "--weights", weights / "doubler.safetensors", "--scale", 3, "--out", tmp_path / "folder"]
    assert run(capsys, "upscale", *arguments)[0] == 0
    assert read_image(tmp_path / "folder" / "a.png").shape == (3, 60, 120)
    assert run(capsys, "upscale", path, "--weights", weights / "darker.safetensors", "--out", out)[0] == 0
    assert torch.equal(read_image(out), (read_image(path).float() / 2).round().to(torch.uint8))


def test_upscale_by_a_network_of_the_package(tmp_path, capsys):
    """Luminance through VDSR, whose last convolution gives zeros here: the bicubic image."""
    net = models.create("vdsr_8", layers=2, channels=2)
    torch.nn.init.zeros_(net.last.weight)
    models.save_weights(net, tmp_path / "w.safetensors", network="vdsr_8")
    path = picture(tmp_path / "a.png")
    arguments = [path, "--model", "vdsr_8", "--weights", tmp_path / "w.safetensors", "--scale", 2]
    assert run(capsys, "upscale", *arguments, "--out", tmp_path / "o.png")[0] == 0
    found, image = read_image(tmp_path / "o.png").float(), read_image(path).float()[None]
    wanted = F.interpolate(image, scale_factor=2, mode="bicubic", align_corners=False, antialias=True)[0]
    assert (found - wanted.clamp(0, 255)).abs().max() <= 1


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ("segment ok.png", "needs --weights of a network, or --model NAME with published ones"),
        ("segment ok.png --model unet", "no published weights of unet"),
        ("segment ok.png --model resnet50", "resnet50 is no segmentation network"),
        ("segment ok.png --model unnet", "did you mean unet"),
        ("segment ok.png --weights weights/doubler.safetensors", "doubler.safetensors is of no segmentation network"),
        ("segment ok.png --weights missing.safetensors", "no weights file 'missing.safetensors'"),
        ("segment missing.png --weights weights/threshold.safetensors", "no image file 'missing.png'"),
        ("segment ok.png missing.png --weights weights/threshold.safetensors", "no image file 'missing.png'"),
        ("segment text.png --weights weights/threshold.safetensors", "text.png is no image that Pillow reads"),
        ("segment ok.png --weights weights/threshold.safetensors --out ok.png", "write over the image 'ok.png'"),
        (
            "segment ok.png text.png --weights weights/threshold.safetensors --out o.png",
            "must be a folder for 2 images",
        ),
        ("segment ok.png --weights weights/threshold.safetensors --out o.nonsense", "an image file such as out.png"),
        ("segment ok.png --weights weights/threshold.safetensors --device cuda:99", "no device 'cuda:99'"),
        ("segment ok.png --weights weights/threshold.safetensors --size 0", "--size must be at least 1, got 0"),
        ("segment ok.png --weights weights/threshold.safetensors --size many", "'many'"),
        ("segment", "IMAGE"),
        ("upscale ok.png", "--out"),
        ("upscale ok.png --out o.png", "needs --weights of a network, or --model NAME with published ones"),
        ("upscale ok.png --model vdsr --scale 2 --out o.png", "no published weights of vdsr"),
        ("upscale ok.png --model unet --out o.png", "unet is no network from images to images"),
        (
            "upscale ok.png --weights weights/threshold.safetensors --out o.png",
            "is of no network from images to images",
        ),
        (
            "upscale ok.png --weights weights/doubler.safetensors --scale 0 --out o.png",
            "scale must be an int of at least",
        ),
        ("upscale ok.png --weights weights/darker.safetensors --scale 2 --out o.png", "has no option 'scale'"),
        ("upscale ok.png --weights weights/doubler.safetensors --out ok.png", "write over the image 'ok.png'"),
    ],
)
def test_errors_are_one_line(arguments, shown, weights, tmp_path, capsys, monkeypatch):
    picture(tmp_path / "ok.png")
    (tmp_path / "text.png").write_bytes(b"not a picture")
    monkeypatch.chdir(tmp_path)
    status, _, err = run(capsys, *arguments.split())
    assert status == 2 and len(err.splitlines()) == 1 and shown in err
    assert not (tmp_path / "o.png").exists()


@pytest.mark.parametrize("command", ["segment", "upscale"])
def test_without_pillow(command, weights, tmp_path, capsys, monkeypatch):
    picture(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    arguments = [tmp_path / "a.png", "--weights", weights / "threshold.safetensors", "--out", tmp_path / "folder"]
    status, _, err = run(capsys, command, *arguments)
    assert status == 2 and "fastcnn[detection]" in err and len(err.splitlines()) == 1
