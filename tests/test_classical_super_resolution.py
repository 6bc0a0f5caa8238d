"""The example of super-resolution without networks: what each method keeps, and that details help."""

import runpy
from pathlib import Path

import numpy as np
import pytest

for library in ("skimage", "sklearn"):
    pytest.importorskip(library)

EXAMPLE = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "classical_super_resolution.py"))


@pytest.fixture(scope="module")
def enlarged():
    image, others = EXAMPLE["load"](64, 2)
    low = EXAMPLE["resized"](image, 0.5)
    return image, low, EXAMPLE["methods"](low, others, 2, 2000)


def test_table(capsys):
    found = EXAMPLE["main"](["--side", "40", "--examples", "300", "--scale", "3"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "39x39 pixels, 3 times shorter and longer again"
    assert [line[:18].rstrip() for line in lines[3:]] == list(found)
    assert list(found)[:3] == ["bilinear", "bicubic", "spline"] and len(found) == 6
    for line, value in zip(lines[3:], found.values(), strict=True):
        assert float(line.split()[-2]) == round(value, 2) and 15 < value < 50


def test_every_method_has_the_size_and_examples_improve_on_bicubic(enlarged):
    image, _, results = enlarged
    inside = (slice(2, -2), slice(2, -2))
    errors = {name: np.square((result - image)[inside]).mean() for name, result in results.items()}
    assert {result.shape for result in results.values()} == {image.shape}
    assert errors["bicubic"] < errors["bilinear"]
    assert errors["external database"] < errors["bicubic"]
    assert errors["sparse coding"] < errors["bicubic"]


@pytest.mark.parametrize("scale", [2, 3])
def test_interpolation_is_exact_on_linear_ramps(scale):
    low = 0.01 * np.arange(20)[:, None] + 0.02 * np.arange(24)
    y, x = (np.arange(scale * side) + 0.5 for side in (20, 24))
    wanted = 0.01 * (y[:, None] / scale - 0.5) + 0.02 * (x / scale - 0.5)
    inside = (slice(8 * scale, -8 * scale),) * 2
    for found in (*(EXAMPLE["interpolated"](low, scale, order) for order in (1, 3)), EXAMPLE["resized"](low, scale)):
        np.testing.assert_allclose(found[inside], wanted[inside], atol=1e-5)


def test_no_detail_is_guessed_where_there_is_none(enlarged):
    flat = np.full((12, 12), 0.5)
    guess = EXAMPLE["nearest"](*EXAMPLE["examples"]([enlarged[0]], 2, 100))
    np.testing.assert_allclose(EXAMPLE["detailed"](flat, 2, guess), 0.5)


def test_known_patches_get_their_own_detail():
    random = np.random.RandomState(0)
    features, details = random.standard_normal((40, 100)), random.standard_normal((40, 25))
    np.testing.assert_allclose(EXAMPLE["nearest"](features, details, 3)(features), details, atol=1e-6)


def test_bad_options(capsys):
    with pytest.raises(SystemExit):
        EXAMPLE["main"](["--side", "8"])
    assert "side must be at least 32 and examples 1, got 8 and 10000" in capsys.readouterr().err
