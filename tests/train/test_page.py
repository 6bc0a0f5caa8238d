"""Results of trainings as a page and a plot."""

import json
import re
from pathlib import Path

import pytest

from fastcnn.testing.environment import environment
from fastcnn.testing.training_page import page, plot_svg, read_result, render
from fastcnn.train import Recipe
from fastcnn.train.rows import SCENES

ROOT = Path(__file__).parents[2]
RESULT = {
    "task": "detection",
    "recipe": {"network": "some_net", "steps": 40, "batch_size": 4},
    "parameters": 1_234_567,
    "classes": ["circle", "square"],
    "processes": 1,
    "seconds": 90.0,
    "history": [{"step": 20, "seconds": 40.0, "loss": 2.0}, {"step": 40, "seconds": 80.0, "loss": 1.0}],
    "checks": [{"seconds": 90.0, "mAP": 0.75}],
    "metrics": {"mAP": 0.75, "bbox": {"AP": 0.5}},
    "environment": environment() | {"cpu": "some CPU"},
    "command": "fastcnn train one steps=40",
}


def test_the_page_has_each_result():
    masks = {**RESULT, "metrics": {"mAP": 0.25, "bbox": {"AP": 0.125}, "segm": {"AP": 0.0625}}}
    text = page("docs/plot.svg", {"a.json": RESULT, "b.json": {**masks, "command": "fastcnn train two"}})
    assert "| one | `some_net` | 1.23 M | 40 | 4 | 1.5 | 0.750 | 0.500 |  |" in text
    assert "| two | `some_net` | 1.23 M | 40 | 4 | 1.5 | 0.250 | 0.125 | 0.062 |" in text
    assert "    fastcnn train one steps=40\n    fastcnn train two\n" in text and "(plot.svg)" in text
    assert text.count("some CPU") == 1


def test_each_kind_has_a_table_of_its_own():
    classifier = {
        **RESULT,
        "task": "classification",
        "metrics": {"top1_error": 0.0625, "top5_error": 0.0},
        "command": "fastcnn train three --amp bfloat16",
    }
    upscaler = {**RESULT, "task": "super_resolution", "metrics": {"gain": 1.5, "psnr": 31.5, "bicubic_psnr": 30.0}}
    upscaler |= {"classes": [], "command": "fastcnn train four"}
    text = page("docs/plot.svg", {"d.json": upscaler, "a.json": RESULT, "c.json": classifier})
    titles = re.findall("^## (.*)", text, re.M)
    assert titles[:3] == ["Detectors", "Classifiers", "Super-resolution"]
    assert "| three | `some_net` | 1.23 M | 40 | 4 | 1.5 | 0.062 | 0.000 |" in text
    assert "| four | `some_net` | 1.23 M | 40 | 4 | 1.5 | 31.50 | 30.00 | 1.50 |" in text
    pytest.importorskip("matplotlib")
    for result in (classifier, upscaler):
        result["checks"] = [{"seconds": 90.0, **result["metrics"]}]
    drawn = plot_svg([upscaler, RESULT, classifier])
    assert all(f">{label}, held-out<" in drawn for label in ("mAP@0.5", "top-1 error", "gain over bicubic, dB"))


def test_the_plot_is_the_same_text_for_the_same_results(tmp_path):
    pytest.importorskip("matplotlib")
    first = plot_svg([RESULT])
    assert first == plot_svg([RESULT]) and "<svg" in first and ">one<" in first
    file = tmp_path / "a.json"
    file.write_text(json.dumps(RESULT))
    assert render(str(tmp_path / "p.svg"), [str(file)]).startswith("# Training")
    assert (tmp_path / "p.svg").read_text() == first


def test_other_files_are_refused(tmp_path):
    file = tmp_path / "a.json"
    for text in ("", "[]", '{"recipe": {}}', json.dumps(RESULT | {"task": "poetry"})):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"a.json is no result of fastcnn train"):
            read_result(str(file))
    with pytest.raises(ValueError, match=r"--render takes an .svg file and results to make it of, got p.png"):
        render("p.png", [])


def test_the_page_in_docs_is_that_of_its_results():
    text = (ROOT / "docs" / "training.md").read_text()
    plot, *names = re.search(r"`fastcnn train --render (.*)`", text)[1].split()
    results = {name: read_result(str(ROOT / name)) for name in names}
    assert page(plot, results) == text
    learnt = {result["command"].split()[2] for result in results.values()}
    assert learnt == set(SCENES)
    # Figures that a network must reach at least.
    wanted = {"mAP": 0.8, "top1_error": -0.02, "mean_iu": 0.85, "gain": 1.0}
    for name, result in results.items():
        figures = {key: value for key, value in result["metrics"].items() if key in wanted}
        ((key, value),) = figures.items()
        recipe = result["command"].split()[2]
        assert (-value if wanted[key] < 0 else value) >= wanted[key] and result["seconds"] <= 20 * 60, name
        # Settings that came later have their defaults.
        assert Recipe(**result["recipe"]) == SCENES[recipe], f"{name} is of another recipe"
