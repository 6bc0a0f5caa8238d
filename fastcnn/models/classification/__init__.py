"""Classification families; importing one registers its rows."""

from fastcnn.models.classification import mobilenetv3, resnet

__all__ = ["mobilenetv3", "resnet"]
