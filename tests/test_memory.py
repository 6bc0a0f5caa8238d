"""Large results lie in memory that is kept: reused when it is free, bounded, and never while somebody holds it."""

import io
import os
import subprocess
import sys
import threading

import pytest
import torch

import fastcnn
from fastcnn import _backend

pytestmark = pytest.mark.skipif(
    not (sys.platform == "linux" and _backend.cpu.available) or os.environ.get("FASTCNN_CACHE_MB") == "0",
    reason="memory is kept by the compiled kernels, on Linux, unless that is switched off",
)
SIDE = 1 << 9  # Of planes of 1 MB.


def result(planes=2, value=1.0):
    x = torch.full((1, planes, SIDE, SIDE), value)
    return fastcnn.ops.depthwise_conv2d(x, torch.ones(planes, 1, 3, 3), padding=1, activation="relu")


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.fixture(autouse=True)
def nothing_kept():
    fastcnn.empty_cache()
    yield
    fastcnn.empty_cache()


def test_memory_is_used_again():
    first = result()
    at = first.data_ptr()
    assert result().data_ptr() != at  # Somebody holds it.
    del first
    assert at in (result().data_ptr(), result().data_ptr())


def test_a_piece_is_not_used_for_much_less():
    large = result(8)
    at = large.data_ptr()
    del large
    assert result(2).data_ptr() != at
    assert result(7).data_ptr() == at


def test_views_hold_their_memory():
    corner = result(value=3.0)[:, :1, 1:3, 1:3]
    for value in (5.0, 7.0):
        assert result(value=value)[0, 0, 1, 1] == 9 * value
    assert torch.equal(corner, torch.full_like(corner, 27.0))


def test_empty_cache_gives_memory_back():
    held = result(64)
    with_it = resident()
    del held
    kept = resident()
    fastcnn.empty_cache()
    assert with_it - kept < 32 << 20
    assert kept - resident() > 48 << 20


def test_what_is_kept_is_bounded():
    code = """
import test_memory as t
held = [t.result(8) for _ in range(4)]
before = t.resident()
del held
assert before - t.resident() > 16 << 20, (before, t.resident())
"""
    run_with(code, FASTCNN_CACHE_MB="9")


def test_switched_off():
    code = """
import test_memory as t
assert t.result().untyped_storage().resizable()
"""
    run_with(code, FASTCNN_CACHE_MB="0")
    assert not result().untyped_storage().resizable()


def run_with(code, **environment):
    here = os.path.dirname(__file__)
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, cwd=here, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def test_many_threads():
    wrong = []

    def work(seed):
        for i in range(20):
            value = float(seed * 100 + i)
            y = result(1 + i % 3, value)
            if not bool((y[..., 1:-1, 1:-1] == 9 * value).all()):
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_results_are_tensors_like_others():
    y = result()
    file = io.BytesIO()
    torch.save(y, file)
    file.seek(0)
    assert torch.equal(torch.load(file), y)
    assert torch.equal(result().share_memory_(), y)
    assert result().resize_(2, 3).shape == (2, 3)
    assert not result().requires_grad
    with torch.inference_mode():
        assert result().is_inference()


def test_a_forked_process_has_its_own():
    y = result()
    at, child = y.data_ptr(), os.fork()
    if child == 0:
        del y
        os._exit(0 if float(result(value=2.0)[0, 0, 1, 1]) == 18 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert y.data_ptr() == at and float(y[0, 0, 1, 1]) == 9
