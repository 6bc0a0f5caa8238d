"""Networks against their rivals: rows that agree, runtimes that may be missing, tables by rival."""

import sys

import pytest
import torch
from torch import nn

from fastcnn.cli import main
from fastcnn.models import list_models
from fastcnn.nn import DepthwiseConv2d, Hardswish, RoIAlign
from fastcnn.testing import network_rows, pages, photo, runtimes
from fastcnn.testing.benches import SELECTIONS, Bench
from fastcnn.testing.detector_rows import assert_same_detections
from fastcnn.testing.environment import environment
from fastcnn.testing.network_rows import plain_torch, prepare_network, without_dropout
from fastcnn.testing.network_tables import EITHER, rival_means, rival_rows
from fastcnn.testing.runner import prepare, summarise
from fastcnn.testing.runtimes import RUNTIMES, load_runtimes


@pytest.mark.parametrize("direction, batch", [("forward", 1), ("forward+backward", 2)])
def test_network_rows_agree(direction, batch):
    bench = Bench("network", "mobilenet_v3_large", f"batch {batch}", "float32", "", direction, "cpu")
    prepared = prepare_network(bench, photo.noise(), compile=False, runtimes=False)
    assert set(prepared.calls) == {"fastcnn", "eager", "eager channels_last"}
    assert prepared.notes["weights"] == "untrained (seed 0)"
    if direction == "forward":
        assert prepared.notes["top5"]["fastcnn"] == prepared.notes["top5"]["PyTorch"]


def test_plain_torch_has_no_layer_of_ours():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), Hardswish(), nn.Dropout(0.5))
    twin = plain_torch(without_dropout(model))
    assert [type(m) for m in twin] == [nn.Conv2d, nn.Hardswish, nn.Dropout] and twin[2].p == 0
    assert type(model[1]) is Hardswish
    with pytest.raises(TypeError, match="RoIAlign has no twin"):
        plain_torch(nn.Sequential(RoIAlign(7, 1.0, 2)))
    with pytest.raises(TypeError, match="0: DepthwiseConv2d has no twin"):
        plain_torch(nn.Sequential(DepthwiseConv2d(2, 2, 3, activation="relu")))


def test_detector_rows_agree():
    bench = Bench("detector", "ssdlite320_mobilenet_v3_large", "batch 8, 320 px", "float32", "", "forward", "cpu")
    prepared = prepare(bench, photo.noise())
    assert list(prepared.calls) == ["fastcnn", "one by one"] and prepared.notes["weights"] == "untrained (seed 0)"
    assert len(prepared.notes["detections"]) == 8 and all(5 < count <= 300 for count in prepared.notes["detections"])


def test_detections_that_differ_are_told_apart():
    images = [torch.zeros(3, 50, 100)]
    wanted = {"boxes": torch.tensor([[0.0, 0, 50, 25]]), "scores": torch.tensor([0.5]), "labels": torch.tensor([1])}
    assert_same_detections([wanted], [wanted], images, what="")
    none = {key: value[:0] for key, value in wanted.items()}
    moved = {"boxes": wanted["boxes"] + 0.2}, {"scores": torch.tensor([0.6])}, {"labels": torch.tensor([2])}, none
    for change in moved:
        with pytest.raises(AssertionError, match=r"ours: 0\.0% of the detections .* expected 98%"):
            assert_same_detections([wanted | change], [wanted], images, what="ours")


FORWARD = Bench("network", "mobilenet_v3_small", "batch 1", "float32", "", "forward", "cpu")
TRAINING = Bench("network", "mobilenet_v3_small", "batch 2", "float32", "", "forward+backward", "cpu")


@pytest.fixture(scope="module")
def tiny():
    """A network, an input, and the network in every runtime."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    model = nn.Sequential(*layers, nn.Linear(8, 5)).eval()
    x = torch.randn(2, 3, 9, 7)
    return model, x, load_runtimes(model, x)


@pytest.mark.parametrize("name", RUNTIMES)
def test_runtimes_give_what_pytorch_gives(tiny, name):
    model, x, (runs, missing) = tiny
    assert not missing.get(name)
    with torch.inference_mode():
        for _ in range(2):
            torch.testing.assert_close(runs[name](), model(x), rtol=1e-5, atol=1e-6)
            x.neg_()  # Runs read the input where it lies.


def test_runtimes_that_are_not_installed_are_said(monkeypatch):
    for name in RUNTIMES:
        monkeypatch.setitem(sys.modules, name, None)
    runs, missing = load_runtimes(nn.Identity(), torch.zeros(1))
    assert not runs and set(missing) == set(RUNTIMES)
    assert all(name in reason and "fastcnn[bench]" in reason for name, reason in missing.items())


@pytest.mark.parametrize("failing", [*RUNTIMES, "torch.onnx"])
def test_what_a_runtime_cannot_do_is_said(monkeypatch, failing):
    def fail(*args):
        raise RuntimeError("cannot do\nthis")

    for name in RUNTIMES:
        monkeypatch.setitem(sys.modules, name, sys)
        monkeypatch.setitem(RUNTIMES, name, fail if name == failing else lambda module, path, x: x.clone)
    monkeypatch.setattr(runtimes, "export_onnx", fail if failing == "torch.onnx" else lambda *args: None)
    runs, missing = load_runtimes(nn.Identity(), torch.zeros(1))
    if failing == "torch.onnx":
        assert not runs and missing == dict.fromkeys(RUNTIMES, "no ONNX: cannot do")
    else:
        assert missing == {failing: "cannot do"} and set(runs) == set(RUNTIMES) - {failing}


def test_a_runtime_is_a_rival_only_where_its_result_is_right(monkeypatch):
    def load(model, x):
        runs = {"onnxruntime": lambda: 1 / 0, "openvino": lambda: model(x) * factor}
        return runs, {"another": "is not here"}

    monkeypatch.setattr(network_rows, "load_runtimes", load)
    factor = 1
    prepared = prepare_network(FORWARD, photo.noise(), compile=False)
    assert set(prepared.calls) == {"fastcnn", "eager", "eager channels_last", "openvino"} and prepared.pause > 0
    assert prepared.missing == {"onnxruntime": "division by zero", "another": "is not here"}
    factor = 1.1
    with pytest.raises(AssertionError, match="openvino"):
        prepare_network(FORWARD, photo.noise(), compile=False)
    prepared = prepare_network(TRAINING, photo.noise(), compile=False)
    assert not prepared.missing and prepared.pause == 0


@pytest.mark.parametrize("bench, freezes", [(FORWARD, True), (TRAINING, False)])
def test_compile_freezes_for_inference(monkeypatch, bench, freezes):
    from torch._inductor import config

    seen = []

    def compile(net, **options):
        return lambda x: seen.append(config.freezing) or net(x)

    monkeypatch.setattr(torch, "compile", compile)
    assert "compile" in prepare_network(bench, photo.noise(), runtimes=False).calls
    assert seen == [freezes] and not config.freezing


def test_a_selection_is_networks_by_one_name(capsys):
    assert main(["bench", "--list", "--model", "efficient", "resnet18"]) == 0
    listed = [line.split(", ") for line in capsys.readouterr().out.splitlines()]
    assert {network for network, *_ in listed} == {*SELECTIONS["efficient"], "resnet18"} <= set(list_models())
    assert len(SELECTIONS["efficient"]) == 10 and not set(SELECTIONS) & set(list_models())
    assert {(batch, direction) for _, batch, _, direction in listed} == {
        ("batch 1", "forward"),
        ("batch 16", "forward"),
        ("batch 16", "forward+backward"),
    }


def test_batch_1_is_not_batch_16(capsys):
    assert main(["bench", "--list", "--model", "resnet18", "--layer", "batch 1"]) == 0
    assert capsys.readouterr().out == "resnet18, batch 1, float32, forward\n"


def result(subject, rows, batch=1, **more):
    entry = dict(kind="network", subject=subject, layer=f"batch {batch}", dtype="float32", layout="")
    entry.update(summarise({name: [seconds] * 5 for name, seconds in rows.items()}), missing={}, notes={})
    return {**entry, "direction": "forward", **more}


RESULTS = [
    result("b", {"fastcnn": 1e-3, "eager": 8e-3, "eager channels_last": 4e-3, "openvino": 5e-4}),
    result("a", {"fastcnn": 1e-3, "eager": 2e-3, "eager channels_last": 9e-3}),
    result("a", {"fastcnn": 1e-3, "eager": 3e-3, "eager channels_last": 3e-3}, batch=16),
    {**result("c", {}, batch=16), "failed": "differs"},
]


def test_networks_are_set_against_each_rival():
    head, *rows = rival_rows(RESULTS)
    assert head == ("network", "fastcnn", "eager", "eager channels_last", EITHER, "openvino")
    assert rows == [
        ("a, batch 1, forward, float32", "1.00 ms", "2.00x", "9.00x", "2.00x", ""),
        ("a, batch 16, forward, float32", "1.00 ms", "3.00x", "3.00x", "3.00x", ""),
        ("b, batch 1, forward, float32", "1.00 ms", "8.00x", "4.00x", "4.00x", "**0.50x**"),
        ("c, batch 16, forward, float32", "FAILED", "", "", "", ""),
    ]


def test_means_over_networks_are_by_rival_and_batch():
    _, *rows = rival_means(RESULTS)
    assert rows == [
        ("batch 1, forward, float32", "2", "4.00x", "6.00x", "2.83x", "**0.50x** of 1"),
        ("batch 16, forward, float32", "2", "3.00x of 1", "3.00x of 1", "3.00x of 1", ""),
    ]


def test_the_page_has_the_means_by_rival():
    report = {"command": "fastcnn bench", "image": "noise", "left_out": [], "environment": environment()}
    page = pages.page({"x.json": {**report, "results": RESULTS}})
    assert "| batch 1, forward, float32 | 2 | 4.00x | 6.00x | 2.83x | **0.50x** of 1 |" in page
    assert "all cases of" not in page
