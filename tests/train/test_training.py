"""Training end to end at small sizes: what it learns, how it goes on, and what it writes."""

import json
import os
import subprocess
import sys

import pytest
import torch

from fastcnn import models
from fastcnn.train import Recipe, Trainer, change, evaluate
from fastcnn.train.checkpoints import read_checkpoint, write_checkpoint

SMALL = Recipe(
    network="retinanet_mobilenet_v2_x0_5_fpn",
    options='{"min_size": 64, "channels": 16, "anchor_sizes": [8, 16, 32, 64, 128]}',
    train="12",
    held_out="6",
    size=64,
    batch_size=4,
    steps=6,
    warmup=2,
    log_every=2,
    check_every=3,
)
SETTINGS = [f"{name}={getattr(SMALL, name)}" for name in SMALL.__dict__ if name != "network"]


@pytest.mark.parametrize("workers", [0, 1])
def test_goes_on_where_it_stopped_to_the_bit(tmp_path, workers):
    whole = Trainer(SMALL, tmp_path / "whole")
    report = whole.fit()

    class Stopped(Exception):
        pass

    def stop(step, line):
        if step == 4:
            raise Stopped

    recipe = change(SMALL, [f"workers={workers}"])
    with pytest.raises(Stopped):
        Trainer(recipe, tmp_path / "parts").fit(stop)
    resumed = Trainer(recipe, tmp_path / "parts", resume=True)
    assert resumed.step == 3  # Of the last checkpoint, not of the stop.
    again = resumed.fit()
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, resumed.net.state_dict()[name]), name
    assert [entry["step"] for entry in report["history"]] == [entry["step"] for entry in again["history"]] == [2, 4, 6]
    assert report["history"][2]["loss"] == again["history"][2]["loss"]
    # Step 4 alone, where the whole run has the mean of steps 3 and 4.
    assert again["history"][1]["loss"] == pytest.approx(report["history"][1]["loss"], rel=0.3)
    assert report["metrics"]["mAP"] == again["metrics"]["mAP"]
    assert [check["step"] for check in again["checks"]] == [3, 6]


@pytest.mark.long
@pytest.mark.parametrize(
    ("network", "options", "first"),
    [
        ("ssdlite160_mobilenet_v2_x0_35", {}, 1),
        ("fasterrcnn_mobilenet_v2_x0_5_fpn", {"min_size": 64, "channels": 16}, 1),
        ("maskrcnn_mobilenet_v2_x0_5_fpn", {"min_size": 64, "channels": 16}, 1),
        ("yolov2_x0_25", {"width_mult": 0.125}, 0),
    ],
)
@pytest.mark.parametrize("amp", ["", "bfloat16"])
def test_each_family_takes_a_step(tmp_path, network, options, first, amp):
    settings = ["steps=1", "train=2", "held_out=1", "batch_size=2", f"options={json.dumps(options)}"]
    trainer = Trainer(change(Recipe(network=network, size=64), settings), tmp_path, amp=amp)
    assert trainer.net.num_classes == 8 + first
    before = {name: value.clone() for name, value in trainer.net.named_parameters()}
    report = trainer.fit()
    assert all(torch.isfinite(torch.tensor(list(entry.values()))).all() for entry in report["history"])
    moved = [name for name, value in trainer.net.named_parameters() if not torch.equal(value, before[name])]
    assert len(moved) > 0.8 * len(before)
    assert ("segm" in report["metrics"]) == network.startswith("mask")


@pytest.mark.long
def test_learns_a_few_scenes_by_heart(tmp_path):
    settings = ["steps=120", "batch_size=8", "train=8", "lr=0.008", "augment=none", "check_every=0"]
    trainer = Trainer(change(SMALL, settings), tmp_path)
    before = evaluate(trainer.net, trainer.data)["mAP"]
    history = trainer.fit()["history"]
    assert history[-1]["loss"] < 0.3 * history[0]["loss"]
    assert before < 0.1 and evaluate(trainer.net, trainer.data)["mAP"] > 0.4


def test_the_command_writes_weights_that_create_reads(run, tmp_path):
    status, out, err = run(SMALL.network, *SETTINGS)
    assert (status, err) == (0, "") and "mAP@0.5" in out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["recipe"] == SMALL.__dict__ and result["command"].startswith(f"fastcnn train {SMALL.network} ")
    assert len(result["classes"]) == 8 and len(result["history"]) == 3 and result["environment"]["torch"]
    weights = tmp_path / "run" / "model.safetensors"
    net = models.create(SMALL.network, 8, weights, **SMALL.overrides())
    data = Trainer(SMALL, tmp_path / "other").held_out
    assert evaluate(net, data)["mAP"] == result["metrics"]["mAP"]

    status, out, err = run(SMALL.network, *SETTINGS)
    assert status == 2 and err == (
        f"fastcnn train: {tmp_path / 'run'} has a checkpoint already: --resume goes on from it, --out names another "
        "folder\n"
    )
    status, out, err = run(SMALL.network, *SETTINGS, "--resume", "--amp", "bfloat16")
    assert status == 2 and "the checkpoint was trained with no --amp" in err
    status, out, err = run(SMALL.network, *SETTINGS, "steps=8", "--resume")
    assert status == 2 and "the checkpoint was trained with steps=6, not 8" in err
    assert run(SMALL.network, *SETTINGS, "--resume")[0] == 0  # Nothing is left to do.


def test_two_processes_learn_one_network(tmp_path):
    """Under torchrun, over gloo: each rank sees half of every batch and tests half of the images."""
    arguments = ("train", SMALL.network, *SETTINGS, "--out", str(tmp_path), "--plain")
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "fastcnn")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *launch, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["processes"] == 2 and done.stdout.count("after") == 1
    net = models.create(SMALL.network, 8, tmp_path / "model.safetensors", **SMALL.overrides())
    alone = evaluate(net, Trainer(SMALL, tmp_path).held_out)
    assert alone["mAP"] == pytest.approx(result["metrics"]["mAP"], abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ssdlit",), "neither a recipe nor a network is called 'ssdlit'; did you mean ssdlite?"),
        (("ssdlite", "--resume"), "no checkpoint '{out}/checkpoint.pt' to resume from"),
        (("ssdlite", "data=voc", "root=/none"), "no file '/none/ImageSets/Main/4000.txt'"),
        (("ssdlite", "train=all"), "train and held_out must be numbers of scenes, got 'all'"),
        (("maskrcnn", "data=voc", "root=/none"), "VOC's folders give no masks, which this network learns from"),
        (("ssdlite", "train=0"), "train and held_out must be at least one scene, got 0"),
        (("ssdlite", "train=4", "held_out=0"), "train and held_out must be at least one scene, got 0"),
        (("ssdlite", "--device", "meta"), f"torch {torch.__version__} has no device 'meta' here"),
        (("ssdlite", f"seed={10**30}"), f"seed must be below 2**62, got {10**30}"),
        (("fastrcnn_caffenet",), "fastrcnn_caffenet learns from proposals, which fastcnn train does not make"),
        (
            ("localizer_alexnet",),
            "fastcnn train trains detection, classification, segmentation, super_resolution, not localization",
        ),
    ],
)
def test_what_cannot_be_trained_is_said_in_a_line(run, tmp_path, arguments, message):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "") and err.strip() == f"fastcnn train: {message.format(out=tmp_path / 'run')}"


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    trainer = Trainer(SMALL, tmp_path)
    with torch.no_grad():
        next(trainer.net.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="the loss is nan at step 2"):
        trainer.fit()


def test_checkpoints_are_plain_and_whole(tmp_path):
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, {"step": 3, "model": {"a": torch.ones(2)}})
    assert read_checkpoint(path)["step"] == 3 and [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"checkpoint.pt is no"):
        read_checkpoint(path)
    torch.save({"step": 1}, path)
    with pytest.raises(ValueError, match=r"checkpoint.pt is no checkpoint of this version"):
        read_checkpoint(path)
