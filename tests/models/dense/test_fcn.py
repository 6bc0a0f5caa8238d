"""FCN on VGG: what it takes of a classifier, how it upsamples; and options of segmentation networks that are bad."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastcnn import models

SMALL = (("width_mult", 0.125), ("hidden", 16))


def test_the_first_scores_are_zero():
    net = models.create("fcn8s_vgg11_bn_x0_25").eval()
    with torch.no_grad():
        assert not net(torch.rand(1, 3, 40, 50)).any()


@pytest.mark.parametrize("hidden_norm", [True, False])
def test_takes_every_hidden_weight_of_a_classifier(tmp_path, hidden_norm):
    vgg = models.create("vgg11_bn", **dict(SMALL))
    torch.save(vgg.state_dict(), tmp_path / "vgg.pth")
    options = {"backbone_options": SMALL, "backbone_weights": tmp_path / "vgg.pth", "hidden_norm": hidden_norm}
    net = models.create("fcn8s_vgg11_bn_x0_25", **options)
    for key, value in vgg.features.state_dict().items():
        assert torch.equal(net.backbone.state_dict()[key], value)
    linears = [layer for layer in vgg.classifier if isinstance(layer, nn.Linear)][:-1]
    convs = [layer for layer in net.fc if isinstance(layer, nn.Conv2d)]
    for linear, conv in zip(linears, convs, strict=True):
        assert torch.equal(conv.weight.flatten(1), linear.weight) and torch.equal(conv.bias, linear.bias)
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in net.fc) == hidden_norm


@pytest.mark.parametrize(("net", "maps"), [("fcn32s_fixed_vgg16", 1), ("fcn16s_vgg16", 2), ("fcn8s_vgg16", 3)])
def test_scores_of_all_maps_are_added(net, maps, filled):
    """Away from the border, where the kernels meet zeros, as bilinear resizing adds them."""
    net = filled(models.create(net, backbone_options=SMALL, dtype=torch.float64))
    for upscore in net.upscores:
        upscore.reset_parameters()
    x = torch.rand(1, 3, 160, 192, dtype=torch.float64)
    assert len(net.scores) == maps == len(net.upscores)
    with torch.no_grad():
        found = net(x)
        features = net.forward_stages(x, net.row.features)
        wanted = 0
        for name, score in zip(reversed(net.row.features), net.scores, strict=True):
            map_ = features[name]
            wanted = wanted + score(net.fc(map_) if name == "pool5" else map_)
            stride = {"pool5": 32, "pool4": 16, "pool3": 8}[name]
            assert map_.shape[2:] == (160 // stride, 192 // stride)
            last = name == net.row.features[0]
            factor = stride if last else 2
            wanted = F.interpolate(wanted, scale_factor=factor, mode="bilinear", align_corners=False)
    inner = (..., slice(48, -48), slice(48, -48))
    torch.testing.assert_close(found[inner], wanted[inner])


@pytest.mark.parametrize(
    ("net", "options", "message"),
    [
        ("fcn8s_vgg16", {"output_stride": 8}, "an FCN on a VGG has no output_stride and no aux_classifier"),
        ("fcn8s_vgg16", {"features": ("pool4",)}, r"features must end with 'pool5', got \('pool4',\)"),
        ("fcn8s_vgg16", {"features": ()}, r"features must be names, one or more, got \(\)"),
        ("fcn_resnet50", {"output_stride": 3}, "stride must be one of 2, 4, 8, 16, 32 of this ResNet, got 3"),
        ("fcn_resnet50", {"aux_classifier": True, "aux_feature": ""}, "aux_classifier needs an aux_feature"),
        ("deeplabv3_mobilenet_v2", {"rates": (0,)}, r"rates and hidden must be at least 1, got \(0,\) and 256"),
        ("lraspp_mobilenet_v3_large", {"hidden": 0}, "hidden must be at least 1, got 0"),
    ],
)
def test_bad_options(net, options, message):
    with pytest.raises(ValueError, match=message):
        models.create(net, device="meta", **options)


def test_auxiliary_classifiers_are_for_training():
    net = models.create("fcn_resnet50", 5, backbone_options=(("layers", (1, 1, 1, 1)),), aux_classifier=True)
    x = torch.rand(2, 3, 33, 40)
    with torch.no_grad():
        logits, auxiliary = net(x)
        assert logits.shape == auxiliary.shape == (2, 5, 33, 40)
        assert net.eval()(x).shape == (2, 5, 33, 40)
    assert net.replace_head(3).aux_classifier[4].out_channels == 3
    with pytest.raises(ValueError, match="has no head"):
        models.create("fcn_resnet50", features_only=True, device="meta").replace_head(3)


def test_features_are_the_backbones():
    net = models.create("deeplabv3_mobilenet_v2", features_only=True, device="meta")
    assert [each[:3] for each in net.feature_info][-1] == ("features.17", 320, 16)
    maps = net(torch.empty(1, 3, 64, 96, device="meta"))
    assert maps["features.17"].shape == (1, 320, 4, 6)


def test_dilations_follow_the_output_stride():
    for stride, rates in ((16, (6, 12, 18)), (8, (12, 24, 36))):
        net = models.create("deeplabv3_mobilenet_v1", output_stride=stride, device="meta")
        assert tuple(conv[0].dilation[0] for conv in net.classifier[0].convs[1:4]) == rates
        assert net.feature_info[-1].stride == stride
