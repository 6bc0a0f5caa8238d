"""What the SqueezeNet paper says beyond the registry walk."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastcnn import models
from fastcnn.models.classification.squeezenet import Fire, Widths
from fastcnn.nn import PointwiseConv2d

VARIANTS = ["squeezenet", "squeezenet_simple_bypass", "squeezenet_complex_bypass"]


def fires(net):
    return [m for m in net.modules() if isinstance(m, Fire)]


def test_size():
    """4.8 MB of float32, 50 times less than AlexNet's 240 MB."""
    megabytes = models.summary("squeezenet").params * 4 / 2**20
    assert megabytes == pytest.approx(4.8, abs=0.05)
    assert 240 / megabytes == pytest.approx(50, rel=0.01)


def test_flops_are_two_for_each_multiply_add():
    """The 1700 million that MobileNet's paper gives are the only figure of its kind that counts both."""
    assert 2 * models.count_macs("squeezenet") == pytest.approx(1700e6, rel=0.025)


def test_1_1_computes_2_4_times_less():
    less = models.count_macs("squeezenet1_0") / models.count_macs("squeezenet1_1")
    assert less == pytest.approx(2.4, rel=0.03)


@pytest.mark.parametrize("variant", VARIANTS)
def test_squeeze_layers_are_narrower_than_what_they_feed(variant):
    """Section 3.2, and section 5.1: from 16 of 128 channels to 64 of 512."""
    found = [
        (fire.squeeze.out_channels, fire.expand1x1.out_channels + fire.expand3x3.out_channels)
        for fire in fires(models.create(variant, device="meta"))
    ]
    assert found == [(16, 128)] * 2 + [(32, 256)] * 2 + [(48, 384)] * 2 + [(64, 512)] * 2
    assert all(squeeze < expand for squeeze, expand in found)


def test_where_the_bypasses_are():
    """Figure 2: around fire 3, 5, 7 and 9 of 2 to 9; complex ones around the others as well."""
    kinds = [[type(fire.bypass) for fire in fires(models.create(name, device="meta"))] for name in VARIANTS]
    none, same, conv = type(None), nn.Identity, PointwiseConv2d
    assert kinds == [[none] * 8, [none, same] * 4, [conv, same] * 4]


@pytest.mark.parametrize(
    ("channels", "bypass"), [(6, None), (6, "simple"), (6, "complex"), (12, None), (12, "simple"), (12, "complex")]
)
def test_fire_by_hand(channels, bypass, filled):
    fire = filled(Fire(channels, Widths(3, 4, 8), bypass, dtype=torch.float64))
    x = torch.randn(2, channels, 9, 6, dtype=torch.float64)
    squeezed = F.conv2d(x, fire.squeeze.weight, fire.squeeze.bias).relu()
    parts = [
        F.conv2d(squeezed, fire.expand1x1.weight, fire.expand1x1.bias).relu(),
        F.conv2d(squeezed, fire.expand3x3.weight, fire.expand3x3.bias, padding=1).relu(),
    ]
    wanted = torch.cat(parts, 1)
    if bypass and channels == 12:
        wanted = wanted + x
    elif bypass == "complex":
        wanted = wanted + F.conv2d(x, fire.bypass.weight, fire.bypass.bias)
    torch.testing.assert_close(fire(x), wanted, rtol=1e-12, atol=1e-12)


def test_simple_bypass_takes_the_weights_of_the_plain_network(filled):
    plain = filled(models.create("squeezenet", dtype=torch.float64))
    net = models.create("squeezenet_simple_bypass", dtype=torch.float64).eval()
    net.load_state_dict(plain.state_dict())
    x = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    with torch.inference_mode():
        bare = [plain.features[:i](x) for i in (4, 5)]
        torch.testing.assert_close(net.features[:5](x), bare[0] + bare[1])


def test_initial_weights():
    """The last convolution is drawn otherwise than the rest, and again so when it is replaced."""
    torch.manual_seed(0)
    net = models.create("squeezenet")
    weight = net.features[12].expand3x3.weight
    bound = (6 / (64 * 9)) ** 0.5
    assert 0.98 * bound < weight.abs().max() <= bound
    assert not any(m.bias.any() for m in net.modules() if isinstance(m, nn.Conv2d))
    last = net.replace_head(100).classifier[1]
    assert last.weight.std().item() == pytest.approx(0.01, rel=0.03)
    assert not last.bias.any()


def test_dropout_is_an_option():
    assert models.create("squeezenet", device="meta").classifier[0].p == 0.5
    assert models.create("squeezenet", device="meta", dropout=0.1).classifier[0].p == 0.1


def test_bad_bypass():
    with pytest.raises(ValueError, match="bypass must be 'simple', 'complex' or None, got 'both'"):
        models.create("squeezenet", device="meta", bypass="both")
