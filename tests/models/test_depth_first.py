"""Large batches go through a network's first stages a few images at a time."""

import pytest
import torch
from torch import nn

from fastcnn import models
from fastcnn.models import _depth_first
from fastcnn.models._depth_first import Prefix, find_prefix


@pytest.fixture
def small_cache(monkeypatch):
    monkeypatch.setattr(_depth_first, "_CACHE", 128 << 10)


def fused(name, **options):
    return models.create(name, **options).eval().fuse()


def prefix_of(net, input, names=()):
    return find_prefix(
        [(stage, [net.get_submodule(path) for path in stage.modules]) for stage in net.feature_chain], input, names
    )


def test_stages_end_where_the_maps_of_the_batch_fit_the_cache():
    net = fused("yolov2_tiny", device="meta")
    find = lambda images, side=416, names=(): prefix_of(net, torch.empty(images, 3, side, side), names)  # noqa: E731
    # Of 8 images conv1 makes 89 MB, pool1 22, conv2 44, pool2 11, conv3 22, pool3 6.
    assert find(8) == Prefix(6, 1)
    assert find(1) is None
    assert find(8, 64) is None
    assert find(8, 416, ("pool1",)) is None, "conv1 alone would only be copied"
    assert find(8, 416, ("conv3",)) == Prefix(4, 1)


def test_stages_with_more_weights_than_pixels_take_the_batch_at_once(small_cache):
    net = fused("resnet18", device="meta")
    # layer1 has 148,000 weights; of 224 pixels its map has 201,000, of 64 it has 16,000.
    assert prefix_of(net, torch.empty(8, 3, 224, 224)) == Prefix(2, 1)
    assert prefix_of(net, torch.empty(8, 3, 64, 64)) is None


@pytest.mark.parametrize("images", [2, 5])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("network", ["mobilenet_v2", "squeezenet1_1", "mobilenet_v1", "vgg11"])
def test_results_are_those_of_every_image(network, layout, images, small_cache):
    net = fused(network, num_classes=10)
    input = torch.randn(images, 3, 64, 64).contiguous(memory_format=layout)
    assert prefix_of(net, input)
    with torch.inference_mode():
        one_by_one = torch.cat([net(image[None]) for image in input])
        for _ in range(3):  # The second call is recorded.
            torch.testing.assert_close(net(input), one_by_one, rtol=1e-4, atol=1e-5)


def test_features_are_those_of_the_whole_batch(small_cache):
    net = fused("resnet18", features_only=("layer2", "layer3"))
    input = torch.randn(3, 3, 224, 224)
    assert prefix_of(net, input, net.feature_names) == Prefix(2, 1)
    with torch.inference_mode():
        found, one_by_one = net(input), [net(image[None]) for image in input]
    assert list(found) == ["layer2", "layer3"]
    for name, each in found.items():
        torch.testing.assert_close(each, torch.cat([maps[name] for maps in one_by_one]), rtol=1e-4, atol=1e-5)


def test_hooked_layers_see_the_whole_batch(small_cache):
    net, seen = fused("squeezenet1_1"), []
    next(iter(net.features)).register_forward_hook(lambda layer, inputs, output: seen.append(output.shape[0]))
    with torch.inference_mode():
        net(torch.randn(4, 3, 64, 64))
    assert seen == [4]


class Mixing(nn.Identity):
    """A user's layer, whose images depend on one another."""

    def forward(self, input):
        return input - input.mean(0)


def test_images_that_depend_on_one_another_stay_together(small_cache):
    net = models.create("vgg11_bn", width_mult=0.25, hidden=32).eval()
    for norm in (layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)):
        norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
    net.fuse()
    assert prefix_of(net, torch.zeros(4, 3, 64, 64)) is None
    net = fused("squeezenet1_1", num_classes=10)
    input = torch.zeros(4, 3, 64, 64)
    assert prefix_of(net, input) is not None
    net.features[2] = nn.Sequential(net.features[2], Mixing())
    assert prefix_of(net, input) is None
    net = fused("squeezenet1_1", num_classes=10)
    net.features[2].train()
    assert prefix_of(net, input) is None


def test_training_and_gradients_take_the_whole_batch(small_cache, monkeypatch):
    monkeypatch.setattr(models._net, "find_prefix", None)
    net = fused("resnet18", num_classes=3)
    net(torch.randn(4, 3, 64, 64, requires_grad=True)).sum().backward()
    net.train()
    with torch.inference_mode():
        net(torch.randn(4, 3, 64, 64))
