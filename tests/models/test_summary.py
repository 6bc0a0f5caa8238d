"""Counting: held against arithmetic on the traced shapes, and against hand-made modules."""

import math

import pytest
import torch
from torch import nn

from fastcnn import models
from fastcnn.nn import RoIAlign


def test_totals_are_the_sums_of_the_layers(typical):
    counted = models.summary(typical)
    assert sum(layer.macs for layer in counted.layers) == counted.macs
    assert sum(layer.params for layer in counted.layers) == counted.params


def test_macs_follow_from_the_traced_shapes(typical):
    net = models.create(typical, device="meta")
    total = 0
    for path, shape in models.trace_shapes(typical):
        module = net.get_submodule(path)
        if isinstance(module, nn.Conv2d | nn.Linear):
            total += math.prod(shape) * module.weight[0].numel()
    assert total == models.count_macs(typical)


def test_resnet50_shapes():
    shapes = models.trace_shapes("resnet50")
    wanted = {
        "conv1": (1, 64, 112, 112),
        "maxpool": (1, 64, 56, 56),
        "layer1.2.bn3": (1, 256, 56, 56),
        "layer2.0.conv1": (1, 128, 56, 56),
        "layer2.0.conv2": (1, 128, 28, 28),
        "layer2.3.bn3": (1, 512, 28, 28),
        "layer3.5.bn3": (1, 1024, 14, 14),
        "layer4.2.bn3": (1, 2048, 7, 7),
        "avgpool": (1, 2048, 1, 1),
        "fc": (1, 1000),
    }
    found = dict(shapes)
    assert {path: found[path] for path in wanted} == wanted
    weighted = [path for path, _ in shapes if path == "fc" or "conv" in path]
    assert len(weighted) == 50
    # Blocks share one ReLU among three places, which is one row each.
    assert sum(path == "layer1.0.relu" for path, _ in shapes) == 3
    first = models.create("resnet50", stride_in_1x1=True, device="meta")
    assert dict(models.trace_shapes(first))["layer2.0.conv1"] == (1, 128, 28, 28)


def test_shapes_are_those_of_a_forward_on_meta(typical):
    net, seen = models.create(typical, device="meta").eval(), []
    for module in net.modules():
        if not any(module.children()):
            module.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    net(torch.empty(1, 3, 224, 224, device="meta"))
    assert [shape for _, shape in models.trace_shapes(typical)] == seen


# Input column of the paper's table 1: side and channels that each row sees.
MOBILENET_V3_LARGE = [
    (224, 3), (112, 16), (112, 16), (56, 24), (56, 24), (28, 40), (28, 40), (28, 40), (14, 80), (14, 80),
    (14, 80), (14, 80), (14, 112), (14, 112), (7, 160), (7, 160), (7, 160),
]  # fmt: skip


def test_mobilenet_v3_large_shapes():
    net = models.create("mobilenet_v3_large", device="meta")
    sides = []
    for layer in net.features:
        layer.register_forward_pre_hook(lambda module, args: sides.append((args[0].shape[-1], args[0].shape[1])))
    features = net.eval().forward_features(torch.empty(1, 3, 224, 224, device="meta"))
    assert sides == MOBILENET_V3_LARGE
    assert features.shape == (1, 960, 7, 7)
    hidden = dict(models.trace_shapes("mobilenet_v3_large"))["classifier.0"]
    assert hidden == (1, 1280)


def test_parameter_counters():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
    conv, norm, linear = 3 * 4 * 9 + 4, 8, 16 * 5 + 5
    assert models.count_params(net) == conv + norm + linear
    assert models.count_params(net, include_bn_stats=True) == conv + 2 * norm + linear
    assert models.count_weights_only(net) == 3 * 4 * 9 + 16 * 5
    net[0].requires_grad_(False)
    assert models.count_params(net) == norm + linear
    assert models.count_params(net, trainable=False) == conv + norm + linear


def test_keras_counts_batch_norm_statistics():
    # Keras' table says 25,636,712 for ResNet50, which has a bias of each convolution, 26,560 in all.
    assert models.summary("resnet50").params_with_bn_stats == 25_636_712 - 26_560


def test_any_module_can_be_counted_and_is_not_changed():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Hardswish())
    state = {key: value.clone() for key, value in net.state_dict().items()}
    counted = models.summary(net, (3, 8, 10))
    assert counted.macs == 3 * 4 * 9 * 80
    assert counted.input_shape == (1, 3, 8, 10)
    assert net.training and not net[0]._forward_hooks and not net[0]._forward_pre_hooks
    assert all(torch.equal(net.state_dict()[key], value) for key, value in state.items())


def test_shared_modules_count_once():
    linear = nn.Linear(6, 6)
    counted = models.summary(nn.Sequential(linear, linear), (1, 4, 6))
    assert [layer.params for layer in counted.layers] == [42, 0]
    assert (counted.params, counted.weights_only, counted.macs) == (42, 36, 2 * 36 * 4)


def test_our_ops_count_as_flops_but_not_as_multiply_adds():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1, bias=False)
            self.align = RoIAlign(2, 1.0, 2)

        def forward(self, x):
            return self.align(self.conv(x), x.new_empty(5, 5))

    counted = models.summary(Pooled(), (3, 8, 8))
    assert counted.macs == 3 * 4 * 64
    assert counted.flops > 2 * counted.macs
    assert counted.layers[1].output_shape == (5, 4, 2, 2) and counted.layers[1].macs == 0


def test_weights_are_not_copied():
    net = models.create("resnet50", device="meta")
    assert models.summary(net) == models.summary(models.create("resnet50"))


def test_input_sizes(typical):
    net = models.create(typical, device="meta", in_channels=1)
    assert models.summary(net).input_shape == (1, 1, 224, 224)
    assert models.summary(net, 64).input_shape == (1, 1, 64, 64)
    assert models.summary(net, (64, 96)).input_shape == (1, 1, 64, 96)
    assert models.summary(typical, (3, 96, 64)).input_shape == (1, 3, 96, 64)


@pytest.mark.parametrize("size", [0, (64, -1), (3,), (3, 64.0, 64)])
def test_bad_input_sizes(size):
    with pytest.raises(ValueError, match=r"input_size must be \(channels, height, width\), positive ints, got"):
        models.summary("resnet50", size)


def test_input_size_is_needed_where_a_module_does_not_say_it():
    with pytest.raises(ValueError, match="summary of a Linear needs input_size"):
        models.summary(nn.Linear(2, 2))


def test_printed_table(typical):
    counted = models.summary(typical)
    lines = str(counted).splitlines()
    assert lines[0].split() == ["layer", "type", "output", "params", "MACs"]
    assert len(lines) == 1 + len(counted.layers) + 1 + 3
    assert lines[-3] == f"{typical}, input 1x3x224x224"
    assert f"{counted.params:,}" in lines[-2] and f"{counted.macs:,}" in lines[-1]


def test_fused_and_features_only_networks(typical):
    whole = models.summary(typical)
    fused = models.summary(models.create(typical, device="meta").eval().fuse())
    assert fused.macs == whole.macs
    assert fused.params == fused.params_with_bn_stats < whole.params
    body = models.summary(models.create(typical, device="meta", features_only=True))
    head = [layer for layer in whole.layers if layer.path.startswith(("fc", "classifier"))]
    assert body.macs == whole.macs - sum(layer.macs for layer in head)
