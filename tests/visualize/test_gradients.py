"""Grad-CAM and guided backpropagation against what they are on networks simple enough to see through."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastcnn import models
from fastcnn.visualize import grad_cam, guided_backprop


@pytest.fixture
def resnet():
    return models.create("resnet18", 7, dtype=torch.float64).eval()


def image(count=2, side=64):
    return torch.rand(count, 3, side, side, dtype=torch.float64)


def test_under_average_pooling_it_is_cam(resnet):
    """A linear head after a mean: the weights are the class's row over the map's area."""
    x = image()
    with torch.no_grad():
        maps, labels = resnet.forward_features(x), resnet(x).argmax(1)
        cam = (resnet.fc.weight[labels][:, :, None, None] * maps).sum(1).relu() / maps[0, 0].numel()
    torch.testing.assert_close(grad_cam(resnet, x), cam)
    assert cam.any()
    torch.testing.assert_close(grad_cam(resnet, x, target=labels), cam)
    each = torch.cat([grad_cam(resnet, x[i : i + 1], target=int(labels[i])) for i in range(2)])
    torch.testing.assert_close(each, cam)


def test_deeper_down_it_is_the_gradient_by_differences():
    """Mean of a channel's gradient = derivative of the score when all of the channel rises alike."""
    net = models.create("mobilenet_v2", 5, width_mult=0.35, dtype=torch.float64).eval()
    x, layer, step = image(1), net.feature_info[-2].name, 1e-6
    chain = net.feature_chain
    with torch.no_grad():
        maps = net.forward_stages(x, (layer,))[layer]
        moves = step * torch.eye(maps.size(1), dtype=torch.float64)[:, :, None, None]
        net.feature_chain = chain[-1:]  # From that map on.
        slopes = (net.forward_head(net.forward_features(maps + moves))[:, 3]
                  - net.forward_head(net.forward_features(maps - moves))[:, 3]) / (2 * step)
        net.feature_chain = chain
    expected = (slopes[:, None, None] / maps[0, 0].numel() * maps[0]).sum(0).relu()
    assert expected.any()
    torch.testing.assert_close(grad_cam(net, x, layer, 3)[0], expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("name", ["alexnet", "vgg11_bn", "mobilenet_v3_small", "shufflenet_v2_x0_5", "densenet121"])
def test_any_classifier(name):
    small = {"hidden": 8} if name in ("alexnet", "vgg11_bn") else {}
    net = models.create(name, 5, **small).eval().requires_grad_(False)
    x = torch.rand(1, 3, 67, 96)
    for feature in (None, net.feature_info[len(net.feature_info) // 2].name):
        heat = grad_cam(net, x, feature)
        shape = net.forward_stages(x, (feature or net.feature_info[-1].name,)).popitem()[1].shape
        assert heat.shape == (1, *shape[2:]) and heat.isfinite().all() and (heat >= 0).all()
        assert torch.equal(heat, grad_cam(net, x, feature))
    assert grad_cam(net, x, upsample=True).shape == (1, 67, 96)
    assert not any(module._forward_hooks for module in net.modules())


def test_fused_networks_have_the_same_map():
    net = models.create("mobilenet_v2", 5, width_mult=0.35).eval()
    x = torch.rand(1, 3, 64, 64)
    layer = net.feature_info[2].name
    expected = grad_cam(net, x, layer, 2)
    with torch.no_grad():
        torch.testing.assert_close(grad_cam(net.fuse(), x, layer, 2), expected, rtol=1e-3, atol=1e-6)


class Segmenter(models.ConvNet):
    """Logits (N, classes, H, W): a convolution, a ReLU, a 1x1 convolution."""

    classifier_path = "last"
    feature_chain = (models.Feature("first", 4, 1, ("first", "relu")),)

    def __init__(self):
        super().__init__(models.Row(source="here", task="segmentation", num_classes=3, in_channels=1))
        self.first, self.relu, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 3, 1)

    def forward_head(self, features):
        return self.last(features)


def test_segmentation_is_of_the_chosen_pixels():
    net = Segmenter().double().eval()
    x = torch.rand(2, 1, 6, 8, dtype=torch.float64)
    maps = net.forward_features(x).detach()
    for pixels in (torch.rand(6, 8) > 0.5, torch.rand(2, 6, 8) > 0.5):
        # The mean over the map of a gradient that is 1 / chosen at chosen pixels: the row over the map's area.
        expected = (net.last.weight[1] / 48 * maps).sum(1).relu().detach()
        torch.testing.assert_close(grad_cam(net, x, target=1, pixels=pixels), expected)
    labels = net(x).mean((2, 3)).argmax(1)
    torch.testing.assert_close(grad_cam(net, x), grad_cam(net, x, target=labels))
    one = torch.zeros(6, 8, dtype=torch.bool)
    one[2, 3] = True
    best = net(x)[:, :, 2, 3].argmax(1)
    torch.testing.assert_close(grad_cam(net, x, pixels=one), grad_cam(net, x, target=best, pixels=one))
    with pytest.raises(ValueError, match=r"pixels must be bool \(H, W\) of the logits \(2, 3, 6, 8\), got"):
        grad_cam(net, x, pixels=one[:4])
    with pytest.raises(ValueError, match="one or more of each image"):
        grad_cam(net, x, pixels=one ^ one)


def test_guided_backprop_by_hand():
    """Two ReLUs: the gradient passes where the input was positive and the gradient is."""
    net = Segmenter().double().eval()
    x = torch.rand(2, 1, 6, 8, dtype=torch.float64)
    before = F.conv2d(x, net.first.weight, net.first.bias, padding=1)
    coming = (net.last.weight[2] / 48).expand_as(before).relu() * (before > 0)
    expected = F.conv_transpose2d(coming, net.first.weight, padding=1)
    torch.testing.assert_close(guided_backprop(net, x, 2), expected.detach())
    nn.init.constant_(net.last.weight, 1.0)  # Nothing negative to stop.
    x.requires_grad_()
    net(x).mean((2, 3))[:, 2].sum().backward()
    torch.testing.assert_close(guided_backprop(net, x, 2), x.grad)
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "layer44"}, "ResNet has no layer 'layer44'; did you mean layer4"),
        ({"layer": "fc"}, r"a Linear gives no map \(N, C, H, W\) but \(2, 7\)"),
        ({"target": 7}, "target must be labels from 0 to 6, got 7"),
        ({"target": 0.5}, "target must be labels"),
        ({"pixels": torch.ones(2, 2, dtype=torch.bool)}, "pixels must be"),
    ],
)
def test_bad_arguments(resnet, options, message):
    with pytest.raises(ValueError, match=message):
        grad_cam(resnet, image(), **options)
    assert not any(module._forward_hooks for module in resnet.modules())


def test_bad_networks(resnet):
    with pytest.raises(ValueError, match=r"ResNet takes \(N, 3, H, W\), got \(1, 1, 8, 8\)"):
        grad_cam(resnet, torch.rand(1, 1, 8, 8))
    with pytest.raises(ValueError, match="training mode"):
        grad_cam(resnet.train(), image())
    with pytest.raises(ValueError, match="logits"):
        grad_cam(models.create("resnet18", features_only=True).eval(), image(1).float())
    with pytest.raises(ValueError, match=r"no nn\.ReLU"):
        guided_backprop(models.create("lenet5").eval(), torch.rand(1, 1, 32, 32))
