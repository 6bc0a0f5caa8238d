"""features_only: the one mechanism that feeds detection and segmentation heads."""

import pytest
import torch
from expectation import create

from fastcnn import models


def image(net, size, batch=2):
    shape = (batch, net.in_channels, size, size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.every_row
def test_pyramid(name, expected):
    net = models.create(name, features_only=True, device="meta")
    assert [feature[:3] for feature in net.feature_info] == list(expected.features)


@pytest.mark.every_row
def test_every_feature_has_the_channels_and_stride_it_says(name, expected):
    whole = create(name, device="meta")
    names = [feature.name for feature in whole.feature_info]
    size = whole.preprocess.input_size
    sides = (size + 32, size) if expected.any_size else (size, size)
    input = torch.empty(1, whole.in_channels, *sides, device="meta")
    maps = create(name, features_only=names, device="meta")(input)
    assert list(maps) == names
    for feature in whole.feature_info:
        assert maps[feature.name].shape[:2] == (1, feature.channels)
        for side, found in zip(sides, maps[feature.name].shape[2:], strict=True):
            wanted = -(-side // feature.stride)
            assert found == wanted if expected.exact_strides else 0.75 * wanted - 1 <= found <= wanted + 1


def test_maps_are_those_of_the_whole_network(name, side, filled):
    whole = filled(create(name))
    net = create(name, features_only=True).eval()
    net.load_state_dict({key: whole.state_dict()[key] for key in net.state_dict()})
    x = image(net, side)
    seen = {}
    for feature in net.feature_info:
        # Copied at once: a later in-place activation must not be able to hide a changed map.
        def keep(module, args, output, key=feature.name):
            seen[key] = output.clone()

        whole.get_submodule(feature.modules[-1]).register_forward_hook(keep)
    with torch.no_grad():
        last = whole.forward_features(x)
        maps = net(x)
    for key in maps:
        # Layers that are hooked are called one by one, which rounds otherwise than a batch norm with its activation.
        torch.testing.assert_close(maps[key], seen[key], rtol=1e-4, atol=1e-5)
    assert torch.equal(last, maps[net.feature_info[-1].name])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_parameter_left_gets_a_gradient(name, side, expected, count):
    net = create(name, features_only=[key for key, _, _ in expected.features[:count]])
    sum(value.square().sum() for value in net(image(net, side)).values()).backward()
    assert [key for key, p in net.named_parameters() if p.grad is None] == []


def test_order_and_repeats_do_not_matter(name, expected):
    first, second = expected.features[0][0], expected.features[-1][0]
    net = create(name, features_only=(second, first, second), device="meta")
    assert [feature.name for feature in net.feature_info] == [first, second]
    one = create(name, features_only=second, device="meta")
    assert [feature.name for feature in one.feature_info] == [second]


def test_compiles_as_one_graph(typical):
    net = create(typical, features_only=True).eval()
    x = image(net, 64)
    torch._dynamo.reset()
    with torch.no_grad():
        wanted = net(x)
        found = torch.compile(net, fullgraph=True, backend="aot_eager")(x)
    assert list(found) == list(wanted)
    for key in wanted:
        torch.testing.assert_close(found[key], wanted[key])


def test_bad_names(name):
    with pytest.raises(ValueError, match="has no feature 'layer9'; it has "):
        create(name, features_only=["layer9"], device="meta")
    with pytest.raises(ValueError, match=r"at least one feature name, got \[\]"):
        create(name, features_only=[], device="meta")
