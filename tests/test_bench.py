"""The harness of the benches: timing by a clock of our own, tables, selections, gpu-check. Nothing is timed here."""

import os
import platform
import re
import time
from pathlib import Path

import pytest
import torch

from fastcnn.cli import main
from fastcnn.testing import bench_command, pages, photo, reports, tables, timing
from fastcnn.testing.benches import USUAL, half_benches, list_benches, quick_benches
from fastcnn.testing.environment import environment
from fastcnn.testing.roofline import SIZES, floor_seconds, measure_roofline
from fastcnn.testing.runner import summarise
from fastcnn.testing.specs import SPECS
from fastcnn.testing.steps import Step, run_steps

ROOT = Path(__file__).parent.parent


class FakeClock:
    """Every call takes what it returns; what was timed is kept."""

    def __init__(self):
        self.timed = []

    def time(self, call, repeats):
        self.timed.append((call, repeats))
        return call() * repeats


def test_measure_interleaves_and_reaches_the_sample_length():
    clock = FakeClock()
    fast, slow = (lambda: 1e-3), (lambda: 0.02)
    samples = timing.measure({"fast": fast, "slow": slow}, clock=clock, budget=0.5)
    assert samples["fast"] == pytest.approx([1e-3] * 20) and samples["slow"] == pytest.approx([0.02] * 20)
    rounds = clock.timed[4:]  # After two warm-up calls of each.
    assert {call for call, _ in clock.timed[:4]} == {fast, slow} and all(n == 1 for _, n in clock.timed[:4])
    untimed, sampled = rounds[::2], rounds[1::2]
    assert untimed == [(call, 1) for call, _ in sampled]
    for first, second in zip(sampled[::2], sampled[1::2], strict=True):
        assert {first, second} == {(fast, 5), (slow, 1)}
    assert len({call for call, _ in sampled[::2]}) == 2, "the same one is always first"


@pytest.mark.parametrize("seconds, rounds", [(2.5, 3), (4.0, 2), (30.0, 1)])
def test_a_slow_rival_is_timed_a_few_times(seconds, rounds):
    clock = FakeClock()
    calls = {"fast": lambda: 1e-3, "slow": lambda: seconds}
    samples = timing.measure(calls, clock=clock, budget=0.5)
    assert samples["slow"] == [seconds] * rounds and len(samples["fast"]) == 100
    assert len([call for call, _ in clock.timed if call is calls["slow"]]) == 1 + rounds, "one call more to warm up"
    entry = summarise({"fastcnn": samples["fast"], "torch": samples["slow"]})
    assert entry["ratio"]["value"] == pytest.approx(seconds / 1e-3)


def test_a_disturbed_call_does_not_pass_for_slow():
    times = iter([0.01, 9.0])
    samples = timing.measure({"fast": lambda: 0.01, "ours": lambda: next(times, 0.01)}, clock=FakeClock(), budget=0.5)
    assert samples["ours"] == samples["fast"] == [0.01] * len(samples["fast"]) and len(samples["fast"]) > 5


def test_slow_calls_alike_are_timed_in_full():
    samples = timing.measure({"ours": lambda: 3.0, "theirs": lambda: 4.0}, clock=FakeClock(), budget=0.5)
    assert [len(values) for values in samples.values()] == [timing.MIN_ROUNDS] * 2


def test_every_sample_waits_for_threads_that_spin(monkeypatch):
    clock, waited = FakeClock(), []
    monkeypatch.setattr(timing.time, "sleep", lambda seconds: waited.append((seconds, len(clock.timed))))
    samples = timing.measure({"a": lambda: 0.1, "b": lambda: 0.1}, clock=clock, budget=1.0, pause=0.01)
    assert [seconds for seconds, _ in waited] == [0.01] * sum(map(len, samples.values()))
    assert [timed for _, timed in waited] == list(range(4, len(clock.timed), 2)), "not before the untimed call"


@pytest.mark.parametrize("seconds, rounds", [(100.0, timing.MIN_ROUNDS), (1e-6, timing.MAX_ROUNDS), (0.1, 10)])
def test_measure_keeps_its_limits(seconds, rounds):
    samples = timing.measure({"only": lambda: seconds}, clock=FakeClock(), budget=1.0 + 1e-6)
    assert len(samples["only"]) == rounds
    assert timing.plan(seconds, 1.0 + 1e-6).rounds == rounds


def test_host_clock_calls_as_often_as_it_says():
    calls = []
    assert timing.clock_for("cpu").time(lambda: calls.append(1), 7) >= 0
    assert len(calls) == 7


def test_ratio_of_medians():
    constant = timing.ratio_of_medians([3.0] * 9, [2.0] * 9)
    assert constant == timing.Ratio(1.5, 1.5, 1.5)
    slow = [2.0, 2.2, 1.8, 2.1, 1.9, 9.0, 2.0]
    ratio = timing.ratio_of_medians(slow, [1.0] * 7)
    assert ratio.value == 2.0 and 1.8 <= ratio.low < 2.0 <= ratio.high < 9.0, "one disturbed round must not count"
    assert ratio == timing.ratio_of_medians(slow, [1.0] * 7), "an interval must be reproducible"
    # Both disturbed at once: paired draws see that the ratio never changes.
    assert timing.ratio_of_medians([2.0, 20.0, 4.0], [1.0, 10.0, 2.0]).low == 2.0
    # Of other numbers of rounds: each by itself.
    ratio = timing.ratio_of_medians([20.0], [1.0, 2.0, 2.0, 2.0, 3.0])
    assert (ratio.value, ratio.high) == (10.0, 20.0)


@pytest.mark.parametrize("slow, fast", [([], []), ([], [1.0, 2.0]), ([1.0], [])])
def test_ratio_of_no_samples(slow, fast):
    with pytest.raises(ValueError, match=f"got {len(slow)} and {len(fast)}"):
        timing.ratio_of_medians(slow, fast)


def result(rows, **changes):
    entry = dict(kind="op", subject="nms", layer="9 boxes", dtype="float32", layout="", direction="forward")
    return {**entry, **summarise({k: [v] * 5 for k, v in rows.items()}), "missing": {}, "notes": {}, **changes}


@pytest.mark.parametrize(
    "rows, rival, verdict",
    [
        ({"fastcnn": 1e-3, "torch": 3e-3, "compile": 2e-3}, "compile", "win"),
        ({"fastcnn": 1e-3, "torch": 0.94e-3}, "torch", "LOSS"),
        ({"fastcnn": 1e-3, "torch": 0.96e-3}, "torch", "even"),
        ({"fastcnn": 1e-3, "reference": 5.0}, "reference", "reference"),
        ({"fastcnn": 1e-3, "reference": 1e-4, "torchvision": 2e-3}, "torchvision", "win"),
        ({"fastcnn": 1e-3}, None, "alone"),
    ],
)
def test_verdicts(rows, rival, verdict):
    entry = result(rows)
    assert entry["rival"] == rival and tables.verdict(entry) == verdict
    assert verdict in tables.terminal([entry]).splitlines()[-1]


def report(*results):
    settings = {"command": "fastcnn bench", "image": "noise", "left_out": []}
    return {**settings, "environment": environment(), "results": list(results)}


def test_losses_and_failures_stand_out():
    lost = result({"fastcnn": 2e-3, "torch": 1e-3})
    failed = result({"fastcnn": 1.0}, failed="nms: differs")
    text = tables.terminal([lost, failed], colour=True)
    assert "\033[31m" in text and "LOSS" in text and "nms: differs" in text
    page = pages.page({"x.json": report(lost, failed)})
    assert "**LOSS**" in page and "**FAILED**" in page and "0.50x [0.50, 0.50]" in page
    assert tables.count([lost, failed]) == "1 slower (under 0.95x), 1 whose results differ: not timed"


def test_means_are_geometric_and_of_real_rivals():
    double, half = ({"fastcnn": 1e-3, "torch": ratio * 1e-3} for ratio in (2.0, 0.5))
    rows = list(tables.means([result(double), result(half), result({"fastcnn": 1e-3, "reference": 5.0})]))
    assert rows[1:] == [("nms, float32, forward", "2", "1.00x", "0.50x", "1")]


def test_means_are_printed_where_they_say_more_than_the_cases():
    entry = result({"fastcnn": 1e-3, "torch": 2e-3})
    assert reports.summaries([entry]) == []
    assert reports.summaries([entry, entry])[0].splitlines()[1].split() == [
        "nms,",
        "float32,",
        "forward",
        "2",
        "2.00x",
        "2.00x",
    ]


def test_floors():
    roofline = {"copy": {"1000": 1e9, "1000000": 1e8}, "flops": 1e9}
    assert floor_seconds(roofline, {"bytes": 2000, "flops": 0}) == pytest.approx(2e-6)
    assert floor_seconds(roofline, {"bytes": 500_000, "flops": 0}) == pytest.approx(5e-3)
    assert floor_seconds(roofline, {"bytes": 2000, "flops": 10**6}) == pytest.approx(1e-3)
    assert floor_seconds(roofline, {}) is None
    entry = result({"fastcnn": 4e-6, "torch": 1e-5}, notes={"bytes": 2000})
    assert "2.0x of 2.00 us" in tables.terminal([entry], roofline=roofline)
    assert "2.0x of" not in tables.terminal([entry])


def test_the_roofline_is_measured():
    measured = measure_roofline(budget=0.0)
    assert len(measured["copy"]) == len(SIZES["cpu"]) and all(rate > 0 for rate in measured["copy"].values())
    assert measured["flops"] > 0


@pytest.mark.parametrize("seconds, text", [(2.5, "2.50 s"), (0.0123, "12.3 ms"), (4.5e-4, "450 us"), (5e-8, "0.05 us")])
def test_duration(seconds, text):
    assert tables.duration(seconds) == text


def test_missing_torchvision_is_said(capsys):
    entry = result({"fastcnn": 1e-3, "reference": 1.0})
    for version, said in ((None, True), ("0.26.0", False)):
        made = report(entry)
        made["environment"]["torchvision"] = version
        reports.print_report(made)
        assert ("torchvision does not import here" in capsys.readouterr().out) is said


def test_quick_is_three_ops_and_two_networks():
    benches = quick_benches()
    assert [b.subject for b in benches if b.kind == "op"] == ["hardswish", "nms", "roi_align"]
    assert [b.group for b in benches if b.kind == "network"] == [
        "mobilenet_v3_large, batch 1, float32, forward",
        "resnet50, batch 1, float32, forward",
    ]


def test_every_layer_is_benched():
    groups = [b.group for b in list_benches()]
    assert len(groups) == len(set(groups))
    for spec in SPECS.values():
        assert {case.name for case in spec.layers} == {b.layer for b in list_benches() if b.subject == spec.name}


def test_halves_are_every_op_against_itself_in_float32():
    benches = half_benches()
    assert {(b.subject, b.dtype, b.against) for b in benches} == {
        (name, dtype, "float32") for name in SPECS for dtype in ("bfloat16", "float16")
    }
    for spec in SPECS.values():
        directions = {b.direction for b in benches if b.subject == spec.name}
        assert directions == ({*USUAL, "backward", *spec.alone} if spec.gradients else {"forward"})
    groups = [b.group for b in benches]
    assert len(groups) == len(set(groups)) and not set(groups) & {b.group for b in list_benches()}


def test_backward_passes_alone_are_timed_where_asked_for(capsys):
    def directions(*options):
        assert main(["bench", "--list", "--op", "depthwise_conv2d", "--layer", "convnext", *options]) == 0
        return {line.rpartition(", ")[2] for line in capsys.readouterr().out.splitlines()}

    assert directions() == {"forward", "forward+backward"}
    assert directions("--direction", "backward", "grad-weight") == {"backward", "grad-weight"}


def test_photograph_is_the_one_that_is_named():
    pytest.importorskip("skimage")
    from skimage import data

    pixels = photo.photograph()
    assert pixels.dtype == torch.uint8 and pixels.shape == (3, 300, 451)
    assert torch.equal(pixels, torch.from_numpy(data.chelsea()).permute(2, 0, 1))


def test_environment_names_no_machine():
    text = repr(environment())
    assert torch.__version__ in text and str(torch.get_num_threads()) in text
    assert platform.node() not in text and str(Path.home()) not in text and str(ROOT) not in text


def test_docs_are_made_from_the_reports_they_name():
    page = (ROOT / "docs/benchmarks.md").read_text()
    names = re.search(r"`fastcnn bench --render ([^`]+)`", page)[1].split()
    assert set(names) == {f"bench/results/{path.name}" for path in (ROOT / "bench/results").glob("cpu*.json")}
    assert page == pages.page({name: reports.read_report(ROOT / name) for name in names})


def test_steps_go_on_after_failures_and_keep_their_time(tmp_path, capfd):
    steps = [
        Step("fails", ["-c", "raise SystemExit(3)"], 60),
        Step("hangs", ["-c", "import time; print('hanging', flush=True); time.sleep(600)"], 3),
        Step("works", ["-c", "import os; open('done', 'w').write(os.environ['WHAT'])"], 60, {"WHAT": "it"}),
    ]
    outcomes = run_steps(steps, tmp_path)
    assert [o["status"] for o in outcomes] == ["exit status 3", "out of time", "ok"]
    assert (tmp_path / "done").read_text() == "it"
    out = capfd.readouterr().out
    assert "hanging" in out and out.index("=== summary") > out.index("works")


@pytest.mark.skipif(os.name != "posix", reason="process groups are POSIX")
def test_a_step_takes_its_children_along(tmp_path):
    child = f"import time; time.sleep(2); open({str(tmp_path / 'late')!r}, 'w')"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    run_steps([Step("leaves a child", ["-c", code], 1)], tmp_path)
    time.sleep(3)
    assert not (tmp_path / "late").exists()


def test_no_case_begins_after_its_time(capsys, monkeypatch):
    monkeypatch.setattr("fastcnn.testing.runner.run", lambda b, *a, **k: result({"fastcnn": 1e-3}, subject=b.subject))
    monkeypatch.setattr(bench_command, "measure_roofline", lambda device: None)
    monkeypatch.setattr(bench_command.time, "perf_counter", iter([0.0, 1.0, 11.0]).__next__)
    assert main(["bench", "--quick", "--op", "hardswish", "nms", "--plain", "--within", "10"]) == 0
    assert "1 cases were left out" in capsys.readouterr().out
