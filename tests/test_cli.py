"""The ``fastcnn`` command, run as a person runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastcnn
from fastcnn.cli import main
from fastcnn.models import list_models
from fastcnn.ops import __all__ as OPS
from fastcnn.testing.detector_cases import CASES

ROOT = Path(__file__).parent.parent


def run(capsys, *arguments):
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = stop.code
    out, err = capsys.readouterr()
    return status, out, err


def test_version(capsys):
    assert run(capsys, "--version") == (0, f"fastcnn {fastcnn.__version__}\n", "")


def test_doctor_prints_the_report(capsys):
    assert run(capsys, "doctor") == (0, f"{fastcnn.report()}\n", "")


def test_models_lists_networks(capsys, monkeypatch):
    few = ["lenet5", "mobilenet_v2", "yolov2_tiny"]
    monkeypatch.setattr("fastcnn.models.list_models", lambda: few)
    status, out, _ = run(capsys, "models")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == few
    assert "3.5 M params" in out


@pytest.mark.slow
def test_models_lists_every_network(capsys):
    status, out, _ = run(capsys, "models")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == list_models()


def test_models_summarises(capsys):
    status, out, _ = run(capsys, "models", "resnet50")
    assert status == 0
    assert "25,557,032" in out and "layer4.2.conv3" in out


def test_list_names_every_op_and_classifier_and_some_detectors(capsys):
    status, out, _ = run(capsys, "bench", "--list")
    subjects = {line.split(",")[0] for line in out.splitlines()}
    assert (status, subjects) == (0, {*OPS, *list_models(task="classification"), *CASES})


def test_list_obeys_the_selection(capsys):
    _, out, _ = run(capsys, "bench", "--list", "--op", "hardswish", "--dtype", "float16", "--layout", "channels_last")
    assert out
    for line in out.splitlines():
        assert line.startswith("hardswish, ") and "float16, channels_last" in line


@pytest.mark.parametrize(
    "arguments, shown",
    [
        ((), "COMMAND"),
        (("nonsense",), "nonsense"),
        (("models", "resnet5"), "resnet50"),
        (("bench", "--op", "nonsense"), "nms"),
        (("bench", "--model", "nms"), "resnet50"),
        (("bench", "--layer", "no such layer", "--list"), "--list"),
        (("bench", "--dtype", "int8"), "int8"),
        (("bench", "--threads", "0"), "'0'"),
        (("bench", "--threads", "1.5"), "'1.5'"),
        (("bench", "--budget", "nan"), "'nan'"),
        (("bench", "--device", "nonsense"), "nonsense"),
        (("bench", "--weights", "resnet50"), "NAME=FILE"),
        (("bench", "--weights", "resnet5=x.pth", "--quick"), "resnet5"),
        (("bench", "--weights", "resnet50=missing.pth", "--quick"), "missing.pth"),
        (("bench", "--quick", "--image", "missing.png"), "missing.png"),
        (("bench", "--render", "missing.json"), "missing.json"),
    ],
)
def test_errors_are_one_line(capsys, arguments, shown):
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1 and shown in err


@pytest.mark.parametrize("text", ["", "[]", '{"results": []}'])
def test_render_refuses_other_files(capsys, tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    status, _, err = run(capsys, "bench", "--render", str(path))
    assert status == 2 and "other.json is no report" in err


def test_image_that_is_none(capsys, tmp_path):
    pytest.importorskip("PIL")
    path = tmp_path / "broken.png"
    path.write_bytes(b"not a picture")
    status, _, err = run(capsys, "bench", "--quick", "--image", str(path))
    assert status == 2 and "broken.png is no image" in err


def test_missing_extra_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    status, _, err = run(capsys, "bench", "--quick", "--op", "hardswish")
    assert status == 2 and "fastcnn[bench]" in err and "--plain" in err


def test_interrupt_exits_cleanly(capsys, monkeypatch, tmp_path):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("fastcnn.testing.runner.run", interrupt)
    path = tmp_path / "report.json"
    status, out, err = run(capsys, "bench", "--quick", "--op", "nms", "--plain", "--json", str(path))
    assert status == 130 and err.endswith("interrupted\n") and "Traceback" not in out + err
    assert not path.exists()


def test_bench_times_and_reports(tmp_path):
    """One small case through everything: compare, time, table, JSON."""
    path = tmp_path / "new folder" / "report.json"
    options = ["--op", "hardswish", "--layer", "1x672", "--direction", "forward", "--layout", "contiguous"]
    options += ["--budget", "0.01", "--no-compile", "--plain", "--json", str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "fastcnn", "bench", *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "1x672x14x14" in done.stdout and "torch" in done.stdout
    report = json.loads(path.read_text())
    (result,) = report["results"]
    assert set(result["rows"]) == {"fastcnn", "torch", "torch channels_last"} and result["rival"] in result["rows"]
    assert len(result["rows"]["fastcnn"]["samples"]) == len(result["rows"]["torch"]["samples"]) >= 5
    assert result["notes"]["bytes"] == 2 * 4 * 672 * 14 * 14
    assert str(tmp_path) not in path.read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ("unet", "size=32", "steps=2", "--amp", "bfloat16"),
        ("unet", "--amp", "bfloat16", "size=32", "steps=2"),
        ("--amp", "bfloat16", "unet", "size=32", "steps=2"),
        ("unet", "size=32", "--amp", "bfloat16", "steps=2"),
    ],
)
def test_settings_of_a_training_may_stand_anywhere(capsys, monkeypatch, arguments):
    seen = []
    monkeypatch.setattr("fastcnn.train.command.train", lambda options, environment: seen.append(options) or 0)
    assert run(capsys, "train", *arguments) == (0, "", "")
    assert (seen[0].recipe, seen[0].settings, seen[0].amp) == ("unet", ["size=32", "steps=2"], "bfloat16")


def test_what_no_command_takes_is_bad_usage(capsys):
    for arguments in (["train", "unet", "--colour"], ["doctor", "more"]):
        status, _, err = run(capsys, *arguments)
        assert status == 2 and f"unrecognized arguments: {arguments[-1]}" in err
