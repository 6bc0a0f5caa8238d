"""The way back to the pixels, against the lecture's numbers, matrices and gradients."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastcnn import models
from fastcnn.models._net import Feature, Row
from fastcnn.visualize import deconvnet, unpool


class Chain(models.ConvNet):
    """Two convolutions with ReLUs and overlapping pools after them."""

    def __init__(self):
        super().__init__(Row(source="here", num_classes=2, in_channels=2))
        self.features = nn.Sequential(
            nn.Conv2d(2, 4, 3, 2, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )
        ends = (("pool1", 4, 4, range(4)), ("conv2", 6, 4, (4, 5)), ("pool2", 6, 8, (6,)))
        self.feature_chain = tuple(Feature(*e[:3], tuple(f"features.{i}" for i in e[3])) for e in ends)

    def forward_head(self, features):
        return features.mean((2, 3))[:, :2]


@pytest.fixture
def net():
    net = Chain().double().eval()
    nn.init.uniform_(net.features[1].running_var, 0.5, 2)
    nn.init.normal_(net.features[1].running_mean)
    return net


def test_unpooling_of_the_lecture():
    """The maxima of [[1 2 6 3] ...] are 5 6 7 8, and 1 2 3 4 go where they were."""
    before = torch.tensor([[1, 2, 6, 3], [3, 5, 2, 1], [1, 2, 2, 1], [7, 3, 4, 8]]).float()[None, None]
    after, switches = F.max_pool2d(before, 2, return_indices=True)
    assert after[0, 0].tolist() == [[5, 6], [7, 8]]
    found = unpool(torch.tensor([[1.0, 2], [3, 4]])[None, None], switches, (4, 4))
    assert found[0, 0].tolist() == [[0, 0, 2, 0], [0, 1, 0, 0], [0, 0, 0, 0], [3, 0, 0, 4]]


def test_windows_that_share_a_maximum_add_up():
    before = torch.zeros(1, 1, 5, 5)
    before[0, 0, 2, 2] = 1
    _, switches = F.max_pool2d(before, 3, 2, return_indices=True)
    found = unpool(torch.tensor([[1.0, 2], [3, 4]])[None, None], switches, (5, 5))
    assert found.sum() == found[0, 0, 2, 2] == 10


@pytest.mark.parametrize(
    ("values", "switches", "message"),
    [
        (torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 3).long(), r"got \(1, 1, 2, 3\), \(1, 1, 2, 2\)"),
        (torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 16), r"below 4 \* 4, got 16"),
    ],
)
def test_bad_switches(values, switches, message):
    with pytest.raises(ValueError, match=message):
        unpool(values, switches, (4, 4))


def test_way_back_is_the_transposed_way_there(net):
    """Step by step with the matrices of the layers: unpool, rectify, transposed filters."""
    x = torch.randn(1, 2, 12, 12, dtype=torch.float64)

    def matrix(layer, shape):
        return torch.autograd.functional.jacobian(layer, torch.zeros(shape, dtype=torch.float64))

    with torch.no_grad():
        first = net.features[:3](x)
        pooled, switches = F.max_pool2d(first, 3, 2, ceil_mode=True, return_indices=True)
        second = net.features[4](pooled).relu()
    place = divmod(int(second[0, 5].argmax()), second.size(3))
    signal = torch.zeros_like(second)
    signal[0, 5, place[0], place[1]] = second[0, 5].max()
    back = torch.einsum("bcij,bcijdefg->defg", signal, matrix(net.features[4], pooled.shape))
    large = torch.zeros(1, 4, 36, dtype=torch.float64)
    for channel in range(4):
        for value, switch in zip(back[0, channel].flatten(), switches[0, channel].flatten(), strict=True):
            large[0, channel, switch] += value
    large = large.view(first.shape).relu()
    expected = torch.einsum("bcij,bcijdefg->defg", large, matrix(net.features[:2], x.shape))
    torch.testing.assert_close(deconvnet(net, x, "conv2", 5), expected)
    torch.testing.assert_close(deconvnet(net, x, "features.5", 5, place), expected)


@pytest.mark.parametrize("layer", ["pool1", "conv2", "pool2"])
def test_where_all_is_positive_it_is_the_gradient(net, layer):
    """No ReLU stops anything, so the reconstruction is the activation times its gradient."""
    for module in net.features:
        for value in (*module.parameters(), *module.buffers()):
            if value.is_floating_point():
                value.data.abs_().add_(0.1)
    net.features[1].running_mean.zero_()
    x = torch.rand(2, 2, 16, 16, dtype=torch.float64, requires_grad=True)
    maps = net.forward_stages(x, (layer,))[layer]
    maps[:, 3, 1, 0].pow(2).div(2).sum().backward()
    torch.testing.assert_close(deconvnet(net, x, layer, 3, (1, 0)), x.grad)


@pytest.mark.parametrize("name", ["alexnet", "zfnet", "vgg11_bn"])
def test_networks_of_the_papers(name):
    net = models.create(name, 2, hidden=4).eval()
    x = torch.rand(2, 3, 80, 80)
    layer = [feature.name for feature in net.feature_info if feature.name.startswith("conv")][2]
    with torch.no_grad():  # One that is not 0 everywhere, in both.
        channel = int(net.forward_stages(x, (layer,))[layer].amax((2, 3)).amin(0).argmax())
    found = deconvnet(net, x, layer, channel)
    assert found.shape == x.shape and found.flatten(1).any(1).all()
    each = torch.cat([deconvnet(net, x[i : i + 1], layer, channel) for i in range(2)])
    torch.testing.assert_close(found, each, rtol=1e-3, atol=1e-5)


def test_an_activation_reaches_its_receptive_field_alone(net):
    from fastcnn.visualize import receptive_field

    for index in (0, 4):  # So that it answers.
        net.features[index].weight.data.abs_().add_(0.1)
    net.features[1].running_mean.fill_(-1)
    x = torch.rand(1, 2, 40, 40, dtype=torch.float64)
    found = deconvnet(net, x, "conv2", 0, (4, 5))
    x1, y1, x2, y2 = receptive_field(net, "conv2", (40, 40)).box(4, 5, (40, 40))
    inside = found[:, :, y1:y2, x1:x2].clone()
    found[:, :, y1:y2, x1:x2] = 0
    assert not found.any() and inside.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("conv3", 0), "Chain has no layer 'conv3'; did you mean conv2"),
        (("conv2", 6), "conv2 has channels 0 to 5, got 6"),
        (("pool2", 0, (0, 2)), r"pool2's map is 2 x 2, got position \(0, 2\)"),
        (("features", 0), "features is not among the layers"),
    ],
)
def test_bad_arguments(net, arguments, message):
    with pytest.raises(ValueError, match=message):
        deconvnet(net, torch.rand(1, 2, 16, 16).double(), *arguments)


def test_networks_without_a_way_back():
    x = torch.rand(1, 3, 64, 64)
    with pytest.raises(ValueError, match=r"no way back through layer1.0, a BasicBlock"):
        deconvnet(models.create("resnet18", 2).eval(), x, "layer2", 0)
    with pytest.raises(ValueError, match=r"a chain of layers, which DenseNet is not|no way back"):
        deconvnet(models.create("densenet121", 2).eval(), x, "denseblock2", 0)
    with pytest.raises(ValueError, match=r"no way back through .*, a Fused"):
        deconvnet(models.create("vgg11_bn", 2, hidden=4).eval().fuse(), x, "conv2_1", 0)
