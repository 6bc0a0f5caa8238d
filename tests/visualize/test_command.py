"""``fastcnn visualize`` on files: pictures of the right size and content, or one line and exit status 2."""

import pytest
import torch

from fastcnn import models
from fastcnn.cli import main
from fastcnn.data import read_image, write_image
from fastcnn.visualize import first_layer_kernels

pytest.importorskip("PIL.Image")
pytest.importorskip("safetensors")


@pytest.fixture
def files(tmp_path):
    """Weights of a small vgg11 whose channel 7 of conv1_1 answers to red, and four images, the third the reddest."""
    net = models.create("vgg11", 3, hidden=4, preprocess=models.Preprocess(32, crop_pct=1.0))
    with torch.no_grad():
        net.features[0].weight[7] = 0
        net.features[0].weight[7, 0, 1, 1] = 1
        net.features[0].bias[7] = 0
    weights = tmp_path / "small.safetensors"
    models.save_weights(net, weights, network="vgg11", classes=("cat", "dog", "cow"))
    images = [tmp_path / f"{index}.png" for index in range(4)]
    for path, red in zip(images, (140, 160, 250, 200), strict=True):
        picture = torch.zeros(3, 40, 48, dtype=torch.uint8)
        picture[0, 12:24, 20:30] = red
        write_image(path, picture)
    return weights, images


def run(capsys, *arguments):
    try:
        status = main([str(argument) for argument in ("visualize", *arguments)])
    except SystemExit as stop:
        status = stop.code
    return status, *capsys.readouterr()


def test_grad_cam(files, tmp_path, capsys):
    weights, images = files
    arguments = ("--weights", weights, "--out", tmp_path / "out", "--layer", "conv4_1", "--target", 1)
    status, out, err = run(capsys, "grad-cam", *images[:2], *arguments)
    assert (status, err) == (0, "") and [line.split(": ")[1].split(",")[0] for line in out.splitlines()] == ["dog"] * 2
    for name in ("0.png", "1.png"):
        assert read_image(tmp_path / "out" / name).shape == (3, 34, 67)


def test_kernels(files, tmp_path, capsys):
    weights, _ = files
    out = tmp_path / "kernels.png"
    assert run(capsys, "kernels", "--weights", weights, "--out", out) == (0, "", "")
    assert torch.equal(read_image(out), first_layer_kernels(models.create_from(weights)))


def test_responses(files, tmp_path, capsys):
    weights, images = files
    out = tmp_path / "best.png"
    arguments = ("--weights", weights, "--out", out, "--layer", "conv1_1", "--channel", 7, "--count", 2)
    status, text, err = run(capsys, "responses", *images, *arguments)
    assert (status, err) == (0, "")
    assert [line.split(": ")[0] for line in text.splitlines()] == [str(images[2]), str(images[3])]
    picture = read_image(out)
    assert picture.shape == (3, 98, 195)  # Two patches of 3 x 3, 32 times as large.
    assert picture[0, 40, 40] > 230 and 180 < picture[0, 40, 140] < 220


def test_deconvnet(files, tmp_path, capsys):
    weights, images = files
    out = tmp_path / "what.png"
    arguments = ("--weights", weights, "--out", out, "--layer", "conv1_1", "--channel", 7)
    assert run(capsys, "deconvnet", images[2], *arguments) == (0, f"{images[2]}: channel 7 of conv1_1\n", "")
    found = read_image(out)[:, 1:33, 34:66]
    assert (found[0] == 255).sum() == 1 and (found[1:] == 128).all()  # One pixel, and only of red.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("kernels", "IMAGE", "--weights", "WEIGHTS"), "kernels takes no image"),
        (("grad-cam", "--weights", "WEIGHTS"), "grad-cam takes one or more images"),
        (("deconvnet", "IMAGE", "--weights", "WEIGHTS"), "deconvnet needs --channel"),
        (("grad-cam", "IMAGE"), "name a network by --model"),
        (("grad-cam", "IMAGE", "--model", "vgg1"), "did you mean"),
        (("grad-cam", "IMAGE", "--model", "ssdlite160_mobilenet_v2_x0_35"), "detector"),
        (("grad-cam", "IMAGE", "--weights", "WEIGHTS", "--layer", "conv41"), "did you mean"),
        (("grad-cam", "IMAGE", "--weights", "WEIGHTS", "--target", "3"), "labels from 0 to 2, got 3"),
        (("grad-cam", "gone.png", "--weights", "WEIGHTS"), "no image file"),
        (("grads", "IMAGE"), "invalid choice"),
    ],
)
def test_bad_usage(files, tmp_path, capsys, arguments, message):
    weights, images = files
    given = [{"IMAGE": images[0], "WEIGHTS": weights}.get(each, each) for each in arguments]
    status, out, err = run(capsys, *given, "--out", tmp_path / "out.png")
    assert (status, out) == (2, "") and err.count("\n") == 1 and message in err
    assert not (tmp_path / "out.png").exists()


def test_images_are_not_written_over(files, capsys):
    weights, images = files
    arguments = ("--weights", weights, "--channel", 0, "--out", images[1])
    status, _, err = run(capsys, "responses", *images, *arguments)
    assert status == 2 and "write over the image" in err
