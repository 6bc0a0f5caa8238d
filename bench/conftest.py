"""What the benches share: their options, a prepared group at a time, and the environment in their JSON."""

from __future__ import annotations

import pytest
import torch

from fastcnn.testing import photo
from fastcnn.testing.benches import DTYPES, USUAL, list_benches, quick_benches
from fastcnn.testing.environment import environment
from fastcnn.testing.runner import prepare
from fastcnn.testing.runtimes import RUNTIMES
from fastcnn.testing.timing import SLOW_SECONDS, clock_for, plan, slow_rounds

ROWS = {
    "op": ("fastcnn", "torch", "torchvision", "reference", "compile"),
    "network": ("fastcnn", "eager", "eager channels_last", "compile", *RUNTIMES),
    "detector": ("fastcnn", "unfused", "eager", "eager channels_last", "reference", "one by one"),
}


def pytest_addoption(parser):
    group = parser.getgroup("fastcnn")
    group.addoption("--device", default="cpu", help="cpu (default) or cuda")
    group.addoption("--dtype", action="append", choices=DTYPES, help="may be repeated; default: float32")
    group.addoption("--quick", action="store_true", help="only the selection of fastcnn bench --quick")
    group.addoption("--no-compile", action="store_true", help="leave torch.compile out")
    group.addoption("--noise", action="store_true", help="seeded noise in place of scikit-image's photograph")


def pytest_configure(config):
    torch.backends.cudnn.benchmark = True  # What a person who wants speed sets, for all rows alike.


def pytest_generate_tests(metafunc):
    """A module benches one kind; its tests take `prepared`, the group, and `row`, one of those who compete in it."""
    kind, option = metafunc.module.KIND, metafunc.config.getoption
    dtypes = option("dtype") or ["float32"]
    benches = (quick_benches if option("quick") else list_benches)(option("device"))
    chosen = [bench for bench in benches if bench.kind == kind and bench.dtype in dtypes and bench.direction in USUAL]
    rows = [row for row in ROWS[kind] if not (row == "compile" and option("no_compile"))]
    metafunc.parametrize("prepared", chosen, indirect=True, ids=[bench.group for bench in chosen], scope="module")
    metafunc.parametrize("row", rows)


@pytest.fixture(scope="session")
def image(request):
    return photo.noise() if request.config.getoption("noise") else photo.photograph()


@pytest.fixture(scope="module")
def prepared(request, image):
    """A bench and its calls, which gave the same result."""
    bench = request.param
    return bench, prepare(bench, image, compile=not request.config.getoption("no_compile"))


@pytest.fixture
def time_row(benchmark):
    """Times one row of a group under pytest-benchmark, work on the device included."""

    def time(prepared, row):
        bench, calls = prepared[0], prepared[1].calls
        name = next((name for name in calls if name.split(" via ")[0] == row), None)
        if name is None:
            pytest.skip(prepared[1].missing.get(row, "no such rival here"))
        call = calls[name]
        on_gpu = torch.device(bench.device).type == "cuda"
        timed = (lambda: (call(), torch.cuda.synchronize())) if on_gpu else call
        with prepared[1].context():
            seconds = clock_for(bench.device).time(call, 1)
            rounds, repeats = plan(seconds, budget=1.0)
            if row != "fastcnn" and seconds > SLOW_SECONDS:
                rounds = slow_rounds(seconds)
            benchmark.group = bench.group
            benchmark.extra_info.update(row=name, **prepared[1].notes)
            benchmark.pedantic(timed, rounds=rounds, iterations=repeats, warmup_rounds=1)

    return time


def pytest_benchmark_update_machine_info(config, machine_info):
    """Our record of the environment; pytest-benchmark's names the machine."""
    machine_info.clear()
    machine_info.update(environment())
