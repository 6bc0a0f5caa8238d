"""Recipes, and which images a step takes."""

import json
from itertools import pairwise

import pytest
import torch

from fastcnn.models import create, list_models
from fastcnn.train import RECIPES, Recipe, change, find_recipe
from fastcnn.train.detection import Detection
from fastcnn.train.loading import Augmented, Batches, mix
from fastcnn.train.processes import Processes
from fastcnn.train.steps import rate


def test_every_recipe_trains_a_detector_from_nothing_on_scenes():
    detectors = list_models(task="detection")
    for name, recipe in RECIPES.items():
        assert recipe.network in detectors and recipe.data == "scenes" and not recipe.weights, name


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


def test_a_recipe_is_plain_json():
    for recipe in RECIPES.values():
        assert json.loads(json.dumps(recipe.__dict__)) == recipe.__dict__
