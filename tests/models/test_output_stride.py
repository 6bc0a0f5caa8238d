"""Strides for dilations, and receptive fields."""

import pytest
import torch
from torch import nn

from fastcnn import models
from fastcnn.visualize import receptive_field

NETS = {
    "resnet18": {},
    "resnet50": {"layers": (1, 2, 1, 1), "width_per_group": 8},
    "mobilenet_v1_x0_25": {},
    "mobilenet_v2_x0_35": {},
    "vgg11_bn": {"width_mult": 0.125, "hidden": 8},
}


def body(network, **options):
    net = models.create(network, dtype=torch.float64, **NETS.get(network, {}), **options)
    return net.keep_features(net.feature_info[-1].name).eval()


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("network", NETS)
def test_the_coarse_map_is_in_the_fine_one(network, stride, filled):
    """At every place, the border's too: sides are multiples of 32."""
    net, finer = body(network), models.set_output_stride(body(network), stride)
    filled(net)
    finer.load_state_dict(net.state_dict())
    x = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    assert (net.feature_info[-1].stride, finer.feature_info[-1].stride) == (32, stride)
    with torch.inference_mode():
        wanted, found = net.forward_features(x), finer.forward_features(x)
    assert found.shape[2:] == (64 // stride, 96 // stride)
    torch.testing.assert_close(found[..., :: 32 // stride, :: 32 // stride], wanted)
    assert (found.std((2, 3)) > 0).any()


def test_strides_of_all_features():
    net = models.set_output_stride(models.create("efficientnet_b0", features_only=True, device="meta"), 8)
    maps = net(torch.empty(1, 3, 96, 128, device="meta"))
    assert [each.stride for each in net.feature_info] == [2, 4, 8, 8, 8]
    assert [map_.shape[2:] for map_ in maps.values()] == [(96 // s, 128 // s) for s in (2, 4, 8, 8, 8)]


def test_a_classifier_still_classifies():
    net = models.set_output_stride(models.create("mobilenet_v3_large", device="meta"), 16)
    assert net(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 1000)


def test_is_the_option_of_resnet():
    holes = {"replace_stride_with_dilation": (False, True, True)}
    net, wanted = models.set_output_stride(body("resnet50"), 8), body("resnet50", **holes)
    pairs = zip(net.modules(), wanted.modules(), strict=True)
    convs = [(a, b) for a, b in pairs if isinstance(a, nn.Conv2d)]
    assert len(convs) > 15
    for a, b in convs:
        assert (a.stride, a.padding, a.dilation) == (b.stride, b.padding, b.dilation)


def test_in_steps_as_at_once():
    once, steps = models.set_output_stride(body("vgg11_bn"), 4), body("vgg11_bn")
    for stride in (16, 8, 4):
        models.set_output_stride(steps, stride)
    for a, b in zip(once.modules(), steps.modules(), strict=True):
        if isinstance(a, nn.Conv2d | nn.MaxPool2d):
            assert (a.stride, a.padding, a.dilation) == (b.stride, b.padding, b.dilation)
    assert once.feature_info == steps.feature_info


@pytest.mark.parametrize(
    ("network", "stride", "message"),
    [
        ("resnet18", 12, "stride must be one of 2, 4, 8, 16, 32 of this ResNet, got 12"),
        ("densenet121", 16, "features.transition3.pool, a AvgPool2d, cannot be dilated"),
        ("resnet18_a", 8, "layer3.0.downsample, a ZeroPadShortcut, cannot be dilated"),
    ],
)
def test_what_cannot_be(network, stride, message):
    net = models.create(network, device="meta")
    chain = net.feature_chain
    with pytest.raises(ValueError, match=message):
        models.set_output_stride(net, stride)
    assert net.feature_chain == chain and all(
        m.dilation in (1, (1, 1)) for m in net.modules() if hasattr(m, "dilation")
    )
    with pytest.raises(ValueError, match="this ResNet is fused: set its output stride before"):
        models.set_output_stride(models.create("resnet18", device="meta").eval().fuse(), 8)


def field_of(net):
    """Side and stride of the last map's receptive field."""
    down, across = receptive_field(net.eval())
    assert down == across
    return down.last - down.first + 1, down.stride


@pytest.mark.parametrize(
    ("network", "feature", "found"),
    [
        ("vgg16", "conv3_3", (40, 4)),
        ("vgg16", "pool5", (212, 32)),
        ("resnet18", "layer4", (435, 32)),
        ("resnet50_v1", "layer4", (483, 32)),
        ("resnet101_v1", "layer4", (1027, 32)),
    ],
)
def test_receptive_field_of_networks(network, feature, found):
    """Published of VGG-16 and of ResNets whose first 1x1 convolutions have the strides."""
    net = models.create(network, features_only=feature, device="meta")
    assert field_of(net) == found


def test_receptive_field_stays_with_the_output_stride():
    for network in ("vgg16", "resnet18"):
        net = models.create(network, features_only=True, device="meta")
        size, _ = field_of(net)
        assert field_of(models.set_output_stride(net, 8)) == (size, 8)
