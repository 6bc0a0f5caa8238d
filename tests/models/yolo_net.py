"""Small YOLO networks for tests by value, and a scene for them."""

import dataclasses

import torch

from fastcnn import models
from fastcnn.models.detection.yolo import SQUARE_416

SMALL = {
    "yolov1": {"width_mult": 0.05, "preprocess": dataclasses.replace(SQUARE_416, input_size=64)},
    "fast_yolov1": {"width_mult": 0.05, "preprocess": dataclasses.replace(SQUARE_416, input_size=128)},
    "yolov2": {"width_mult": 0.05, "multi_scale": False},
    "yolov2_tiny": {"width_mult": 0.1, "multi_scale": False},
    "yolo9000": {"width_mult": 0.05, "num_classes": 30, "multi_scale": False},
    "yolov3": {"width_mult": 0.05, "num_classes": 5, "multi_scale": False},
    "yolov3_tiny": {"width_mult": 0.1, "num_classes": 5, "multi_scale": False},
}


def small(network, **options):
    torch.manual_seed(0)
    net = models.create(network, **{**SMALL[network], **options})
    if "v1" not in network:
        net.size = 64
    return net


def scene(net, images=2):
    generator = torch.Generator().manual_seed(0)
    dtype = next(net.parameters()).dtype
    shapes = [(net.in_channels, 48, 80), (net.in_channels, 100, 60)] * images
    pictures = [torch.rand(shape, generator=generator).to(dtype) for shape in shapes[:images]]
    box = torch.tensor([[4.0, 5, 30, 40], [30.0, 20, 50, 47]])
    return pictures, [{"boxes": box, "labels": torch.tensor([1, 2])}] * images
