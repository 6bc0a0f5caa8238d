"""What is written for TensorBoard, by a stand-in of its writer: the package is 50 MB with what it needs."""

import sys
import types

import pytest

from fastcnn.train import Recipe

SMALL = Recipe(network="lenet5", train="8", held_out="6", size=32, batch_size=4, steps=4, log_every=2, check_every=2)
SETTINGS = [f"{name}={value}" for name, value in vars(SMALL).items()]


@pytest.fixture
def written(monkeypatch):
    """Scalars by folder and first step, as (name, value, step)."""
    written = {}

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            self.scalars = written.setdefault((folder, purge_step), [])

        def add_scalar(self, name, value, step):
            self.scalars.append((name, value, step))

        def flush(self):
            self.scalars.append("flushed")

        def close(self):
            self.scalars.append("closed")

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return written


def test_losses_and_figures_are_written(run, written, tmp_path):
    assert run("lenet5", *SETTINGS, "--tensorboard")[0] == 0
    assert run("lenet5", *SETTINGS, "--tensorboard", "--resume")[0] == 0
    folder = str(tmp_path / "run" / "tensorboard")
    scalars = written[folder, 1]
    assert scalars[-1] == "closed" and scalars[-2] == "flushed"
    names = [(name, step) for name, _, step in (each for each in scalars if isinstance(each, tuple))]
    for name in ("train/loss", "train/lr", "train/seconds", "held_out/top1_error", "held_out/top5_error"):
        assert [step for each, step in names if each == name] == [2, 4]
    assert not [name for name, _ in names if name.endswith("/step")]
    # Nothing is left to do, and what came after the checkpoint is forgotten.
    assert written[folder, 5] == ["closed"]


def test_without_tensorboard_it_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    status, out, err = run("lenet5", *SETTINGS, "--tensorboard")
    assert (status, out) == (2, "")
    assert err == "fastcnn train: --tensorboard needs tensorboard: pip install 'fastcnn[tensorboard]'\n"
