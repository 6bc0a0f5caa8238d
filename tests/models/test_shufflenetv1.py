"""What the ShuffleNet paper and its squeeze-and-excitation variant say beyond the registry walk."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastcnn import models
from fastcnn.models.classification.shufflenetv1 import ShuffleUnit
from fastcnn.nn import ChannelShuffle, SqueezeExcite, fold_conv_norm
from fastcnn.nn.grouped import FusedGroupedConv2d


@pytest.mark.parametrize(
    ("variant", "printed"),
    [
        # Table 1, and table 5; with 8 groups they disagree: 137 and 140.
        ("shufflenet_v1_g1", 143),
        ("shufflenet_v1_g2", 140),
        ("shufflenet_v1_g3", 137),
        ("shufflenet_v1_g4", 133),
        ("shufflenet_v1_g8", 137),
        ("shufflenet_v1_g8", 140),
        ("shufflenet_v1_x0_5_g4", 38),
        ("shufflenet_v1_x0_5_shallow_g3", 40),
        ("shufflenet_v1_x1_5_g3", 292),
        ("shufflenet_v1_x2_0_g3", 524),
        ("se_shufflenet_v1_x2_0_g3", 527),
    ],
)
def test_published_complexity(variant, printed):
    assert models.count_macs(variant) / 1e6 == pytest.approx(printed, rel=0.015)


@pytest.mark.parametrize(
    ("variant", "mobilenet"),
    [
        ("shufflenet_v1_x2_0_g3", "mobilenet_v1"),
        ("shufflenet_v1_x1_5_g3", "mobilenet_v1_x0_75"),
        ("shufflenet_v1_g8", "mobilenet_v1_x0_5"),
        ("shufflenet_v1_x0_5_g4", "mobilenet_v1_x0_25"),
    ],
)
def test_costs_less_than_the_mobilenet_it_is_compared_with(variant, mobilenet):
    assert models.count_macs(variant) < models.count_macs(mobilenet)


@pytest.mark.parametrize(("variant", "layers"), [("shufflenet_v1_g3", 50), ("shufflenet_v1_x0_5_shallow_g3", 26)])
def test_depth(variant, layers):
    net = models.create(variant, device="meta")
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in net.modules()) == layers


def norm(x, bn):
    return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias)


def unit_by_hand(unit, x, groups, stride):
    branch = unit.branch
    out = F.conv2d(x, branch.conv1.weight, groups=x.shape[1] // branch.conv1.weight.shape[1])
    out = norm(out, branch.bn1).relu()
    n, c, h, w = out.shape
    out = out.reshape(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)
    out = norm(F.conv2d(out, branch.conv2.weight, stride=stride, padding=1, groups=c), branch.bn2)
    out = norm(F.conv2d(out, branch.conv3.weight, groups=groups), branch.bn3)
    if stride == 1:
        return (x + out).relu()
    return torch.cat([F.avg_pool2d(x, 3, 2, 1), out], 1).relu()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 3, 4, 8])
@pytest.mark.parametrize(("channels", "stride", "first_groups"), [(96, 1, None), (24, 2, None), (24, 2, 1)])
def test_unit_by_hand(channels, stride, first_groups, groups, fused, filled):
    unit = filled(ShuffleUnit(channels, 96, groups, stride, first_groups=first_groups, dtype=torch.float64))
    x = torch.randn(2, channels, 9, 6, dtype=torch.float64)
    with torch.inference_mode():
        wanted = unit_by_hand(unit, x, groups, stride)
        found = (fold_conv_norm(unit) if fused else unit)(x)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_training_normalises_before_the_shuffle():
    """As the parts would one by one: the order matters to the norm's parameters, which are not shuffled."""
    torch.manual_seed(0)
    unit = ShuffleUnit(24, 24, 3, dtype=torch.float64)
    nn.init.uniform_(unit.branch.bn1.weight, 0.5, 2)
    x = torch.randn(4, 24, 5, 5, dtype=torch.float64)
    seen = {}
    unit.branch.conv2.register_forward_pre_hook(lambda module, args: seen.update(input=args[0]))
    unit(x)
    out = F.conv2d(x, unit.branch.conv1.weight, groups=3)
    bn = unit.branch.bn1
    out = F.batch_norm(out, None, None, bn.weight, bn.bias, training=True).relu()
    torch.testing.assert_close(seen["input"], F.channel_shuffle(out, 3))


@pytest.mark.parametrize(("variant", "groups"), [("shufflenet_v1_g3", 3), ("shufflenet_v1_g8", 8)])
def test_fused_units_convolve_activate_and_shuffle_in_one_op(variant, groups):
    net = models.create(variant, device="meta").eval().fuse()
    units = [m for m in net.modules() if isinstance(m, ShuffleUnit)]
    assert len(units) == 16
    for unit in units:
        conv = unit.branch.conv1
        assert (type(conv), conv.activation, conv.shuffle_groups) == (FusedGroupedConv2d, "relu", groups)
        assert (unit.branch.conv3.activation, unit.branch.conv3.shuffle_groups) == (None, 1)
    assert not any(isinstance(m, ChannelShuffle | nn.BatchNorm2d) for m in net.modules())
    assert [unit.branch.conv1.groups for unit in units] == [1] + [groups] * 15


@pytest.mark.parametrize(("plain", "added"), [("shufflenet_v1_g3", 1.9e6), ("shufflenet_v1_x2_0_g3", 5.0e6)])
def test_cost_of_squeeze_excite(plain, added):
    """In the 13 units of stride 1; an addition for every element that is pooled counts as one."""
    net = models.create(f"se_{plain}", device="meta")
    gates = {path: m for path, m in net.named_modules() if isinstance(m, SqueezeExcite)}
    assert len(gates) == 13 and not any(".0." in path for path in gates)
    assert all(m.fc1.out_channels == m.fc1.in_channels // 16 for m in gates.values())
    counted = models.summary(net)
    pooled = [x.output_shape[1:] for x in counted.layers if x.path.removesuffix("bn3") + "se" in gates]
    assert len(pooled) == 13
    more = counted.macs + sum(c * h * w for c, h, w in pooled) - models.count_macs(plain)
    assert more == pytest.approx(added, rel=0.025)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 0}, "groups must be at least 1, got 0"),
        ({"groups": 5}, "channels 240 must be more than stem_channels 24, and groups 5 must divide both"),
        ({"stem_channels": 240}, "channels 240 must be more than stem_channels 240"),
        ({"units": (4, 0, 4)}, r"units must be positive ints, got \(4, 0, 4\)"),
        ({"se_reduction": 0}, "se_reduction must be at least 1 or None, got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        models.create("shufflenet_v1_g3", device="meta", **options)
