"""The passthrough's layer and Darknet's stacks."""

import pytest
import torch
from torch.nn import functional as F

from fastcnn import models
from fastcnn.models._plain import Conv, Pool
from fastcnn.models.detection.yolo_layers import DarknetStack, Reorg, scale_channels


def darknet_reorg(x, stride):
    """The published order, by the indices of flat memory."""
    channels, height, width = x.shape
    flat, out = x.flatten().tolist(), [0.0] * x.numel()
    fewer = channels // stride**2
    for k in range(channels):
        for j in range(height):
            for i in range(width):
                row, column = j * stride + k // fewer // stride, i * stride + k // fewer % stride
                at = column + width * stride * (row + height * stride * (k % fewer))
                out[i + width * (j + height * k)] = flat[at]
    return torch.tensor(out).reshape(channels * stride**2, height // stride, width // stride)


@pytest.mark.parametrize(("stride", "shape"), [(2, (8, 4, 6)), (3, (18, 3, 6)), (1, (5, 3, 3))])
def test_reorg_is_darknets(stride, shape):
    x = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    for given in (x[None], x[None].to(memory_format=torch.channels_last)):
        assert torch.equal(Reorg(stride)(given)[0], darknet_reorg(x, stride))


@pytest.mark.parametrize("darknet", [True, False])
def test_reorg_is_invertible(darknet):
    x = torch.rand(2, 64, 26, 26)
    layer = Reorg(2, darknet=darknet)
    y = layer(x)
    assert y.shape == (2, 256, 13, 13)
    assert torch.equal(layer.inverse(y), x)
    assert torch.equal(y.flatten().sort().values, x.flatten().sort().values)
    assert darknet or torch.equal(y, F.pixel_unshuffle(x, 2))


def test_bad_reorg():
    with pytest.raises(ValueError, match="stride must be a positive int, got 0"):
        Reorg(0)
    for shape, message in [
        ((1, 6, 4, 4), "C a multiple of 4"),
        ((1, 8, 5, 4), "H and W multiples of 2"),
        ((8, 4, 4), "takes"),
    ]:
        with pytest.raises(ValueError, match=message):
            Reorg(2)(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"inverse of Reorg of stride 2 got \(1, 8, 4, 4\)"):
        Reorg(2).inverse(torch.zeros(1, 8, 4, 4))


def stack(*layers, **options):
    options = {"path": "body", "batch_norm": True, "negative_slope": 0.1, "width_mult": 1.0, **options}
    return DarknetStack(3, layers, **options).eval()


def test_stack_has_its_features():
    net = stack(Conv(8), Pool(), Conv(16, 3, 2), Pool(2, 1), Conv(4, 1))
    assert [feature[:3] for feature in net.feature_chain] == [
        ("conv1", 8, 1),
        ("pool1", 8, 2),
        ("conv2", 16, 4),
        ("pool2", 16, 4),
        ("conv3", 4, 4),
    ]
    assert [path for feature in net.feature_chain for path in feature.modules] == [f"body.{i}" for i in range(6)]
    assert net(torch.rand(1, 3, 24, 16)).shape == (1, 4, 6, 4)


def test_pool_of_stride_1_keeps_the_size():
    x = -torch.rand(1, 3, 5, 4) - 1
    found = stack(Pool(2, 1))(x)
    wanted = torch.empty_like(x)
    for row in range(5):
        for column in range(4):
            wanted[:, :, row, column] = x[:, :, row : row + 2, column : column + 2].amax((2, 3))
    assert torch.equal(found, wanted)


def test_width_mult_scales_layers_and_not_outputs():
    assert [scale_channels(64, factor) for factor in (1, 0.5, 0.25, 0.01)] == [64, 32, 16, 8]
    assert scale_channels(30, 1.0) == 30
    net = models.create("yolov2", width_mult=0.25, device="meta")
    assert net.predictor.weight.shape == (125, 256, 1, 1)
    assert net.last.conv.weight.shape == (256, 256 + 4 * 16, 3, 3)
