"""ResNets and plain networks: He et al., Deep Residual Learning for Image Recognition, CVPR 2016."""

import re
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastcnn import models
from fastcnn.nn.residual import BasicBlock, Bottleneck, ResidualBlock, ZeroPadShortcut


def blocks(net):
    return [module for module in net.modules() if isinstance(module, ResidualBlock)]


@pytest.mark.parametrize(
    ("network", "depth"),
    [
        ("resnet18", 18),
        ("resnet34_c", 34),
        ("plain18", 18),
        ("plain34", 34),
        ("resnet50", 50),
        ("resnet101_v1", 101),
        ("resnet152", 152),
        ("resnet200", 200),
        ("cifar_plain20", 20),
        ("cifar_plain56", 56),
        ("cifar_resnet20", 20),
        ("cifar_resnet56", 56),
        ("resnext101_64x4d", 101),
        ("seresnet50", 50),
        ("legacy_seresnext26_32x4d", 26),
        ("legacy_senet154", 154),
    ],
)
def test_depth_is_that_of_the_name(network, depth):
    """Layers with weights on the way through every branch; projections and squeeze-excite are beside it."""
    layers = (
        path
        for path, module in models.create(network, device="meta").named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    )
    assert len([path for path in layers if not re.search(r"\.(downsample|se|se_module)\.", path)]) == depth


@pytest.mark.parametrize("plain", ["plain18", "plain34", "cifar_plain20"])
def test_shortcuts_a_add_no_parameter_to_the_plain_network(plain):
    residual = plain.replace("plain", "resnet") + ("" if plain.startswith("cifar") else "_a")
    shapes = [
        {key: value.shape for key, value in models.create(each, device="meta").state_dict().items()}
        for each in (plain, residual)
    ]
    assert shapes[0] == shapes[1]
    assert models.summary(plain).macs == models.summary(residual).macs


@pytest.mark.parametrize(
    ("network", "zeros", "projections"),
    [
        ("resnet34", 0, 3),
        ("resnet34_a", 3, 0),
        ("resnet34_c", 0, 16),
        ("plain34", 0, 0),
        ("resnet50", 0, 4),
        ("cifar_resnet20", 2, 0),
    ],
)
def test_shortcuts(network, zeros, projections):
    net = models.create(network, device="meta")
    found = [block.downsample for block in blocks(net) if block.downsample is not None]
    assert sum(isinstance(each, ZeroPadShortcut) for each in found) == zeros
    assert len(found) == zeros + projections


def test_zero_padding_by_hand():
    x = torch.arange(1.0, 16).reshape(1, 1, 3, 5)
    out = ZeroPadShortcut(1, 3, stride=2)(x)
    assert out.tolist() == [[[[1, 3, 5], [11, 13, 15]], [[0] * 3] * 2, [[0] * 3] * 2]]


def filled_block(block):
    torch.manual_seed(0)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(value)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return block.double().eval()


def conv_norm(x, conv, norm, stride=1):
    x = F.conv2d(x, conv.weight, None, stride, conv.weight.shape[-1] // 2)
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)


@torch.no_grad()
@pytest.mark.parametrize("shortcut", ["A", "B", "C", None])
def test_basic_block_by_hand(shortcut):
    block = filled_block(BasicBlock(4, 6, stride=2, shortcut=shortcut))
    x = torch.randn(2, 4, 7, 8, dtype=torch.float64)
    wanted = conv_norm(conv_norm(x, block.conv1, block.bn1, 2).relu(), block.conv2, block.bn2)
    if shortcut == "A":
        wanted[:, :4] += x[:, :, ::2, ::2]
    elif shortcut is not None:
        wanted += conv_norm(x, *block.downsample, 2)
    torch.testing.assert_close(block(x), wanted.relu())


@torch.no_grad()
@pytest.mark.parametrize("first", [True, False])
def test_bottleneck_by_hand(first):
    block = filled_block(Bottleneck(4, 6, stride=2, stride_in_1x1=first))
    x = torch.randn(2, 4, 7, 8, dtype=torch.float64)
    wanted = conv_norm(x, block.conv1, block.bn1, 2 if first else 1).relu()
    wanted = conv_norm(wanted, block.conv2, block.bn2, 1 if first else 2).relu()
    wanted = conv_norm(wanted, block.conv3, block.bn3) + conv_norm(x, *block.downsample, 2)
    torch.testing.assert_close(block(x), wanted.relu())
    assert [conv.kernel_size for conv in (block.conv1, block.conv2, block.conv3)] == [(1, 1), (3, 3), (1, 1)]


@torch.no_grad()
@pytest.mark.parametrize("block", [BasicBlock(8, 8), Bottleneck(8, 2), BasicBlock(8, 8, shortcut="A")])
def test_a_branch_of_zeros_leaves_the_identity(block):
    last = block.bn2 if isinstance(block, BasicBlock) else block.bn3
    nn.init.zeros_(last.weight)
    x = torch.rand(2, 8, 5, 5)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize(
    ("network", "strided"),
    [("resnet50", "conv2"), ("resnet50_v1", "conv1"), ("resnet34", "conv1"), ("plain34", "conv1")],
)
def test_downsampling_is_in_the_first_block_of_stages_2_to_4(network, strided):
    """ "Performed by conv3_1, conv4_1, and conv5_1 with a stride of 2": table 1."""
    net = models.create(network, device="meta")
    found = [
        path
        for path, module in net.named_modules()
        if isinstance(module, nn.Conv2d) and module.stride == (2, 2) and "downsample" not in path
    ]
    assert found == ["conv1", *(f"layer{stage}.0.{strided}" for stage in (2, 3, 4))]


@pytest.mark.parametrize("network", ["resnet18", "resnet34_c", "resnet152_v1", "cifar_resnet20"])
def test_every_convolution_has_a_norm_and_pooling_is_first_and_last(network):
    """Batch normalisation "right after each convolution", and no dropout: section 3.4."""
    leaves = [module for module in models.create(network, device="meta").modules() if not any(module.children())]
    for module, after in pairwise(leaves):
        if isinstance(module, nn.Conv2d):
            assert isinstance(after, nn.BatchNorm2d) and after.num_features == module.out_channels
    pools = [type(module) for module in leaves if isinstance(module, nn.MaxPool2d | nn.AdaptiveAvgPool2d)]
    assert pools == [nn.MaxPool2d, nn.AdaptiveAvgPool2d][-len(pools) :]
    assert len(pools) == (1 if network.startswith("cifar") else 2)
    assert [module.p for module in leaves if isinstance(module, nn.Dropout)] == [0]


@pytest.mark.parametrize(
    ("network", "keras"), [("resnet50", 25_636_712), ("resnet101", 44_707_176), ("resnet152", 60_419_944)]
)
def test_keras_counts_also_biases_of_convolutions_and_statistics(network, keras):
    net = models.create(network, device="meta")
    biases = sum(module.out_channels for module in net.modules() if isinstance(module, nn.Conv2d))
    assert models.summary(network).params_with_bn_stats + biases == keras


def test_dropout_is_before_the_classifier_and_in_training_only():
    net = models.create("cifar_resnet20", dropout=0.5)
    seen = []
    net.fc.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    x = torch.rand(8, 3, 32, 32)
    net(x)
    net.eval()(x)
    pooled = seen[1] != 0  # a channel at rest in the whole image is 0 by itself
    assert 0.25 < (seen[0] == 0)[pooled].double().mean() < 0.75
    assert pooled.double().mean() > 0.9


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        ("resnet18", {"shortcut": "D"}, "shortcut must be 'A', 'B', 'C' or None, got 'D'"),
        ("resnet18", {"block": "wide"}, "block must be one of basic, bottleneck, concatenated, split, got 'wide'"),
        ("resnet18", {"groups": 2}, "basic blocks have no groups, got 2"),
        ("resnet18", {"stride_in_1x1": True}, "basic blocks have no stride_in_1x1, got True"),
        ("resnet50", {"groups": 0}, "groups must be at least 1, got 0"),
        ("resnet50", {"width_per_group": -4}, "width_per_group must be at least 1, got -4"),
        ("resnet50", {"squeeze_excite": 0}, "squeeze_excite must be at least 1, got 0"),
        ("resnet50", {"layers": (3, 4, 0, 3)}, r"layers must be 4 positive ints, got \(3, 4, 0, 3\)"),
        ("resnet50", {"dropout": 1.5}, "dropout must be between 0 and 1, got 1.5"),
        ("cifar_resnet20", {"layers": (3, 3, 3, 3)}, r"layers must be 3 positive ints, got \(3, 3, 3, 3\)"),
    ],
)
def test_bad_options(network, options, message):
    with pytest.raises(ValueError, match=message) as error:
        models.create(network, device="meta", **options)
    assert "\n" not in str(error.value)


def test_a_block_shows_a_bad_shortcut():
    with pytest.raises(ValueError, match="shortcut must be 'A', 'B', 'C' or None, got 'b'"):
        BasicBlock(4, 4, shortcut="b")


@pytest.mark.parametrize("network", ["resnet50", "resnet50_v1"])
@pytest.mark.parametrize("holes", [(False, False, True), (False, True, True)])
def test_holes_make_maps_finer_and_change_nothing_else(network, holes):
    """Every other pixel, or every fourth, is what the network with strides has there."""
    torch.manual_seed(0)
    net = models.create(network, layers=(1, 2, 2, 2), features_only=("layer4",), dtype=torch.float64).eval()
    options = {"replace_stride_with_dilation": holes, "features_only": ("layer4",), "dtype": torch.float64}
    finer = models.create(network, layers=(1, 2, 2, 2), **options).eval()
    finer.load_state_dict(net.state_dict())
    input = torch.randn(1, 3, 100, 140, dtype=torch.float64)
    step = 2 ** sum(holes)
    assert finer.feature_info[0].stride == 32 // step
    with torch.inference_mode():
        wanted, found = net(input)["layer4"], finer(input)["layer4"]
    torch.testing.assert_close(found[..., ::step, ::step], wanted)
    assert found.shape[2:] == tuple(-(-side // (32 // step)) for side in input.shape[2:])


@pytest.mark.parametrize(("network", "holes"), [("resnet50", (True,)), ("resnet18", (False, False, True))])
def test_bad_holes(network, holes):
    with pytest.raises(ValueError, match="replace_stride_with_dilation must be 3 bools, of bottlenecks, got"):
        models.create(network, replace_stride_with_dilation=holes, device="meta")
