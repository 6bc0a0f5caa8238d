"""Training of detectors: recipes as rows, one loop with checkpoints, mixed precision and several processes."""

from fastcnn.train.evaluation import evaluate
from fastcnn.train.losses import classification_loss
from fastcnn.train.recipes import RECIPES, Recipe, change, find_recipe
from fastcnn.train.trainer import Trainer

__all__ = ["RECIPES", "Recipe", "Trainer", "change", "classification_loss", "evaluate", "find_recipe"]
