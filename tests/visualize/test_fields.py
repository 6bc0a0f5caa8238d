"""Receptive fields against what NaNs in the input reach."""

import pytest
import torch
from torch import nn

from fastcnn import models
from fastcnn.visualize import receptive_field


@pytest.mark.parametrize(
    ("name", "layer", "stride", "size"),
    [
        ("alexnet", "conv1", 4, 11),
        ("alexnet", "conv5", 16, 163),
        ("zfnet", "pool1", 4, 11),
        ("vgg16", "conv5_3", 16, 196),
        ("vgg16", "pool5", 32, 212),
        ("lenet5", "s4", 4, 16),
        ("resnet18", "layer4", 32, 435),
        ("resnet50", "layer4", 32, 427),
    ],
)
def test_published_sizes(name, layer, stride, size):
    """Of Araujo et al., Computing Receptive Fields of Convolutional Neural Networks, and by hand."""
    net = models.create(name, device="meta").eval()
    found = receptive_field(net, layer)
    assert (found.down.stride, found.across.stride) == (stride, stride)
    assert found.size == (size, size)


@pytest.mark.parametrize(
    ("name", "layer", "side"),
    [
        ("alexnet", "pool2", 83),
        ("zfnet", "conv3", 74),
        ("vgg11_bn", "conv3_1", 32),
        ("resnet18", "layer1", 48),
        ("mobilenet_v2", "features.4", 64),
        ("shufflenet_v2_x0_5", "stage2.1", 64),
        ("googlenet", "inception3a", 48),
        ("densenet121", "features.denseblock1.denselayer1", 32),
    ],
)
def test_a_cell_is_nan_where_its_field_has_a_nan(name, layer, side):
    """Both ways: pixels around the field leave it finite, each edge of the field does not."""
    small = {"hidden": 4} if name in ("alexnet", "zfnet", "vgg11_bn") else {}
    net = models.create(name, 2, dtype=torch.float64, **small).eval()
    field = receptive_field(net, layer, (side, side))
    seen = []
    handle = net.get_submodule(dict((f.name, f.modules[-1]) for f in net.feature_chain).get(layer, layer))
    handle.register_forward_hook(lambda module, args, output: seen.append(output.clone()))
    net.forward_features(torch.rand(1, 3, side, side).double())
    rows = seen[-1].size(2)
    for row, column in ((rows // 2, 1), (0, rows - 1)):
        x1, y1, x2, y2 = field.box(row, column, (side, side))
        outside = torch.full((1, 3, side, side), torch.nan).double()
        outside[:, :, y1:y2, x1:x2] = 0.5
        inputs = [outside]
        for edge in ((y1, slice(x1, x2)), (y2 - 1, slice(x1, x2)), (slice(y1, y2), x1), (slice(y1, y2), x2 - 1)):
            inputs.append(torch.full((1, 3, side, side), 0.5).double())
            inputs[-1][0, :, edge[0], edge[1]] = torch.nan
        with torch.no_grad():
            net.forward_features(torch.cat(inputs))
        assert seen[-1][:, :, row, column].isnan().any(1).tolist() == [False, True, True, True, True]


def test_means_of_the_whole_map_see_everything():
    net = models.create("mobilenet_v3_small", device="meta").eval()
    field = receptive_field(net, "features.1")
    assert field.size == (float("inf"), float("inf"))
    assert field.box(3, 5, (224, 200)) == (0, 0, 200, 224)


def test_boxes_are_cut_off_at_borders():
    net = models.create("vgg16", device="meta").eval()
    field = receptive_field(net, "conv1_2")
    assert field.box(0, 9, (32, 10)) == (7, 0, 10, 3)
    assert field.box(5, 5, (32, 32)) == (3, 3, 8, 8)


def test_bad_calls():
    net = models.create("resnet18", device="meta")
    with pytest.raises(ValueError, match="training mode"):
        receptive_field(net)
    with pytest.raises(ValueError, match="did you mean layer1"):
        receptive_field(net.eval(), "layer_1")
    net = models.create("resnet18").eval().fuse()
    with pytest.raises(ValueError, match="not fused"):
        receptive_field(net)


def test_unknown_operators_are_named():
    net = models.create("vgg11", device="meta").eval()
    net.features[2] = nn.Upsample(scale_factor=2)
    with pytest.raises(ValueError, match="field through aten.upsample_nearest2d"):
        receptive_field(net, "pool2")
