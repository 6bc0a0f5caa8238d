"""Fully connected layers as convolutions."""

import pytest
import torch
from torch import nn

from fastcnn import models
from fastcnn.nn import linear_to_conv2d, to_fully_convolutional

# Of each, the side of the map that the head sees.
NETS = {
    "alexnet_owt": ({"hidden": 16}, 6),
    "vgg11": ({"width_mult": 0.125, "hidden": 16}, 7),
    "resnet18": ({"layers": (1, 1, 1, 1)}, 7),
    "mobilenet_v2_x0_35": ({}, 7),
    "mobilenet_v3_small_x0_75": ({}, 7),
}


@pytest.mark.parametrize("network", NETS)
def test_equals_the_classifier(network, filled):
    """At its own size, and at every window of a larger image's map."""
    options, side = NETS[network]
    net = filled(models.create(network, num_classes=7, dtype=torch.float64, **options))
    size = net.preprocess.input_size
    x = torch.rand(2, 3, size, size, dtype=torch.float64)
    larger = torch.rand(1, 3, size + 32, size + 64, dtype=torch.float64)
    with torch.inference_mode():
        wanted = net(x)
        map_ = net.forward_features(larger)
        windows = [[net.forward_head(map_[..., i : i + side, j : j + side]) for j in range(3)] for i in range(2)]
        dense = to_fully_convolutional(net)
        torch.testing.assert_close(dense(x), wanted[..., None, None])
        found = dense(larger)
    assert found.shape == (1, 7, 2, 3)
    for i, row in enumerate(windows):
        for j, logits in enumerate(row):
            torch.testing.assert_close(found[..., i, j], logits)
    assert not any(isinstance(layer, nn.Linear) for layer in dense.modules())


def test_shares_its_weights_and_has_gradients():
    linear = nn.Linear(4 * 9, 5)
    conv = linear_to_conv2d(linear, 3)
    assert conv.weight.data_ptr() == linear.weight.data_ptr() and conv.bias is linear.bias
    conv(torch.rand(2, 4, 5, 5)).sum().backward()
    assert conv.weight.grad.any()
    assert linear_to_conv2d(nn.Linear(6, 2, bias=False)).bias is None


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("mobilefacenet", "cannot be made of convolutions|has no head"),
        ("resnet18", "this ResNet has no head to make convolutions of"),
    ],
)
def test_heads_that_are_none(network, message):
    net = models.create(network, device="meta", features_only=network == "resnet18")
    with pytest.raises(ValueError, match=message):
        to_fully_convolutional(net)


def test_windows_that_do_not_fit():
    with pytest.raises(ValueError, match="10 inputs are no windows of 3x3 pixels"):
        linear_to_conv2d(nn.Linear(10, 2), 3)
