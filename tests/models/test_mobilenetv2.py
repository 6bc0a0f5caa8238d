"""What the MobileNetV2 paper says beyond the registry walk."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastcnn import models
from fastcnn.models.classification.mobilenetv2 import LinearBottleneck
from fastcnn.nn import DepthwiseConv2d, fold_conv_norm
from fastcnn.nn.fused import FusedConv2d


def norm(x, bn):
    return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(
    ("channels", "out", "expansion", "stride", "shortcut"),
    [(8, 8, 6, 1, True), (8, 12, 6, 1, False), (8, 8, 6, 2, False), (8, 8, 1, 1, True), (12, 8, 1, 1, False)],
)
def test_block_by_hand(channels, out, expansion, stride, shortcut, fused, filled):
    """Table 1; the projection is linear, and the input is added only where its shape is kept (section 3.3)."""
    block = filled(LinearBottleneck(channels, out, expansion, stride, dtype=torch.float64))
    *expand, depthwise, project, last = block.conv
    x = torch.randn(2, channels, 9, 6, dtype=torch.float64)
    with torch.inference_mode():
        wanted = x
        assert len(expand) == (expansion > 1)
        for conv, bn, _ in expand:
            wanted = norm(F.conv2d(wanted, conv.weight), bn).clamp(0, 6)
        width = channels * expansion
        wanted = F.conv2d(wanted, depthwise[0].weight, stride=stride, padding=1, groups=width)
        wanted = F.conv2d(norm(wanted, depthwise[1]).clamp(0, 6), project.weight)
        wanted = norm(wanted, last) + (x if shortcut else 0)
        found = (fold_conv_norm(block) if fused else block)(x)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_fused_convolutions_do_the_activation():
    net = models.create("mobilenet_v2", device="meta").eval().fuse()
    depthwise = [m.activation for m in net.modules() if isinstance(m, DepthwiseConv2d)]
    assert depthwise == ["relu6"] * 17
    dense = [m.activation for m in net.modules() if isinstance(m, FusedConv2d)]
    assert (dense.count("relu6"), dense.count(None)) == (1 + 16 + 1, 17)
    assert not any(isinstance(m, nn.ReLU6) for m in net.modules())


def test_last_convolution_is_not_made_narrower():
    """Section 6.1: below 1 the multiplier leaves the last layer as it is."""
    widths = {mult: models.create("mobilenet_v2", device="meta", width_mult=mult) for mult in (0.35, 0.75, 1.4)}
    assert {mult: net.classifier[1].in_features for mult, net in widths.items()} == {0.35: 1280, 0.75: 1280, 1.4: 1792}


def test_dropout_is_an_option():
    assert models.create("mobilenet_v2", device="meta").classifier[0].p == 0.2
    assert models.create("mobilenet_v2", device="meta", dropout=0.5).classifier[0].p == 0.5


@pytest.mark.parametrize("width", [0, -1.0])
def test_bad_width(width):
    with pytest.raises(ValueError, match=f"width_mult must be positive, got {width}"):
        models.create("mobilenet_v2", device="meta", width_mult=width)


@pytest.mark.parametrize(
    ("flat", "nested"), [("mobilenetv2_050", "mobilenet_v2_x0_5"), ("mobilenetv2_140", "mobilenet_v2_x1_4")]
)
def test_timm_keys_name_the_same_network(flat, nested):
    """Tensor by tensor in the same order, so that what is one's is the other's."""
    first, second = (models.create(name, dtype=torch.float64).eval() for name in (flat, nested))
    state = first.state_dict()
    values = second.state_dict().values()
    assert [t.shape for t in state.values()] == [t.shape for t in values]
    first.load_state_dict(dict(zip(state, values, strict=True)))
    x = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    with torch.inference_mode():
        wanted = second(x)
        assert torch.equal(first(x), wanted)
        assert torch.equal(first.fuse()(x), second.fuse()(x))
    fused = [[m.activation for m in net.modules() if isinstance(m, DepthwiseConv2d)] for net in (first, second)]
    assert fused[0] == fused[1] == ["relu6"] * 17
