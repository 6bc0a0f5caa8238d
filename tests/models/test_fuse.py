"""Folding batch norms into convolutions."""

from collections import OrderedDict

import pytest
import torch
from expectation import create
from torch import nn

from fastcnn.nn import (
    Bottleneck,
    ChannelShuffle,
    ConvNormAct,
    ConvSequence,
    DepthwiseConv2d,
    GroupedConv2dShuffle,
    Hardswish,
    InvertedResidual,
    fold_conv_norm,
)


def randomise(model):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                module.weight.uniform_(0.5, 2, generator=generator)
                module.bias.normal_(generator=generator)
    return model.eval()


def norms(model):
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]


def foldable(model):
    """The path of the last norm that fuse() folds."""
    return [
        f"{path}.{after[0]}".lstrip(".")
        for path, module in model.named_modules()
        for _, *after in getattr(module, "conv_chains", ())
        if after and isinstance(module.get_submodule(after[0]), nn.BatchNorm2d)
    ][-1]


def image(net, side, dtype=torch.float32):
    shape = (2, net.in_channels, side, side)
    return torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("dtype", "tolerance", "channels_last"), [(torch.float64, 1e-12, False), (torch.float32, 1e-5, True)]
)
def test_network_keeps_its_outputs(name, side, expected, dtype, tolerance, channels_last, filled):
    net = filled(create(name)).to(dtype)
    x = image(net, side, dtype)
    if channels_last:
        net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        wanted = net(x)
    assert net.fuse() is net
    with torch.inference_mode():
        found = net(x)
    assert len(norms(net)) == expected.norms_left
    assert (found - wanted).norm() <= tolerance * wanted.norm()
    if channels_last:
        convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
        assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in convs)


def test_fusing_twice_changes_nothing(name, filled):
    net = filled(create(name)).fuse()
    state = {key: value.clone() for key, value in net.state_dict().items()}
    net.fuse()
    assert list(net.state_dict()) == list(state)
    assert all(torch.equal(net.state_dict()[key], value) for key, value in state.items())


def test_fused_state_dict_loads_into_a_fused_network(name, side, filled):
    fused = filled(create(name)).fuse()
    x = image(fused, side)
    other = create(name).eval().fuse()
    other.load_state_dict(fused.state_dict())
    with torch.inference_mode():
        assert torch.equal(other(x), fused(x))


def test_features_only_network_fuses(name, side, expected):
    net = randomise(create(name, features_only=True, dtype=torch.float64))
    x = image(net, side, torch.float64)
    with torch.inference_mode():
        wanted = net(x)
        found = net.fuse()(x)
    assert len(norms(net)) == expected.norms_left
    for key in wanted:
        assert (found[key] - wanted[key]).norm() <= 1e-11 * wanted[key].norm()


def test_training_mode_is_refused_and_nothing_is_folded(name, expected):
    net = create(name).eval()
    if len(norms(net)) == expected.norms_left:
        assert net.train().fuse() is net  # There is nothing to fold.
        return
    net.get_submodule(foldable(net)).train()
    before = list(net.state_dict())
    with pytest.raises(RuntimeError, match=r"needs eval mode, but '.+' is training: call \.eval\(\) first"):
        net.fuse()
    assert list(net.state_dict()) == before


BLOCKS = {
    "conv": lambda: ConvNormAct(8, 8, 3, stride=2),
    "depthwise": lambda: ConvNormAct(8, 8, 5, groups=8, act=nn.Hardswish),
    "not affine": lambda: ConvNormAct(8, 8, 3, norm=lambda c, **kw: nn.BatchNorm2d(c, affine=False, **kw)),
    "no norm": lambda: ConvNormAct(8, 8, 3, norm=None),
    "bottleneck": lambda: Bottleneck(8, 4, stride=2),
    "inverted residual": lambda: InvertedResidual(8, 24, 8),
}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("block", BLOCKS)
def test_block_keeps_its_outputs(block, dtype, tolerance):
    torch.manual_seed(0)
    module = BLOCKS[block]().to(dtype)
    for norm in norms(module):
        if norm.affine:
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 8, 13, 10, dtype=dtype)
    module.eval()
    with torch.inference_mode():
        wanted = module(x)
        found = fold_conv_norm(module)(x)
    assert norms(module) == []
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


def test_conv_with_a_bias_and_frozen_weights_folds():
    module = ConvNormAct(3, 4).eval()
    module[0].bias = nn.Parameter(torch.randn(4))
    randomise(module).requires_grad_(False)
    x = torch.randn(1, 3, 8, 8)
    wanted = module(x)
    assert module.fuse() is module
    torch.testing.assert_close(module(x), wanted, rtol=1e-5, atol=1e-5)
    assert not any(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize(
    "norm",
    [
        lambda channels, **factory: nn.GroupNorm(2, channels, **factory),
        lambda channels, **factory: nn.BatchNorm2d(channels, track_running_stats=False, **factory),
    ],
)
def test_norms_that_depend_on_the_input_stay(norm):
    module = ConvNormAct(4, 4, norm=norm).eval()
    x = torch.randn(2, 4, 6, 6)
    wanted = module(x)
    assert torch.equal(module.fuse()(x), wanted)
    assert len(module) == 3 and not isinstance(module[1], nn.Identity)


def test_half_types_round_each_weight_once():
    module = randomise(ConvNormAct(16, 16, dtype=torch.bfloat16))
    exact = ConvNormAct(16, 16, dtype=torch.float64)
    exact.load_state_dict(module.state_dict())
    exact.eval().fuse()
    module.fuse()
    weight = exact[0].weight.to(torch.bfloat16)
    agree = (module[0].weight == weight).double().mean()
    assert module[0].weight.dtype == torch.bfloat16
    assert agree > 0.99


def depthwise(*after, **options):
    return DepthwiseConv2d(12, 24, 3, 2, 1, bias=False, **options), *after


def grouped(*after, groups=4, shuffle_groups=1):
    return GroupedConv2dShuffle(12, 24, 1, groups=groups, bias=False, shuffle_groups=shuffle_groups), *after


# A convolution and what comes after its norm; the activation and shuffle groups of its kernel then; the layers left.
ABSORBED = {
    "relu": (lambda: depthwise(nn.ReLU(inplace=True)), "relu", 1, 0),
    "relu6": (lambda: depthwise(nn.ReLU6()), "relu6", 1, 0),
    "hardswish": (lambda: depthwise(nn.Hardswish()), "hardswish", 1, 0),
    "our hardswish": (lambda: depthwise(Hardswish()), "hardswish", 1, 0),
    "silu": (lambda: depthwise(nn.SiLU()), "silu", 1, 0),
    "leaky": (lambda: depthwise(nn.LeakyReLU()), None, 1, 1),
    "relu of a subclass": (lambda: depthwise(type("Mine", (nn.ReLU,), {})()), None, 1, 1),
    "one activation": (lambda: depthwise(nn.ReLU6(), nn.SiLU()), "relu6", 1, 1),
    "nothing after what stays": (lambda: depthwise(nn.MaxPool2d(2), nn.ReLU()), None, 1, 2),
    "depthwise shuffles not": (lambda: depthwise(nn.ReLU(), ChannelShuffle(4)), "relu", 1, 1),
    "grouped": (lambda: grouped(nn.ReLU(), ChannelShuffle(4)), "relu", 4, 0),
    "shuffle of other groups": (lambda: grouped(nn.ReLU(), nn.ChannelShuffle(3), groups=1), "relu", 3, 0),
    "shuffle first": (lambda: grouped(ChannelShuffle(4), nn.ReLU()), "relu", 4, 0),
    "one shuffle": (lambda: grouped(ChannelShuffle(4), ChannelShuffle(2)), None, 4, 1),
    "grouped has no silu": (lambda: grouped(nn.SiLU(), ChannelShuffle(4)), None, 1, 2),
    "dense": (lambda: (nn.Conv2d(12, 24, 1), nn.ReLU(), ChannelShuffle(4)), "relu", 1, 1),
    "dense leaky": (lambda: (nn.Conv2d(12, 24, 3), nn.LeakyReLU(0.2), nn.ReLU()), "leaky_relu", 1, 1),
    "dense silu": (lambda: (nn.Conv2d(12, 24, 3), nn.SiLU()), "silu", 1, 0),
    "padding that is not zeros": (
        lambda: (nn.Conv2d(12, 24, 3, padding_mode="reflect", padding=1), nn.ReLU()),
        None,
        1,
        1,
    ),
}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("case", ABSORBED)
def test_a_kernel_takes_over_what_it_can_do(case, channels_last):
    build, activation, shuffle_groups, left = ABSORBED[case]
    torch.manual_seed(0)
    conv, *after = build()
    module = randomise(ConvSequence(conv, nn.BatchNorm2d(24), *after).double())
    x = torch.randn(2, 12, 9, 7, dtype=torch.float64)
    if channels_last:
        module, x = module.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        wanted = module(x)
        found = fold_conv_norm(module)(x)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    assert (getattr(conv, "activation", None), getattr(conv, "shuffle_groups", 1)) == (activation, shuffle_groups)
    assert [type(m) is nn.Identity for m in module[1:]] == [True] * (1 + len(after) - left) + [False] * left
    assert list(module.state_dict()) == ["0.weight", "0.bias"]
    before = repr(module)
    assert repr(fold_conv_norm(module)) == before


@pytest.mark.parametrize("conv", [depthwise(activation="relu")[0], grouped(shuffle_groups=4)[0]])
def test_norm_behind_a_kernel_that_does_more_stays(conv):
    module = randomise(ConvSequence(conv, nn.BatchNorm2d(24), nn.ReLU()))
    x = torch.randn(2, 12, 9, 7)
    wanted = module(x)
    assert torch.equal(fold_conv_norm(module)(x), wanted)
    assert len(norms(module)) == 1


def test_norms_that_stay_keep_their_activation():
    module = ConvSequence(*depthwise(nn.BatchNorm2d(24, track_running_stats=False), nn.ReLU())).eval()
    x = torch.randn(2, 12, 9, 7)
    wanted = module(x)
    assert torch.equal(fold_conv_norm(module)(x), wanted)
    assert type(module[2]) is nn.ReLU


def test_sequence_folds_every_norm_after_a_convolution():
    layers = OrderedDict(
        norm0=nn.BatchNorm2d(12),
        conv1=nn.Conv2d(12, 12, 1),
        norm1=nn.BatchNorm2d(12),
        conv2=depthwise()[0],
        norm2=nn.BatchNorm2d(24),
        act2=nn.ReLU6(),
        norm3=nn.BatchNorm2d(24),
    )
    module = randomise(ConvSequence(layers).double())
    x = torch.randn(2, 12, 9, 7, dtype=torch.float64)
    with torch.inference_mode():
        wanted = module(x)
        found = fold_conv_norm(module)(x)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    kept = [name for name, layer in module.named_children() if not isinstance(layer, nn.Identity)]
    assert kept == ["norm0", "conv1", "conv2", "norm3"]


def test_activation_in_the_kernel_of_an_inverted_residual():
    module = randomise(InvertedResidual(8, 24, 8, act=nn.Hardswish))
    fold_conv_norm(module)
    dense, depth, project = module.block
    assert (dense[0].activation, depth[0].activation, project[0].activation) == ("hardswish", "hardswish", None)
    assert type(dense[2]) is type(depth[2]) is nn.Identity
    assert len(project) == 2


def test_convolution_may_be_a_grandchild():
    class Separable(nn.Module):
        conv_chains = (("conv.1", "norm"), ("gone.1", "missing"))

        def __init__(self):
            super().__init__()
            self.conv = nn.Sequential(*depthwise(nn.Conv2d(24, 12, 1)))
            self.norm = nn.BatchNorm2d(12)

        def forward(self, input):
            return self.norm(self.conv(input))

    module = randomise(Separable().double())
    x = torch.randn(2, 12, 9, 7, dtype=torch.float64)
    with torch.inference_mode():
        wanted = module(x)
        found = fold_conv_norm(module)(x)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    assert type(module.norm) is nn.Identity
