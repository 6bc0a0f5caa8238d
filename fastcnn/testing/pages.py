"""Benchmark reports as docs/benchmarks.md, and what is said about a report beside its tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastcnn.testing.network_tables import EITHER, rival_means, rival_rows
from fastcnn.testing.runtimes import RUNTIMES
from fastcnn.testing.tables import LOSS, cells, count, filled, head, markdown, means
from fastcnn.testing.timing import SLOW_ROUNDS, SLOW_SECONDS, SLOW_TIMES

PAGE = """\
# Benchmarks

Every line compares fastcnn with the fastest way to do the same in PyTorch or torchvision that ran there, in one
process, rounds interleaved, each sample after a call untimed, results compared before. The ratio is of median times:
above 1 fastcnn is faster; the interval is a bootstrap over rounds. **LOSS** marks a ratio under {loss} whose interval
stays below 1; "even" is what is neither that nor above 1 with its interval. A rival called "reference" is fastcnn's
own plain-PyTorch reference: it shows that there was nothing to compare with, not a win. "via float32" is a rival that
does not take the dtype, between two casts. Against "fastcnn float32" the op is its own rival, on the same values in
float32. What takes over {slow:g} s a call and {times:g} times as long as the fastest is timed at most {rounds} times.

"Of its floor" is how many times the least possible time a call takes: the bytes it must move, each tensor once a pass,
at the speed of a copy of as many bytes, or its operations at the speed of a float32 matrix product, both measured in
the same run.

{gpu}

Networks, each on images of its own input size: fastcnn runs channels_last, for inference with norms folded
(`model.fuse()`); the rivals are the same network of `torch.nn` layers in the same mode. "compile" is `torch.compile` of
it in channels_last, for inference on a CPU with freezing, which folds norms and packs weights; "onnxruntime" and
"openvino" run one ONNX file of it on as many threads, in float32. A report of networks begins with how many times as
long as fastcnn each rival takes; in **bold**, under {loss}, where fastcnn is slower. "{either}" is `torch.nn` in
whichever layout is the better for the network.

Detectors run from the pixels of a photograph to boxes in it, preprocessing and suppression included, on weights that
are untrained but made to find as much as trained ones do. "unfused" is fastcnn's network in channels_last as it is
created; "eager" and "eager channels_last" are the same of `torch.nn` layers, with fastcnn's ops for RoIs and
suppression, as PyTorch has none; "reference" is the unfused network in NCHW within `fastcnn.reference_mode()`, where
those run as plain PyTorch too. Of eight images at a time fastcnn takes all at once, and "one by one" is the same
network called for each. Classes, boxes, scores and masks are compared before.

This page is the output of `fastcnn bench --render {files}`.

{sections}
"""


NOT_MEASURED = """\
**On a GPU: not yet measured.** The kernels have not run on one; `make gpu-check` on a machine that has one makes the
reports this page would show."""
MEASURED = """\
On a GPU every call finds its input in memory, not in a cache: calls go through copies of it. "As a CUDA graph" is the
time per call of a recorded graph, what share of the least possible time's speed that is, and the fastest rival's time
over ours; "to launch" is how long the host takes for a call, the GPU's work not waited for. cuDNN chooses the fastest
of its algorithms (`cudnn.benchmark`) and computes float32 as such in ops, in networks as TF32."""


def top5(report: Mapping[str, Any]) -> Iterator[str]:
    """Per network and batch, in a line, what it sees on the image and whether plain PyTorch sees the same."""
    for result in report["results"]:
        seen = result["notes"].get("top5")
        if seen:
            ours, theirs = seen["fastcnn"], seen["PyTorch"]
            same = "the same as PyTorch's" if ours == theirs else f"PyTorch's are {theirs}"
            weights = result["notes"]["weights"]
            subject = f"{result['subject']}, {result['layer']}, weights {weights}"
            yield f"{subject}: top-5 classes of {report['image']} are {ours}, {same}"


def about(environment: Mapping[str, Any]) -> str:
    """What was measured on, in one line."""
    torchvision = environment["torchvision"]
    parts = [
        f"fastcnn {environment['fastcnn']}" + (f" ({environment['commit']})" if environment["commit"] else ""),
        f"torch {environment['torch']}",
        f"torchvision {torchvision}" if torchvision else "no torchvision",
        *(f"{name} {environment[name]}" for name in RUNTIMES if environment.get(name)),
        f"Python {environment['python']}",
        f"{environment['cpu'] or environment['system']}, {environment['threads']} threads",
        environment["kernels"]["cpu"] or "no compiled CPU kernels",
    ]
    if environment["gpu"]:
        triton = f"triton {environment['triton']}" if environment["triton"] else "no triton"
        cuda = environment["kernels"]["cuda"] or "no CUDA kernels"
        parts.append(f"{environment['gpu']}, driver {environment['driver']}, {triton}, {cuda}")
    return " · ".join(parts)


def page(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """docs/benchmarks.md, from reports by file name as it is to be typed."""
    sections = []
    for name, report in reports.items():
        results = report["results"]
        every = filled([head(results), *(cells(result, roofline=report.get("roofline")) for result in results)])
        lines = [f"## `{name}`", "", about(report["environment"]), ""]
        left_out = f" {len(report['left_out'])} cases were left out, for want of time." if report["left_out"] else ""
        lines += [f"Made by `{report['command']}` on {report['image']}: {count(results)}.{left_out}", ""]
        networks = [result for result in results if result["kind"] != "op"]
        if networks:
            lines += [*markdown(rival_means(networks)), "", *markdown(rival_rows(networks)), ""]
        if len(networks) < len(results):
            lines += [*markdown(means(result for result in results if result["kind"] == "op")), ""]
        lines += markdown(every)
        sections.append("\n".join(lines))
    slow = {"slow": SLOW_SECONDS, "times": SLOW_TIMES, "rounds": SLOW_ROUNDS}
    gpu = MEASURED if any(report["environment"]["gpu"] for report in reports.values()) else NOT_MEASURED
    return PAGE.format(
        loss=LOSS, either=EITHER, gpu=gpu, **slow, files=" ".join(reports), sections="\n\n".join(sections)
    )
