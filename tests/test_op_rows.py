"""An op and its rivals, prepared: what is compared, on which inputs, and that what differs is not timed."""

import dataclasses

import pytest
import torch

from fastcnn.testing import pages, photo, tables
from fastcnn.testing.benches import Bench
from fastcnn.testing.environment import environment
from fastcnn.testing.op_rows import prepare_op
from fastcnn.testing.runner import run
from fastcnn.testing.spec import Case, OpSpec, in_format
from fastcnn.testing.specs import SPECS


def spec_with(function, reference):
    case = Case("layer", lambda dtype, device, g: (torch.randn(2, 3, 4, 5, generator=g).to(device, dtype),))
    return OpSpec("made_up", function, reference, (case,), (case,), lambda x: (None, (x,)), peer={"torch": reference})


@pytest.mark.parametrize("direction", ["forward", "forward+backward", "backward"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_wrong_result_is_not_timed(monkeypatch, direction, dtype):
    bench = Bench("op", "made_up", "layer", dtype, "channels_last", direction, "cpu")
    monkeypatch.setitem(SPECS, "made_up", spec_with(lambda x: x * 1.02, lambda x: x * 1.0))
    with pytest.raises(AssertionError, match="fastcnn: result"):
        prepare_op(bench, compile=False)
    entry = run(bench, photo.noise(), compile=False)
    assert entry["rows"] == {} and tables.verdict(entry) == "FAILED"
    monkeypatch.setitem(SPECS, "made_up", spec_with(lambda x: x + 0.0, lambda x: x * 1.0))
    assert set(prepare_op(bench, compile=False).calls) == {"fastcnn", "torch", "torch contiguous"}


@pytest.mark.parametrize("direction", ["forward", "forward+backward", "backward"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_compare_and_time_our_own_float32(monkeypatch, direction, dtype):
    bench = Bench("op", "made_up", "layer", dtype, "channels_last", direction, "cpu", "float32")
    dtypes = []
    monkeypatch.setitem(SPECS, "made_up", spec_with(lambda x: dtypes.append(x.dtype) or x * 1.1, lambda x: x * 1.0))
    entry = run(bench, photo.noise(), budget=0.01)
    assert set(entry["rows"]) == {"fastcnn", "fastcnn float32"} and entry["rival"] == "fastcnn float32"
    assert set(dtypes) == {getattr(torch, dtype), torch.float32}
    about = {"command": "fastcnn bench", "image": "noise", "left_out": [], "environment": environment()}
    assert "fastcnn float32" in pages.page({"x.json": {**about, "results": [entry]}})
    monkeypatch.setitem(SPECS, "made_up", spec_with(lambda x: x * (1 + 0.02 * (x.itemsize < 4)), lambda x: x))
    assert tables.verdict(run(bench, photo.noise())) == "FAILED"


def test_every_map_is_moved_to_the_other_layout():
    for spec in SPECS.values():
        arguments = spec.cases[0].make(torch.float32, "cpu", torch.Generator().manual_seed(0))
        moved = in_format(spec, arguments, torch.channels_last)
        maps = [a for a in moved[: spec.maps] if a.dim() == 4]
        assert all(a.is_contiguous(memory_format=torch.channels_last) for a in maps)
        assert all(a is b for a, b in zip(moved[spec.maps :], arguments[spec.maps :], strict=True))
        assert not maps or len(maps) == spec.maps
    assert SPECS["multi_scale_roi_align"].maps == 4


@pytest.mark.parametrize("direction", ["forward+backward", "backward"])
def test_a_wrong_gradient_is_not_timed(monkeypatch, direction):
    monkeypatch.setitem(SPECS, "made_up", spec_with(lambda x: x + 0.02 * (x - x.detach()), lambda x: x * 1.0))
    with pytest.raises(AssertionError, match="fastcnn: gradient"):
        prepare_op(Bench("op", "made_up", "layer", "float32", "contiguous", direction, "cpu"), compile=False)


@pytest.mark.parametrize("direction, gradients, bytes", [("backward", 2, 5), ("second", 1, 3)])
def test_a_backward_pass_is_timed_alone(monkeypatch, direction, gradients, bytes):
    """After one forward pass; its bytes are those of what it is given, keeps of the arguments, and gives."""
    calls = []

    def multiply(x, y):
        calls.append(1)
        return x * y

    def make(dtype, device, g):
        return tuple(torch.randn(2, 3, generator=g).to(device, dtype) for _ in range(2))

    spec = dataclasses.replace(spec_with(multiply, torch.mul), layers=(Case("layer", make),), gradients=(0, 1))
    monkeypatch.setitem(SPECS, "made_up", dataclasses.replace(spec, alone={"second": (1,)}))
    prepared = prepare_op(Bench("op", "made_up", "layer", "float32", "", direction, "cpu"), compile=False)
    assert set(prepared.calls) == {"fastcnn", "torch"}
    assert prepared.notes["bytes"] == bytes * 6 * 4
    before = len(calls)
    with prepared.context():
        assert [len(prepared.calls["fastcnn"]()) for _ in range(3)] == [1 + gradients] * 3
    assert len(calls) == before


def test_a_rival_without_the_dtype_runs_in_float32(monkeypatch):
    def float_only(x):
        if x.dtype != torch.float32:
            raise NotImplementedError("not for Half")
        return x * 1.0

    monkeypatch.setitem(SPECS, "made_up", spec_with(lambda x: x * 1.0, float_only))
    calls = prepare_op(Bench("op", "made_up", "layer", "float16", "contiguous", "forward", "cpu"), compile=False).calls
    assert set(calls) == {"fastcnn", "torch via float32", "torch channels_last via float32"}
    assert calls["torch via float32"]()[0].dtype == torch.float16
