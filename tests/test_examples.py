"""What the examples print is what they promise."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastcnn import compress, models

EXAMPLES = Path(__file__).parents[1] / "examples"
LENET, COMPRESS = EXAMPLES / "lenet_digits.py", EXAMPLES / "compress_squeezenet.py"
COMPRESS_LENET = EXAMPLES / "compress_lenet.py"


@pytest.mark.slow
def test_lenet_reads_handwritten_digits():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    out = subprocess.run([sys.executable, str(LENET)], check=True, capture_output=True, text=True).stdout
    assert "61,706 parameters; 1437 images, 360 held out" in out
    assert float(re.search(r"^test accuracy: ([\d.]+)%$", out, re.MULTILINE)[1]) >= 98
    assert len(re.findall(r"^epoch +\d+: loss", out, re.MULTILINE)) == 30


def test_held_out_digits_stay_out():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    load = runpy.run_path(str(LENET))["load"]
    train, train_labels, test, test_labels = load(models.create("lenet5"))
    assert train.shape == (1437, 1, 32, 32) and test.shape == (360, 1, 32, 32)
    assert set(map(bytes, train.numpy())).isdisjoint(map(bytes, test.numpy()))
    assert test_labels.bincount().min() >= 34 and train_labels.bincount().min() >= 139
    again = load(models.create("lenet5"))
    assert torch.equal(again[2], test)


def test_shifts_move_images_whole():
    shifted = runpy.run_path(str(LENET))["shifted"]
    images = torch.zeros(50, 1, 8, 8).sub(0.1)
    images[:, 0, 3, 4] = torch.arange(1.0, 51)
    found = shifted(images, torch.Generator().manual_seed(0))
    assert found.shape == images.shape
    assert torch.equal(found.amax((1, 2, 3)), images.amax((1, 2, 3)))
    assert (found == images.amin()).sum() == 50 * 63
    places = {(int(at) // 8 - 3, int(at) % 8 - 4) for at in found.flatten(1).argmax(1)}
    assert len(places) > 12 and all(abs(down) <= 2 and abs(right) <= 2 for down, right in places)


def test_missing_scikit_learn_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(SystemExit, match=r"needs scikit-learn: pip install 'fastcnn\[examples\]'"):
        runpy.run_path(str(LENET))["main"](["--epochs", "1"])


def test_bad_epochs(capsys):
    with pytest.raises(SystemExit):
        runpy.run_path(str(LENET))["main"](["--epochs", "0"])
    assert "epochs must be at least 1, got 0" in capsys.readouterr().err


def test_squeezenet_is_compressed_to_the_papers_sizes(capsys, tmp_path):
    """At the densities of table 1, which leave 421,098 parameters: at most the 0.66 and 0.47 MB of table 2."""
    runpy.run_path(str(COMPRESS))["main"](["squeezenet", "--save", str(tmp_path)])
    out = capsys.readouterr().out
    assert "Random weights, never trained: the bytes say nothing of accuracy." in out
    for file, printed, most in (("squeezenet_8_bit", "8 bit", 660_000), ("squeezenet_6_bit", "6 bit", 470_000)):
        size = (tmp_path / f"{file}.fcnn").stat().st_size
        assert size <= most
        row = next(line for line in out.splitlines() if printed in line)
        assert f"33.5% {size / 1e6:8.3f} {240e6 / size:5.0f}x" in row and row.endswith(f"{most / 1e6}")
    state = compress.decompress(tmp_path / "squeezenet_6_bit.fcnn")
    kept = sum(int(t.count_nonzero()) if t.dim() > 1 else t.numel() for t in state.values())
    assert kept == pytest.approx(421_098, abs=10)


def test_densities_are_of_layers_that_are_there():
    """AlexNet's table: 11 % of 61 million. What it takes is left to runs by hand: ten seconds and 1.5 GB."""
    density = runpy.run_path(str(COMPRESS))["DENSITY"]["alexnet"]
    weights = {
        name.removesuffix(".weight"): p for name, p in models.create("alexnet", device="meta").named_parameters()
    }
    kept = sum(density[path] * weights[path].numel() for path in density)
    assert kept / sum(p.numel() for p in weights.values()) == pytest.approx(0.11, abs=0.005)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet"], "network must be one of squeezenet, alexnet, got 'resnet'"),
        (["--save", "gone"], "no folder 'gone'"),
    ],
)
def test_bad_arguments_to_compress(arguments, message, capsys):
    with pytest.raises(SystemExit):
        runpy.run_path(str(COMPRESS))["main"](arguments)
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_compressed_lenet_reads_handwritten_digits():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    out = subprocess.run([sys.executable, str(COMPRESS_LENET)], check=True, capture_output=True, text=True).stdout
    assert float(re.search(r"^test accuracy of the file: ([\d.]+)%$", out, re.MULTILINE)[1]) >= 98
    assert float(re.search(r"of 246,824: ([\d.]+) times less", out)[1]) >= 20


def test_lenet_of_a_file_is_the_one_that_trained(monkeypatch, capsys):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    monkeypatch.syspath_prepend(EXAMPLES)
    _, found, size = runpy.run_path(str(COMPRESS_LENET))["main"](["--epochs", "2"])
    out = capsys.readouterr().out
    assert re.search(r"^shared: .* retrained ([\d.]+)%$", out, re.MULTILINE)[1] == f"{100 * found:.2f}"
    assert f"\n{size:,} bytes of 246,824: " in out and size < 246_824 / 20
