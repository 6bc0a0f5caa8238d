"""Several processes, and one that is killed: real ones."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from fastcnn.train import Recipe, Trainer

# Networks without batch norm, whose statistics are those of a process's own share of the batch. SGD, for where a
# gradient is nothing but rounding Adam takes a whole step.
SHARED = {"size": 32, "batch_size": 4, "steps": 3, "optimizer": "sgd", "lr": 0.02, "warmup": 0, "log_every": 1}
RECIPES = [
    Recipe(network="lenet5", train="8", held_out="4", **SHARED),
    Recipe(network="vdsr_8", options='{"layers": 3, "channels": 8}', train="8", held_out="4", **SHARED),
    Recipe(
        network="unet_x0_25",
        options='{"batch_norm": false, "width": 4, "depth": 2}',
        data="folder",
        root="maps",
        held_out="train",
        **SHARED,
    ),
]
EACH = """
import json, sys
import torch
from fastcnn.train import Recipe, Trainer
from fastcnn.train.processes import Processes

processes = Processes.join("cpu")
for index, recipe in enumerate(json.loads(sys.argv[1])):
    trainer = Trainer(Recipe(**recipe), f"run{index}", processes=processes)
    report = trainer.fit()
    if processes.first:
        torch.save([trainer.net.state_dict(), report["metrics"][trainer.task.figure.key]], f"{index}.pt")
processes.leave()
"""


@pytest.fixture
def maps(tmp_path, monkeypatch):
    """A folder of images of several sizes, smaller than what is learnt from: one process ignores more than another."""
    pillow = pytest.importorskip("PIL.Image")
    for name in ("images", "masks"):
        (tmp_path / "maps" / "train" / name).mkdir(parents=True)
    random = torch.Generator().manual_seed(0)
    for index, size in enumerate([(32, 32), (12, 20), (28, 9), (32, 17), (40, 31)]):
        pixels = torch.randint(0, 256, (*size, 3), generator=random, dtype=torch.uint8).numpy()
        labels = torch.randint(0, 3, size, generator=random, dtype=torch.uint8).numpy()
        pillow.fromarray(pixels).save(tmp_path / "maps" / "train" / "images" / f"{index}.png")
        pillow.fromarray(labels).save(tmp_path / "maps" / "train" / "masks" / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_two_processes_learn_what_one_does(maps):
    """Of each batch half, under torchrun over gloo: the same weights as of the whole, but for rounding."""
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python", sys.executable)
    recipes = json.dumps([dataclasses.asdict(recipe) for recipe in RECIPES])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = (sys.executable, *launch, "-c", EACH, recipes)
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    for index, recipe in enumerate(RECIPES):
        trainer = Trainer(recipe, f"alone{index}")
        begun = {name: value.clone() for name, value in trainer.net.state_dict().items()}
        figure = trainer.fit()["metrics"][trainer.task.figure.key]
        weights, shared = torch.load(f"{index}.pt")
        assert figure == pytest.approx(shared, abs=1e-3), recipe.network
        for name, value in trainer.net.state_dict().items():
            torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-6)
        assert not any(torch.equal(value, begun[name]) for name, value in weights.items())


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path):
    """SIGKILL at whatever step it is, some time after a checkpoint."""
    recipe = Recipe(network="lenet5", train="64", held_out="16", size=32, steps=240, log_every=10, check_every=40)
    settings = [f"{field.name}={getattr(recipe, field.name)}" for field in dataclasses.fields(recipe)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONUNBUFFERED": "1"}
    arguments = (sys.executable, "-m", "fastcnn", "train", "lenet5", *settings, "--out", str(tmp_path / "killed"))
    with subprocess.Popen((*arguments, "--plain"), stdout=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stdout:
            if line.startswith("step 60 "):
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "result.json").exists()
    resumed = Trainer(recipe, tmp_path / "killed", resume=True)
    assert 40 <= resumed.step < 240
    whole = Trainer(recipe, tmp_path / "whole")
    reports = [trainer.fit() for trainer in (resumed, whole)]
    assert reports[0]["metrics"]["top1_error"] == reports[1]["metrics"]["top1_error"]
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, resumed.net.state_dict()[name]), name
