"""What the MobileNet paper and its squeeze-and-excitation variant say beyond the registry walk."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastcnn import models
from fastcnn.nn import DepthwiseConv2d, SqueezeExcite
from fastcnn.nn.fused import FusedConv2d


def layers_by_type():
    macs, params = Counter(), Counter()
    for layer in models.summary("mobilenet_v1").layers:
        kinds = {"conv_stem": "3x3", "conv_dw": "dw", "conv_pw": "1x1", "classifier": "fc"}
        kind = kinds.get(layer.path.rpartition(".")[2])
        if kind:
            macs[kind] += layer.macs
            params[kind] += layer.params
    return macs, params


def test_resources_per_layer_type():
    """Table 2, whose 1.19 % of the first convolution is 1.91 % with its digits swapped: its column sums to 99.29."""
    for found, wanted in zip(
        layers_by_type(),
        (
            {"1x1": 94.86, "dw": 3.06, "3x3": 1.91, "fc": 0.18},
            {"1x1": 74.59, "dw": 1.06, "3x3": 0.02, "fc": 24.33},
        ),
        strict=True,
    ):
        total = sum(found.values())
        assert {kind: 100 * count / total for kind, count in found.items()} == pytest.approx(wanted, abs=0.025)


def test_there_are_28_layers():
    net = models.create("mobilenet_v1", device="meta")
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in net.modules()) == 28


def test_a_separable_block_costs_what_section_3_says():
    """1 / N + 1 / D_K^2 of a standard convolution's multiply-adds."""
    layers = {layer.path: layer for layer in models.summary("mobilenet_v1").layers}
    block = layers["blocks.3.1.conv_dw"], layers["blocks.3.1.conv_pw"]
    standard = models.count_macs(nn.Conv2d(512, 512, 3, padding=1, bias=False), (512, 14, 14))
    assert sum(layer.macs for layer in block) / standard == pytest.approx(1 / 512 + 1 / 9, rel=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_block_by_hand(stride, filled):
    net = filled(models.create("mobilenet_v1_x0_25", dtype=torch.float64))
    block = net.blocks[1][0 if stride == 2 else 1]
    x = torch.randn(2, block.conv_dw.in_channels, 9, 7, dtype=torch.float64)

    def norm(x, bn):
        return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias)

    wanted = F.conv2d(x, block.conv_dw.weight, stride=stride, padding=1, groups=x.shape[1])
    wanted = F.conv2d(norm(wanted, block.bn1).clamp(0, 6), block.conv_pw.weight)
    torch.testing.assert_close(block(x), norm(wanted, block.bn2).clamp(0, 6))


def test_squeeze_excite_follows_every_pointwise_convolution():
    net = models.create("se_mobilenet_v1", device="meta")
    found = [(m.fc1.in_channels, m.fc1.out_channels) for m in net.modules() if isinstance(m, SqueezeExcite)]
    wanted = [m.conv_pw.out_channels for stage in net.blocks for m in stage]
    assert len(wanted) == 13
    assert found == [(channels, channels // 16) for channels in wanted]


def test_cost_of_squeeze_excite():
    """569 to 572 million multiply-adds, an addition for every element that is pooled counting as one."""
    counted = models.summary("se_mobilenet_v1")
    pooled = sum(
        layer.output_shape[1] * layer.output_shape[2] * layer.output_shape[3]
        for layer in counted.layers
        if layer.path.endswith("act2")
    )
    assert counted.macs + pooled == pytest.approx(571.9e6, rel=1e-4)


def test_open_gates_leave_mobilenet(filled):
    plain = filled(models.create("mobilenet_v1", dtype=torch.float64))
    net = models.create("se_mobilenet_v1", dtype=torch.float64).eval()
    missing = net.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert len(missing) == 13 * 4 and all(".se." in key for key in missing)
    for module in net.modules():
        if isinstance(module, SqueezeExcite):
            nn.init.zeros_(module.fc2.weight)
            nn.init.constant_(module.fc2.bias, 40)
    x = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(net(x), plain(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("act", "kernel"), [(nn.ReLU6, "relu6"), (nn.ReLU, "relu"), (nn.Hardswish, "hardswish")])
def test_fused_convolutions_do_the_activation(act, kernel, filled):
    net = filled(models.create("mobilenet_v1_x0_25", act=act, dtype=torch.float64))
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    with torch.inference_mode():
        wanted = net(x)
        found = net.fuse()(x)
    assert (found - wanted).norm() <= 1e-12 * wanted.norm()
    for kind, count in ((DepthwiseConv2d, 13), (FusedConv2d, 1 + 13)):
        assert [m.activation for m in net.modules() if isinstance(m, kind)] == [kernel] * count
    assert not any(isinstance(m, act) for m in net.modules())


def test_dropout_is_an_option():
    assert models.create("mobilenet_v1", device="meta", dropout=0.3).dropout.p == 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width_mult": 0}, "width_mult must be positive, got 0"),
        ({"se_reduction": 0}, "se_reduction must be at least 1 or None, got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        models.create("mobilenet_v1", device="meta", **options)


def test_untrained_network_passes_its_input_on():
    """Depthwise filters are drawn for the one channel that they reach; for all channels signals would die out."""
    torch.manual_seed(0)
    net = models.create("mobilenet_v1_x0_25").eval()
    with torch.inference_mode():
        maps = net.forward_features(torch.randn(2, 3, 64, 64))
    assert maps.std() > 1e-4  # 1e-14 otherwise.
