"""Each kind of network through the one loop, on a few small scenes."""

import json

import pytest
import torch
from torch.nn import functional as F

from fastcnn import models
from fastcnn.data.images import fit_channels
from fastcnn.models import create
from fastcnn.train import Recipe, Trainer, change, evaluate
from fastcnn.train.checkpoints import read_checkpoint
from fastcnn.train.processes import Processes
from fastcnn.train.segmentation import Segmentation, middle
from fastcnn.train.super_resolution import Pairs, shrink
from fastcnn.train.task import Figure
from fastcnn.train.tasks import TASKS, find_task

FEW = {"train": "8", "held_out": "6", "size": 32, "batch_size": 8, "augment": "none", "check_every": 0, "warmup": 10}
FOUR = ["train=4", "batch_size=4"]
SMALL_INPUT = '{"preprocess": {"input_size": 96, "crop_pct": 1.0}}'
SMALL_UNET = '{"width": 8, "depth": 2}'
KINDS = {
    "classification": Recipe(network="lenet5", lr=3e-3, **FEW),
    "segmentation": Recipe(network="unet_x0_25", options=SMALL_UNET, lr=1e-2, **FEW),
    "super_resolution": Recipe(network="vdsr_8", options='{"layers": 3, "channels": 16}', lr=3e-3, **FEW),
}


@pytest.mark.parametrize(
    ("kind", "steps", "images"),
    [("classification", 120, FOUR), ("segmentation", 160, FOUR), ("super_resolution", 200, [])],
)
def test_learns_a_few_images_by_heart(tmp_path, kind, steps, images):
    trainer = Trainer(change(KINDS[kind], [*images, f"steps={steps}", f"log_every={steps // 4}"]), tmp_path)
    seen = Pairs(trainer.data, 2) if kind == "super_resolution" else trainer.data
    key, rises = trainer.task.figure.key, trainer.task.figure.rises
    before = evaluate(trainer.net, seen)[key]
    report = trainer.fit()
    after = evaluate(trainer.net, seen)[key]
    history = report["history"]
    assert report["task"] == kind and len(history) == 4 and history[-1]["loss"] < 0.6 * history[0]["loss"]
    assert (after > before) == rises
    assert {"classification": after == 0, "segmentation": after > 0.8, "super_resolution": after > 0.05}[kind]
    assert trainer.task.line(report["metrics"]).startswith(trainer.task.figure.label)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("amp", ["", "bfloat16"])
def test_weights_and_checkpoint_are_those_of_the_run(run, tmp_path, kind, amp):
    settings = [f"{name}={value}" for name, value in vars(KINDS[kind]).items() if name != "network"]
    network = KINDS[kind].network
    extra = ("--amp", amp) if amp else ()
    status, out, err = run(network, f"network={network}", *settings, "augment=flip", "steps=2", *extra)
    assert (status, err) == (0, "") and "after" in out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    net = models.create_from(tmp_path / "run" / "model.safetensors").eval()
    task = find_task(kind)(KINDS[kind], net, Processes())
    data, classes = task.open(True)
    assert net.classes == task.labels(classes) and len(data) == 6
    again = evaluate(net, data)
    assert again[task.figure.key] == pytest.approx(result["metrics"][task.figure.key], rel=1e-6)
    saved = read_checkpoint(tmp_path / "run" / "checkpoint.pt")["model"]
    assert all(torch.equal(value, saved[name]) for name, value in net.state_dict().items())


def test_two_shares_of_a_test_are_the_whole():
    """What two processes count comes to what one does."""

    class Half(Processes):
        def gather(self, mine):
            gathered.append(mine)
            return mine

    for kind, recipe in KINDS.items():
        options = recipe.overrides()
        net = create(recipe.network, **options).eval()
        task = find_task(kind)(recipe, net, Processes())
        data, classes = task.open(True)
        net = create(recipe.network, **options, **task.options(classes)).eval()
        gathered = []
        for rank in range(2):
            evaluate(net, data, processes=Half(rank, 2), batch_size=2)
        whole = evaluate(net, data)
        if kind == "super_resolution":
            joined = torch.tensor(gathered[0] + gathered[1]).mean(0)
            assert joined.tolist() == pytest.approx([whole["psnr"], whole["bicubic_psnr"]])
        else:
            first, second = gathered[0][0], gathered[1][0]
            with torch.inference_mode():  # Where it was counted.
                first.merge(second)
            assert repr(first.compute()) == repr(whole)


def test_a_tiny_gain_of_bicubic_over_itself_is_none():
    """Zero weights make VDSR the bicubic interpolation, on which it then gains nothing."""
    recipe = KINDS["super_resolution"]
    net = create(recipe.network, **recipe.overrides())
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    data, _ = find_task("super_resolution")(recipe, net, Processes()).open(True)
    assert abs(evaluate(net, data)["gain"]) < 0.05  # Colours that YCbCr cuts off apart.
    small, large = data[0]
    assert small.shape == (3, 16, 16) and large.shape == (3, 32, 32)
    assert torch.equal((small * 255).round() / 255, small) and torch.equal(small, shrink(large, 2))


def test_auxiliary_heads_count_as_much_as_the_recipe_says():
    task = Segmentation(change(KINDS["segmentation"], ["auxiliary_weight=0.5"]), create("unet_x0_25"), Processes())
    outputs = torch.randn(3, 2, 4, 8, 8)
    targets = torch.randint(0, 4, (2, 8, 8))
    targets[0, :4] = 255
    losses = task.losses(lambda images: tuple(outputs), torch.zeros(2, 3, 8, 8), targets, torch.device("cpu"))
    wanted = [F.cross_entropy(each, targets, ignore_index=255) for each in outputs]
    torch.testing.assert_close(losses["loss_main"], wanted[0])
    torch.testing.assert_close(losses["loss_auxiliary"], 0.5 * (wanted[1] + wanted[2]))
    # Nothing to be learnt from is no NaN.
    nothing = task.losses(lambda images: outputs[0], torch.zeros(2, 3, 8, 8), targets * 0 + 255, torch.device("cpu"))
    assert nothing["loss"] == 0


def test_a_map_smaller_than_its_image_is_of_the_middle():
    targets = torch.arange(64).reshape(1, 8, 8)
    assert middle(targets, torch.zeros(1, 3, 4, 6)).tolist() == targets[:, 2:6, 1:7].tolist()
    for size in ((9, 8), (7, 8)):
        with pytest.raises(ValueError, match=r"logits are \(\d, 8\), which is no middle of \(8, 8\)"):
            middle(targets, torch.zeros(1, 3, *size))


def test_scenes_to_learn_from_may_be_denser():
    task = find_task("segmentation")(change(KINDS["segmentation"], ["objects=20"]), create("unet_x0_25"), Processes())
    assert [task.scenes(held_out).objects for held_out in (False, True)] == [(1, 20), (1, 6)]
    shares = [[(target > 0).float().mean() for _, target in task.open(held_out)[0].items] for held_out in (False, True)]
    assert sum(shares[0]) / len(shares[0]) > sum(shares[1]) / len(shares[1])


@pytest.mark.parametrize("kind", ["segmentation", "super_resolution"])
def test_scenes_may_be_larger_than_what_is_learnt_from(tmp_path, kind):
    trainer = Trainer(change(KINDS[kind], ["scene=48", "augment=turn", "steps=1"]), tmp_path)
    assert [each[0].shape[1:] for each in (trainer.data[0], trainer.held_out[0])] == [
        (48, 48),
        (24, 24) if kind == "super_resolution" else (48, 48),
    ]
    sizes = []
    trainer.net.register_forward_pre_hook(lambda net, inputs: sizes.append((net.training, inputs[0].shape[2:])))
    trainer.fit()
    assert (True, (32, 32)) in sizes and (False, (48, 48)) in sizes


def test_classifiers_with_auxiliary_heads_and_smoothed_labels(tmp_path):
    settings = ["steps=1", "label_smoothing=0.1", "batch_size=2", "held_out=2", "train=2", "options=" + SMALL_INPUT]
    report = Trainer(change(Recipe(network="googlenet", **FEW), settings), tmp_path).fit()
    # Of eight classes, at first all alike, thrice: the last head counts 1, the two others 0.3 each.
    assert report["history"][0]["loss"] == pytest.approx(1.6 * torch.tensor(8.0).log().item(), rel=0.3)


def test_frozen_features_stay_and_the_head_learns(tmp_path):
    recipe = Recipe(network="cifar_resnet20", freeze="all", **FEW)
    trainer = Trainer(change(recipe, ["steps=2", "warmup=0"]), tmp_path)
    before = {name: value.clone() for name, value in trainer.net.state_dict().items()}
    trainer.fit()
    moved = {name for name, value in trainer.net.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {f"{trainer.net.classifier_path}.{name}" for name in ("weight", "bias")}


def test_figures_fall_as_errors_do():
    for figure in (Figure("a", "a"), Figure("a", "a", rises=False)):
        errors = [figure.error({"a": value}) for value in (0.1, 0.5)]
        assert (errors[0] > errors[1]) == figure.rises and min(errors) > 0


def test_grey_is_luma():
    image = torch.tensor([1.0, 0.5, 0.25]).reshape(3, 1, 1).expand(3, 2, 2)
    assert torch.equal(fit_channels(image, 3), image)
    torch.testing.assert_close(fit_channels(image, 1), torch.full((1, 2, 2), 0.299 + 0.587 / 2 + 0.114 / 4))


def test_the_kinds_that_train():
    assert {models.find_entry(recipe.network).row.task for recipe in KINDS.values()} | {"detection"} == set(TASKS)
    with pytest.raises(ValueError, match=r"fastcnn train trains detection, .*, not enhancement"):
        find_task("enhancement")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lenet5", "data=voc", "root=/none"), "data of classification must be one of scenes, folder, got 'voc'"),
        (("lenet5", "data=folder", "root=/none"), "no folder '/none/train'"),
        (("unet", "data=folder", "root=/none", "train=day"), "no folder '/none/day'"),
        (("unet", "data=voc", "root=/none", "train=day"), "no file '/none/ImageSets/Segmentation/day.txt'"),
        (("unet", "augment=ssd"), "augment of segmentation must be one of none, flip, turn, distort, got 'ssd'"),
        (("unet3d",), "unet3d takes (N, 3, D, H, W), not images of 1 or 3 channels"),
        (("vdsr", "size=33"), "size must be a multiple of the scale 2, got 33"),
        (("vdsr", "train=none"), "train and held_out must be numbers of scenes, got 'none'"),
        (("ssdlite", "scene=200"), "ssdlite160_mobilenet_v2_x0_35 learns from whole scenes: scene must be 0, got 200"),
        (("lenet5", "objects=3"), "lenet5 learns from scenes of one shape: objects must be 0, got 3"),
        (("ssdlite", "augment=crop"), "augment of detection must be one of none, flip, distort, ssd, got 'crop'"),
    ],
)
def test_what_a_kind_does_not_have_is_said_in_a_line(run, arguments, message):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "") and err.strip() == f"fastcnn train: {message}"
