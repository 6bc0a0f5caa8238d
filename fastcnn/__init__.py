"""Fast, exact PyTorch ops for convolutional networks and detectors, and the networks built on them."""

__version__ = "0.1.0"

from fastcnn import models, nn, ops
from fastcnn._backend import empty_cache, report
from fastcnn.ops._library import reference_mode

__all__ = ["empty_cache", "models", "nn", "ops", "reference_mode", "report"]
