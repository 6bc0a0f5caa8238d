"""Recipes, and which images a step takes."""

import json
from itertools import pairwise

import pytest
import torch

from fastcnn.models import create, list_models
from fastcnn.train import RECIPES, Recipe, RMSprop, Trainer, change, find_recipe
from fastcnn.train.detection import Detection
from fastcnn.train.loading import Augmented, Batches, mix
from fastcnn.train.processes import Processes
from fastcnn.train.steps import clip, make_optimizer, rate
from fastcnn.train.tasks import TASKS, find_task


def test_every_recipe_trains_a_network_from_nothing_on_scenes():
    networks = [name for task in TASKS for name in list_models(task=task)]
    for name, recipe in RECIPES.items():
        assert recipe.network in networks and recipe.data == "scenes" and not recipe.weights, name
        net = create(recipe.network, device="meta", **recipe.overrides())
        assert find_task(net.row.task)(recipe, net, Processes()).transforms(net) is not None


def test_settings_have_the_type_of_their_field():
    recipe = change(RECIPES["ssdlite"], ["steps=7", "lr=1e-4", "augment=none", 'options={"layers": [1, [2]]}'])
    assert (recipe.steps, recipe.lr, recipe.augment) == (7, 1e-4, "none")
    assert recipe.overrides() == {"layers": (1, (2,))}
    assert recipe.network == RECIPES["ssdlite"].network


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("step=3", "'step=3'; did you mean steps"),
        ("steps", "name=value of a recipe, got 'steps'"),
        ("steps=many", "steps must be of type int, got 'many'"),
        ("steps=0", "steps must be at least 1, got 0"),
        ("lr=-1", "lr must not be negative, got -1.0"),
        ("lr=nan", "lr must not be negative, got nan"),
        ("data=cifar", "data must be one of scenes, folder, voc, coco, got 'cifar'"),
        ("data=voc", "data=voc needs root=FOLDER"),
        ("optimizer=adam", "optimizer must be one of adamw, sgd, rmsprop, got 'adam'"),
        ("schedule=linear", "schedule must be one of cosine, step, plateau, got 'linear'"),
        ("loss=l3", "loss must be one of l1, l2, got 'l3'"),
        ("label_smoothing=2", "label_smoothing must be from 0 to 1, got 2.0"),
        ("milestones=0.5,0.5", "milestones must be rising shares between 0 and 1, as 0.5,0.75, got '0.5,0.5'"),
        ("milestones=half", "milestones must be rising shares between 0 and 1, as 0.5,0.75, got 'half'"),
        ("milestones=1", "got '1'"),
        ("scene=100", "scene must be 0 or at least size, 160, got 100"),
        ("objects=-1", "objects must not be negative, got -1"),
        ("scene=-1", "scene must not be negative, got -1"),
        ("patience=-1", "patience must not be negative, got -1"),
        ("options=[1]", r"options must be a JSON object, got '\[1\]'"),
        ("options={", "options must be a JSON object, got '{'"),
    ],
)
def test_bad_settings_are_refused_in_a_line(setting, message):
    with pytest.raises(ValueError, match=message) as error:
        change(RECIPES["ssdlite"], [setting])
    assert "\n" not in str(error.value)


def test_a_detector_without_a_recipe_has_the_defaults():
    assert find_recipe("retinanet_resnet50_fpn") == Recipe(network="retinanet_resnet50_fpn")
    with pytest.raises(ValueError, match="neither a recipe nor a network is called 'retinant'; did you mean retinanet"):
        find_recipe("retinant")


@pytest.mark.parametrize("world", [1, 2])
def test_each_epoch_has_every_image_once(world):
    steps = range(0, 10)
    parts = [list(Batches(15, 6, steps, 3, rank, world)) for rank in range(world)]
    assert all(len(batch) == 6 // world for part in parts for batch in part)
    places = sorted(place for part in parts for batch in part for place in batch)
    assert places == [(epoch, index) for epoch in range(4) for index in range(15)]
    orders = [[index for batch in parts[0] for e, index in batch if e == epoch] for epoch in (0, 1)]
    assert orders[0] != orders[1]


def test_steps_do_not_depend_on_where_a_run_began():
    whole = list(Batches(15, 4, range(0, 9), 3))
    assert list(Batches(15, 4, range(5, 9), 3)) == whole[5:]
    assert list(Batches(15, 4, range(0, 9), 4)) != whole


@pytest.mark.parametrize(
    ("images", "world", "message"),
    [(0, 1, "there is no image to learn from"), (9, 4, "batch_size must be a multiple of the 4 processes, got 6")],
)
def test_batches_that_cannot_be(images, world, message):
    with pytest.raises(ValueError, match=message):
        Batches(images, 6, range(1), 0, 0, world)


def test_mixed_seeds_differ():
    seeds = {mix(a, b, c) for a in range(10) for b in range(10) for c in range(10)}
    assert len(seeds) == 1000 and all(0 <= seed < 2**63 for seed in seeds)


def detection(**settings):
    """The task of a small detector."""
    recipe = Recipe(network="ssdlite160_mobilenet_v2_x0_35", **settings)
    return Detection(recipe, create(recipe.network, device="meta"), Processes())


@pytest.mark.parametrize("augment", Detection.augmentations)
def test_augmentation_is_of_the_place_alone(augment):
    task = detection(train="3", size=48, augment=augment)
    data, _ = task.open(False)
    augmented = Augmented(data, task.transforms(None), 5)
    first = [augmented[(epoch, 1)] for epoch in range(8)]
    torch.rand(7)
    for (image, target), (again, same) in zip(first, [augmented[(epoch, 1)] for epoch in range(8)], strict=True):
        assert torch.equal(image, again) and torch.equal(target["boxes"], same["boxes"])
    different = {(tuple(image.shape), image.sum().item(), image[0, 0, 0].item()) for image, _ in first}
    assert (len(different) > 1) == (augment != "none")


def test_held_out_scenes_are_others():
    task = detection(train="4", held_out="4", size=32)
    (learnt, classes), (tested, _) = (task.open(held_out) for held_out in (False, True))
    assert len(classes) == 8 and len(learnt) == len(tested) == 4
    assert not any(torch.equal(a[0], b[0]) for a in learnt for b in tested)


def test_the_rate_rises_and_falls():
    recipe = Recipe(network="lenet5", steps=100, warmup=10)
    rates = [rate(step, recipe) for step in range(101)]
    assert rates[0] == 0.1 and rates[9] == rates[10] == 1 and abs(rates[100]) < 1e-12
    assert all(a < b for a, b in pairwise(rates[:10])) and all(a > b for a, b in pairwise(rates[10:]))
    assert rate(55, recipe) == pytest.approx(0.5)


def test_the_rate_falls_in_steps():
    recipe = Recipe(network="lenet5", steps=100, warmup=10, schedule="step", milestones="0.3,0.6,0.9")
    rates = [rate(step, recipe) for step in (9, 10, 29, 30, 59, 60, 89, 90, 99)]
    assert rates == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_the_rate_falls_where_the_figure_stalls_and_at_most_three_times():
    recipe = Recipe(network="lenet5", steps=1000, warmup=0, schedule="plateau", patience=1)
    errors = [0.9, 0.5, 0.5, 0.5, 0.4, *[0.4] * 20]
    shares = [rate(5, recipe, errors[:checks]) for checks in range(len(errors) + 1)]
    assert shares[:4] == [1.0] * 4 and shares[4:7] == pytest.approx([0.1] * 3)
    assert shares[-1] == pytest.approx(1e-3) and len({round(share, 9) for share in shares}) == 4
    with pytest.raises(ValueError, match="schedule=plateau needs check_every=STEPS"):
        change(recipe, ["check_every=0"])


def test_a_run_looks_at_its_checks(tmp_path):
    settings = ["train=4", "held_out=4", "size=32", "batch_size=2", "steps=3", "check_every=1", "patience=0"]
    recipe = change(Recipe(network="lenet5", schedule="plateau", warmup=0, lr=1e-9), settings)
    trainer = Trainer(recipe, tmp_path)
    rates = []
    trainer.fit(lambda step, line: rates.append(trainer.lr))
    # So small a rate changes no error: the second check is no better than the first, nor is the third.
    assert rates == pytest.approx([1e-9, 1e-10, 1e-11])
    with pytest.raises(ValueError, match="the checkpoint was trained with check_every=1, not 2"):
        Trainer(change(recipe, ["check_every=2"]), tmp_path, resume=True)


def test_gradients_are_cut_down_by_value_over_the_rate_then_by_norm():
    weight = torch.nn.Parameter(torch.zeros(2))
    for settings, wanted in (
        (["adjustable_clip=0.2", "clip=0"], [2.0, -1.0]),
        (["adjustable_clip=0", "clip=1"], [3 / 10**0.5, -1 / 10**0.5]),
        (["adjustable_clip=0.1", "clip=1"], [0.5**0.5, -(0.5**0.5)]),
        (["adjustable_clip=0", "clip=0"], [3.0, -1.0]),
    ):
        weight.grad = torch.tensor([3.0, -1.0])
        clip([weight], change(Recipe(network="vdsr_8"), settings), lr=0.1)
        assert weight.grad.tolist() == pytest.approx(wanted, rel=1e-4)


def test_optimisers_are_those_of_the_recipe():
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    for name, kind in (("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW), ("rmsprop", RMSprop)):
        recipe = Recipe(network="lenet5", optimizer=name, lr=0.5, momentum=0.75, weight_decay=0.25)
        optimizer = make_optimizer(net, recipe)
        assert type(optimizer) is kind and [group["weight_decay"] for group in optimizer.param_groups] == [0.25, 0.0]
        assert [len(group["params"]) for group in optimizer.param_groups] == [1, 3]
        assert name == "adamw" or optimizer.param_groups[0]["momentum"] == 0.75


def test_a_recipe_is_plain_json():
    for recipe in RECIPES.values():
        assert json.loads(json.dumps(recipe.__dict__)) == recipe.__dict__
