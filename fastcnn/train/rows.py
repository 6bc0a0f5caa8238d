"""The recipes that ``fastcnn train`` knows by name."""

from __future__ import annotations

import difflib
import json

from fastcnn.models import find_entry, list_models
from fastcnn.train.recipes import Recipe
from fastcnn.train.tasks import find_task

# Priors are kmeans_anchors of 400 scenes.
_YOLO = json.dumps(
    {
        "preprocess": {"input_size": 192},
        "multi_scale": False,
        "priors": [[30, 30], [40, 40], [52, 52], [66, 66], [83, 83]],
    }
)
_RETINANET = json.dumps({"aspect_ratios": [1.0]})
# On scenes, from random weights; each learns in minutes on two cores.
SCENES = {
    "ssdlite": Recipe(
        network="ssdlite160_mobilenet_v2_x0_35", steps=4000, augment="distort", log_every=50, check_every=1000
    ),
    "retinanet": Recipe(
        network="retinanet_mobilenet_v2_x0_5_fpn", options=_RETINANET, steps=1800, log_every=50, check_every=300
    ),
    "fasterrcnn": Recipe(
        network="fasterrcnn_mobilenet_v2_x0_5_fpn", steps=1200, lr=1e-3, log_every=50, check_every=400
    ),
    "maskrcnn": Recipe(
        network="maskrcnn_mobilenet_v2_x0_5_fpn", steps=1500, batch_size=8, lr=1e-3, log_every=50, check_every=500
    ),
    "yolov2": Recipe(network="yolov2_x0_25", options=_YOLO, steps=2200, log_every=50, check_every=1100),
    # The rates of He et al., Deep Residual Learning, 2016, section 4.2: weight decay alone, no dropout.
    "cifar_resnet20": Recipe(
        network="cifar_resnet20",
        train="8000",
        size=32,
        batch_size=64,
        steps=1600,
        optimizer="sgd",
        lr=0.1,
        warmup=50,
        schedule="step",
        weight_decay=1e-4,
        clip=0.0,
        log_every=50,
        check_every=400,
    ),
    "unet": Recipe(
        network="unet_x0_25",
        options=json.dumps({"width": 8, "dropout": 0.0}),
        train="16000",
        size=96,
        steps=6000,
        lr=3e-3,
        background=0.5,
        log_every=100,
        check_every=2000,
    ),
    "fcn8s": Recipe(
        network="fcn8s_vgg11_bn_x0_25",
        train="5000",
        size=192,
        objects=12,
        batch_size=8,
        steps=8500,
        lr=8e-3,
        background=0.7,
        augment="turn",
        log_every=100,
        check_every=4250,
    ),
    "vdsr": Recipe(network="vdsr_8", size=96, batch_size=8, steps=1000, lr=1e-3, log_every=50, check_every=250),
}
# What papers trained with on ImageNet's 1,281,167 images, for a folder of about as many: data=folder root=FOLDER.
# Theirs decay biases and norms too, which these do not.
PAPERS = {
    # Krizhevsky et al., 2012, section 5; tests every epoch.
    "alexnet": Recipe(
        network="alexnet",
        batch_size=128,
        steps=900_000,
        optimizer="sgd",
        lr=0.01,
        warmup=0,
        schedule="plateau",
        patience=3,
        weight_decay=5e-4,
        clip=0.0,
        augment="crop",
        check_every=10_000,
    ),
    # Szegedy et al., Rethinking the Inception Architecture, 2016, section 8, with labels smoothed; there the rate falls
    # by 0.94 every two epochs.
    "inception_v3": Recipe(
        network="inception_v3",
        batch_size=32,
        steps=4_000_000,
        optimizer="rmsprop",
        momentum=0.0,
        lr=0.045,
        weight_decay=0.0,
        clip=2.0,
        label_smoothing=0.1,
        augment="crop",
        check_every=40_000,
    ),
    # He et al., Deep Residual Learning, 2016, section 3.4: no dropout.
    "resnet50": Recipe(
        network="resnet50",
        batch_size=256,
        steps=600_000,
        optimizer="sgd",
        lr=0.1,
        warmup=0,
        schedule="plateau",
        patience=3,
        weight_decay=1e-4,
        clip=0.0,
        augment="crop",
        check_every=5_000,
    ),
}
RECIPES = {**SCENES, **PAPERS}


def find_recipe(name: str) -> Recipe:
    """A row of :data:`RECIPES`; for the name of any other network, the defaults with that network.

    Raises:
        ValueError: neither, or a network of a kind that is not trained.
    """
    if name in RECIPES:
        return RECIPES[name]
    networks = list_models()
    if name in networks:
        find_task(find_entry(name).row.task)
        return Recipe(network=name)
    close = difflib.get_close_matches(name, [*RECIPES, *networks], n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"recipes are {', '.join(RECIPES)}"
    raise ValueError(f"neither a recipe nor a network is called {name!r}; {hint}")
