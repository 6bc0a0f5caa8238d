"""The shared layers and blocks, against their PyTorch twins and the papers' rules."""

import pytest
import torch
from torch import nn

from fastcnn import nn as fnn
from fastcnn.nn.blocks import make_divisible
from fastcnn.nn.init import init_weights


def test_roi_align_layer():
    layer = fnn.RoIAlign((2, 3), spatial_scale=0.5, sampling_ratio=2, aligned=True)
    wanted = "RoIAlign(output_size=(2, 3), spatial_scale=0.5, sampling_ratio=2, aligned=True)"
    assert repr(layer) == wanted and layer.state_dict() == {}
    # On a ramp every bin's mean is the ramp at the bin's centre; aligned coordinates are pixel centres + 0.5.
    ramp = torch.arange(12.0).expand(1, 1, 12, 12)
    found = layer(ramp, [torch.tensor([[4.0, 4.0, 16.0, 12.0]])])
    assert found.shape == (1, 1, 2, 3)
    torch.testing.assert_close(found[0, 0], torch.tensor([2.5, 4.5, 6.5]).expand(2, 3))


@pytest.mark.parametrize(
    ("channels", "wanted"), [(16, 16), (18, 24), (22.5, 24), (3, 8), (30, 32), (960 / 4, 240), (50.4, 48)]
)
def test_make_divisible(channels, wanted):
    assert make_divisible(channels) == wanted


@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_conv_norm_act_keeps_or_halves_the_map(side, kernel_size, stride):
    block = fnn.ConvNormAct(3, 5, kernel_size, stride)
    assert block(torch.rand(2, 3, side, side)).shape == (2, 5, -(-side // stride), -(-side // stride))
    kind = fnn.PointwiseConv2d if kernel_size == stride == 1 else nn.Conv2d
    assert [type(layer) for layer in block] == [kind, nn.BatchNorm2d, nn.ReLU]
    assert block[0].bias is None


def test_conv_norm_act_without_norm_or_activation():
    assert [type(layer) for layer in fnn.ConvNormAct(3, 5, norm=None, act=None)] == [nn.Conv2d]
    assert fnn.ConvNormAct(3, 5, norm=None)[0].bias is not None


def test_squeeze_excite_by_hand():
    torch.manual_seed(0)
    block = fnn.SqueezeExcite(6, 2).double()
    x = torch.randn(3, 6, 4, 5, dtype=torch.float64)
    squeezed = x.mean((2, 3))
    hidden = (squeezed @ block.fc1.weight.flatten(1).T + block.fc1.bias).clamp(min=0)
    gate = (hidden @ block.fc2.weight.flatten(1).T + block.fc2.bias).sigmoid()
    torch.testing.assert_close(block(x), x * gate[..., None, None])
    assert list(block.state_dict()) == ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]


def test_zero_residual_leaves_the_shortcut():
    x = torch.randn(2, 8, 6, 6)
    bottleneck = fnn.Bottleneck(8, 2).eval()
    nn.init.zeros_(bottleneck.bn3.weight)
    assert bottleneck.downsample is None
    assert torch.equal(bottleneck(x), x.relu())
    inverted = fnn.InvertedResidual(8, 24, 8).eval()
    nn.init.zeros_(inverted.block[-1][1].weight)
    assert torch.equal(inverted(x), x)
    assert not fnn.InvertedResidual(8, 24, 8, stride=2).use_shortcut
    assert not fnn.InvertedResidual(8, 24, 16).use_shortcut


def test_bottleneck_projects_where_the_shape_changes():
    assert fnn.Bottleneck(8, 2, stride=2).downsample is not None
    assert fnn.Bottleneck(16, 2).downsample is not None
    for stride_in_1x1, strides in ((False, (1, 2)), (True, (2, 1))):
        block = fnn.Bottleneck(8, 2, stride=2, stride_in_1x1=stride_in_1x1)
        assert (block.conv1.stride[0], block.conv2.stride[0]) == strides
        assert block(torch.rand(1, 8, 7, 7)).shape == (1, 8, 4, 4)


def test_inverted_residual_without_expansion():
    assert len(fnn.InvertedResidual(8, 8, 8).block) == 2
    assert len(fnn.InvertedResidual(8, 16, 8).block) == 3
    squeeze = fnn.InvertedResidual(8, 16, 8, squeeze_excite=lambda c, **kw: fnn.SqueezeExcite(c, 4, **kw))
    assert isinstance(squeeze.block[2], fnn.SqueezeExcite)


def test_initialisation():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(16, 64, 3, groups=2),
        nn.BatchNorm2d(64),
        nn.BatchNorm2d(3, affine=False),
        nn.Linear(512, 512),
    )
    nn.init.constant_(net[1].weight, 5)
    before = net[3].weight.clone()
    init_weights(net)
    # Fan-out is the output channels, of all groups or of one, times the kernel's area.
    assert net[0].weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    assert not net[0].bias.any() and torch.equal(net[1].weight, torch.ones(64)) and not net[1].bias.any()
    assert torch.equal(net[3].weight, before)
    init_weights(net, linear_std=0.01)
    assert net[3].weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not net[3].bias.any()
    init_weights(net, per_group=True)
    assert net[0].weight.std().item() == pytest.approx((2 / (64 / 2 * 9)) ** 0.5, rel=0.05)


@pytest.mark.parametrize("inplace", [False, True])
def test_relu6_is_torchs_and_keeps_what_a_gradient_needs(inplace):
    x = torch.tensor([-1.0, 0.0, 3.0, 6.0, 7.0, float("nan")], dtype=torch.float64, requires_grad=True)
    results = [layer(x + 0) for layer in (fnn.ReLU6(inplace), nn.ReLU6())]
    torch.testing.assert_close(*results, equal_nan=True)
    torch.testing.assert_close(*(torch.autograd.grad(r.nansum(), x)[0] for r in results))
    y = x.detach().clone()
    assert (fnn.ReLU6(inplace)(y) is y) == inplace
