"""Training of detectors, classifiers, segmentation and super-resolution: recipes as rows, one loop with checkpoints, mixed precision and several processes."""

from fastcnn.train.evaluation import evaluate
from fastcnn.train.losses import classification_loss
from fastcnn.train.recipes import Recipe, change
from fastcnn.train.rows import RECIPES, find_recipe
from fastcnn.train.trainer import Trainer

__all__ = ["RECIPES", "Recipe", "Trainer", "change", "classification_loss", "evaluate", "find_recipe"]
