"""Training of detectors, classifiers, segmenters and super-resolution: rows of recipes, and one loop for all.

Checkpoints, mixed precision and several processes; :class:`Recipe` documents the settings.
"""

from fastcnn.train.evaluation import evaluate
from fastcnn.train.losses import classification_loss
from fastcnn.train.optimizers import RMSprop, reduce_on_plateau
from fastcnn.train.recipes import Recipe, change
from fastcnn.train.rows import RECIPES, find_recipe
from fastcnn.train.trainer import Trainer

__all__ = [
    "RECIPES",
    "RMSprop",
    "Recipe",
    "Trainer",
    "change",
    "classification_loss",
    "evaluate",
    "find_recipe",
    "reduce_on_plateau",
]
