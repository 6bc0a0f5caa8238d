"""features_only: the one mechanism that feeds detection and segmentation heads."""

import pytest
import torch

from fastcnn import models


def image(size, batch=2):
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_pyramid(name, expected):
    net = models.create(name, features_only=True, device="meta")
    assert [feature[:3] for feature in net.feature_info] == list(expected.features)
    maps = net(torch.empty(2, 3, 128, 64, device="meta"))
    assert {key: tuple(value.shape) for key, value in maps.items()} == {
        key: (2, channels, 128 // stride, 64 // stride) for key, channels, stride in expected.features
    }
    assert list(maps) == [key for key, _, _ in expected.features]


def test_every_feature_has_the_channels_and_stride_it_says(name):
    whole = models.create(name, device="meta")
    names = [feature.name for feature in whole.feature_info]
    maps = models.create(name, features_only=names, device="meta")(torch.empty(1, 3, 64, 64, device="meta"))
    assert list(maps) == names
    for feature in whole.feature_info:
        assert maps[feature.name].shape == (1, feature.channels, 64 // feature.stride, 64 // feature.stride)


def test_maps_are_those_of_the_whole_network(name, filled):
    whole = filled(models.create(name))
    net = models.create(name, features_only=True).eval()
    net.load_state_dict({key: whole.state_dict()[key] for key in net.state_dict()})
    x = image(64)
    seen = {}
    for feature in net.feature_info:
        # Copied at once: a later in-place activation must not be able to hide a changed map.
        def keep(module, args, output, key=feature.name):
            seen[key] = output.clone()

        whole.get_submodule(feature.modules[-1]).register_forward_hook(keep)
    with torch.no_grad():
        last = whole.forward_features(x)
        maps = net(x)
    assert all(torch.equal(maps[key], seen[key]) for key in maps)
    assert torch.equal(last, maps[net.feature_info[-1].name])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_parameter_left_gets_a_gradient(name, expected, count):
    net = models.create(name, features_only=[key for key, _, _ in expected.features[:count]])
    sum(value.square().sum() for value in net(image(64)).values()).backward()
    assert [key for key, p in net.named_parameters() if p.grad is None] == []


def test_order_and_repeats_do_not_matter(name, expected):
    first, second = expected.features[0][0], expected.features[2][0]
    net = models.create(name, features_only=(second, first, second), device="meta")
    assert [feature.name for feature in net.feature_info] == [first, second]
    one = models.create(name, features_only=second, device="meta")
    assert [feature.name for feature in one.feature_info] == [second]


def test_compiles_as_one_graph(name):
    net = models.create(name, features_only=True).eval()
    x = image(64)
    torch._dynamo.reset()
    with torch.no_grad():
        wanted = net(x)
        found = torch.compile(net, fullgraph=True, backend="aot_eager")(x)
    assert list(found) == list(wanted)
    for key in wanted:
        torch.testing.assert_close(found[key], wanted[key])


def test_bad_names(name):
    with pytest.raises(ValueError, match="has no feature 'layer9'; it has "):
        models.create(name, features_only=["layer9"], device="meta")
    with pytest.raises(ValueError, match=r"at least one feature name, got \[\]"):
        models.create(name, features_only=[], device="meta")
