"""ONNX Runtime and OpenVINO: what people run a network with on a CPU where PyTorch is too slow."""

from __future__ import annotations

import contextlib
import importlib
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.testing.benches import one_line

Run = Callable[[], Tensor]
Load = Callable[[Any, Path, Tensor], Run]


def load_runtimes(model: nn.Module, x: Tensor) -> tuple[dict[str, Run], dict[str, str]]:
    """The network in every runtime that is installed, ready to run, and why the others are not.

    All read the same ONNX file, with norms as layers of their own, which they fold themselves. All compute in float32,
    on as many threads as PyTorch.

    Args:
        model: in eval mode, of layers that ``torch.onnx`` knows.
        x: float32 ``[N, C, H, W]`` on the CPU, contiguous. Runs read it where it lies.

    Returns:
        Runs by name, which give logits ``[N, classes]``, overwritten by the next; and reasons by name.
    """
    modules, runs, missing = {}, {}, {}
    for name in RUNTIMES:
        try:
            modules[name] = importlib.import_module(name)
        except ImportError as error:
            missing[name] = f"{one_line(error)}: pip install 'fastcnn[bench]'"
    if not modules:
        return {}, missing
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "network.onnx"
        try:
            export_onnx(model, x, path)
        except Exception as error:  # What torch.onnx cannot do shows as any of its errors, or as its own bugs.
            return {}, missing | dict.fromkeys(modules, f"no ONNX: {one_line(error)}")
        for name, module in modules.items():
            try:
                runs[name] = RUNTIMES[name](module, path, x)
            except Exception as error:  # Each has errors of its own.
                missing[name] = one_line(error)
    return runs, missing


def export_onnx(model: nn.Module, x: Tensor, path: Path) -> None:
    """Writes the network for inputs of the shape of `x`, quietly.

    Raises:
        ImportError: without onnx and onnxscript, of the extra ``bench``.
        torch.onnx.OnnxExporterError: a layer that ONNX has not.
    """
    for name in ("onnx", "onnxscript"):
        try:
            importlib.import_module(name)
        except ImportError:
            raise ImportError(f"ONNX files need {name}: pip install 'fastcnn[bench]'") from None
    with torch.no_grad(), _quiet("torch.onnx"):
        program = torch.onnx.export(model, (x,), dynamo=True, verbose=False)
        assert program is not None
        program.save(path)


@contextlib.contextmanager
def _quiet(logger: str) -> Iterator[None]:
    log = logging.getLogger(logger)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _onnxruntime(ort: Any, path: Path, x: Tensor) -> Run:
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    # Its threads would spin for long after a run, on the cores that the next rival is timed on.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x.numpy()}
    return lambda: torch.from_numpy(session.run(None, feed)[0])


def _openvino(ov: Any, path: Path, x: Tensor) -> Run:
    core = ov.Core()
    how = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",  # Else bfloat16, where the processor has it.
    }
    request = core.compile_model(core.read_model(path), "CPU", how).create_infer_request()
    feed = {0: x.numpy()}
    return lambda: torch.from_numpy(request.infer(feed, share_inputs=True, share_outputs=True)[0])


RUNTIMES: dict[str, Load] = {"onnxruntime": _onnxruntime, "openvino": _openvino}
