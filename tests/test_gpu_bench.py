"""What benches do on a GPU beyond what they do on a CPU, with a CPU in its place: recording, copies, tables."""

import contextlib
import dataclasses
import types

import pytest
import torch

from fastcnn.testing import graphs, op_rows, pages, photo, roofline, runner, tables
from fastcnn.testing.bench_command import _in_turn
from fastcnn.testing.benches import Bench
from fastcnn.testing.environment import environment
from fastcnn.testing.spec import Case, OpSpec
from fastcnn.testing.specs import SPECS
from fastcnn.testing.timing import HostClock


@pytest.fixture
def as_on_gpu(monkeypatch):
    """Everything takes the way it takes on a GPU, on CPU tensors."""

    def capture(run):
        if run() is None:
            raise RuntimeError("called a synchronizing CUDA operation\nand more")
        return run(), run

    monkeypatch.setattr(graphs, "capture", capture)
    monkeypatch.setattr(graphs, "CudaClock", HostClock)
    monkeypatch.setattr(graphs, "LaunchClock", HostClock)
    monkeypatch.setattr(op_rows, "_on_gpu", lambda bench: True)
    monkeypatch.setattr(graphs, "own_stream", lambda: contextlib.nullcontext)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace(L2_cache_size=50_000_000)
    )


def test_calls_are_timed_apart(as_on_gpu):
    calls = {"ours": lambda: 1, "theirs": lambda: 2, "waits": lambda: None, "slow": lambda: 1 / 0}
    seconds = {"ours": 1e-6, "theirs": 1e-6, "waits": 1e-6, "slow": 0.3}
    graph, host, missing = graphs.measure_apart(calls, seconds, copies=2, budget=0.01)
    assert set(graph) == set(host) == {"ours", "theirs"} and min(map(len, (*graph.values(), *host.values()))) >= 5
    assert missing == {"waits": "called a synchronizing CUDA operation", "slow": "takes 0.3 s a call"}
    assert graphs.measure_apart({"waits": calls["waits"]}, seconds, 2, 0.01)[0] == {}


def test_a_recorded_call_goes_through_all_copies(as_on_gpu):
    turns = []
    graphs.measure_apart({"ours": lambda: turns.append(1) or 1}, {"ours": 1e-3}, copies=7, budget=1e-6)
    calls_to_launch = graphs.HOST_ROUNDS * graphs.HOST_CALLS
    assert (len(turns) - calls_to_launch) % 7 == 0 and len(turns) > calls_to_launch


@pytest.mark.parametrize(
    "name, layer, direction",
    [
        ("roi_align", 6, "forward"),
        ("roi_align", 6, "forward+backward"),
        pytest.param("roi_align", 6, "backward", marks=pytest.mark.slow),
        ("softmax_focal_loss", 5, "backward"),
        ("softmax_focal_loss", 5, "forward"),
        ("softmax_focal_loss", 5, "forward+backward"),
        ("batched_nms_padded", 1, "forward"),
    ],
)
def test_rows_on_a_gpu(as_on_gpu, name, layer, direction):
    bench = Bench("op", name, SPECS[name].layers[layer].name, "float32", "", direction, "cpu")
    prepared = op_rows.prepare_op(bench, compile=False)
    assert "fastcnn" in prepared.calls and prepared.copies > 1
    assert torch.backends.cudnn.allow_tf32 and not torch.is_inference_mode_enabled()
    with prepared.context():
        assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("direction, gradients", [("backward", 2), ("grad-weight", 1)])
def test_a_backward_pass_alone_goes_through_all_copies(as_on_gpu, direction, gradients):
    """Each after a forward pass of its own, which is over when timing begins."""
    layer = next(case.name for case in SPECS["depthwise_conv2d"].layers if "1x512x14x14 k3 s1" in case.name)
    bench = Bench("op", "depthwise_conv2d", layer, "float32", "contiguous", direction, "cpu")
    prepared = op_rows.prepare_op(bench, compile=False)
    passes = [prepared.calls["fastcnn"]() for _ in range(prepared.copies + 1)]
    assert {len(results) for results in passes} == {1 + gradients}
    results = [out.data_ptr() for out, *_ in passes]
    assert len(set(results[:-1])) == prepared.copies > 1 and results[-1] == results[0]
    assert torch.equal(passes[0][1], passes[-1][1])


def test_only_where_there_is_a_judge_may_a_rival_differ(monkeypatch):
    case = Case("layer", lambda dtype, device, g: (torch.randn(2, 3, 4, 5, generator=g).to(device, dtype),))
    ours, theirs = (lambda x: x.sign(), lambda x: x.sign() * 2)
    spec = OpSpec("made_up", ours, ours, (case,), (case,), lambda x: (None, (x,)), peer={"theirs": theirs}, exact=True)
    bench = Bench("op", "made_up", "layer", "float32", "", "forward", "cpu")
    monkeypatch.setitem(SPECS, "made_up", spec)
    with pytest.raises(AssertionError):
        op_rows.prepare_op(bench, compile=False)
    monkeypatch.setitem(SPECS, "made_up", dataclasses.replace(spec, judge=torch.sign))
    assert op_rows.prepare_op(bench, compile=False).notes["inexact"] == ["theirs"]
    made = {**result(), "notes": {"inexact": ["theirs"]}}
    assert "theirs gives another result" in tables.terminal([made])


def test_copies_fill_the_cache_twice_and_share_nothing(as_on_gpu):
    small = Case("small", lambda dtype, device, g: (torch.randn(2, 8, 4, 4, generator=g, dtype=dtype), 3))
    large = Case("large", lambda dtype, device, g: (torch.zeros(30_000_000, dtype=torch.uint8), 3))
    spec = OpSpec("made_up", None, None, (small,), (small, large), None)
    bench = Bench("op", "made_up", "", "float32", "channels_last", "forward+backward", "cpu")
    copies = op_rows._inputs(bench, spec, small)
    assert len(copies) == op_rows.MOST_COPIES and len({x.data_ptr() for x, _ in copies}) == len(copies)
    assert all(x.requires_grad and x.is_contiguous(memory_format=torch.channels_last) for x, _ in copies)
    forward = Bench("op", "made_up", "", "float32", "", "forward", "cpu")
    assert len(op_rows._inputs(forward, spec, large)) == 1 + 4


def result(as_graph=None):
    entry = dict(kind="op", subject="nms", layer="9 boxes", dtype="bfloat16", layout="", direction="forward")
    entry.update(runner.summarise({"fastcnn": [1e-4] * 5, "torch": [3e-4] * 5}), missing={}, notes={"bytes": 2 * 10**6})
    return {**entry, **(as_graph or {})}


def test_tables_of_a_gpu():
    apart = {
        "graph": {**runner.summarise({"fastcnn": [1e-5] * 5, "torch": [2e-5] * 5}), "missing": {}},
        "host": runner.summarise({"fastcnn": [4e-6] * 5}),
    }
    not_recorded = {"graph": {"missing": {"fastcnn": "waits"}}}
    measured = {"copy": {"4294967296": 4e11}, "flops": 1e12, "flops_bfloat16": 1e13}
    text = tables.terminal([result(apart), result(not_recorded), result()], roofline=measured)
    assert "10.0 us, 50% of the roofline, torch 2.00x" in text and "4.00 us" in text and "none: waits" in text
    report = {"command": "fastcnn bench", "image": "noise", "left_out": [], "environment": environment()}
    page = pages.page({"gpu.json": {**report, "results": [result(apart), result()], "roofline": measured}})
    rows = [line for line in page.splitlines() if line.startswith("| case") or line.startswith("| nms, 9")]
    assert len({line.count("|") for line in rows}) == 1 and "as a CUDA graph" in rows[0]


def test_a_gpu_that_was_not_measured_is_said():
    here = {**environment(), "gpu": None}
    report = {"command": "fastcnn bench", "image": "noise", "left_out": [], "environment": here, "results": []}
    assert "On a GPU: not yet measured" in pages.page({"x.json": report})
    there = {**here, "gpu": "NVIDIA H200", "driver": "1", "triton": "3.6"}
    assert "not yet measured" not in pages.page({"x.json": {**report, "environment": there}})


def test_the_floor_of_halves_is_that_of_matrix_units():
    measured = {"copy": {"1000": 1e9}, "flops": 1e9, "flops_bfloat16": 1e10}
    work = {"bytes": 1, "flops": 10**6}
    assert roofline.floor_seconds(measured, work) == 1e-3
    assert roofline.floor_seconds(measured, work, "float16") == 1e-4


def test_ops_take_turns():
    benches = [Bench("op", name, str(i), "float32", "", "forward", "cpu") for name in "ab" for i in range(3)]
    assert [b.subject + b.layer for b in _in_turn(benches)] == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_a_gpu_run_keeps_all_three_times(as_on_gpu, monkeypatch):
    monkeypatch.setattr(op_rows, "_on_gpu", lambda bench: False)
    bench = Bench("op", "hardswish", SPECS["hardswish"].layers[2].name, "float32", "contiguous", "forward", "cpu")
    prepared = runner.prepare(bench, photo.noise(), compile=False)
    with prepared.context():
        rows = {name: {"median": 1e-4} for name in prepared.calls}
        apart = runner._apart(prepared, rows, 0.01)
    assert set(apart["graph"]["rows"]) == set(apart["host"]["rows"]) == set(prepared.calls)
    assert apart["graph"]["rival"] and apart["graph"]["missing"] == {}
    slow = {name: {"median": 9.0} for name in prepared.calls}
    assert set(runner._apart(prepared, slow, 0.01)) == {"graph"}


@pytest.mark.parametrize("factor, raises", [(1.005, False), (1.5, True)])
def test_a_rival_may_round_after_every_step(monkeypatch, factor, raises):
    case = Case("layer", lambda dtype, device, g: (torch.randn(2, 3, 4, 5, generator=g).to(device, dtype),))
    spec = OpSpec("made_up", None, lambda x: x, (case,), (case,), lambda x: (None, (x,)))
    fine, rounded = (torch.ones(9, dtype=torch.float16) * f for f in (1, factor))
    for rival in (False, True):
        with pytest.raises(AssertionError) if raises or not rival else contextlib.nullcontext():
            op_rows._check(spec, "made_up", (rounded,), (fine,), rival=rival)
