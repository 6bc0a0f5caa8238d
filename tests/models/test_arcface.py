"""ArcFace's networks: published counts, the block by hand, embeddings in training, fused and with another width."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastcnn import models
from fastcnn.models.classification.arcface import IBasicBlock
from fastcnn.nn.losses import ArcMarginHead

SMALL = {"layers": (1, 1, 1, 1), "map_size": (2, 2), "num_classes": 16}


def faces(batch=4, side=32, **options):
    return torch.rand(batch, 3, side, side, **options).sub(0.5).mul(2)


@pytest.mark.parametrize(
    ("network", "params", "millions", "billions"),
    [
        ("arcface_iresnet18", 24_025_600, 24.03, 2.6),
        ("arcface_iresnet50", 43_590_848, 43.59, 6.3),
        ("arcface_iresnet100", 65_156_160, 65.16, 12.1),
    ],
)
def test_counts_are_the_published_ones(network, params, millions, billions):
    """The multiply-adds are the authors' table's (FLOPs 2.6 G, 6.3 G and 12.1 G)."""
    counted = models.summary(network)
    assert counted.params == params and round(params / 1e6, 2) == millions
    assert round(counted.macs / 1e9, 1) == billions
    assert counted.layers[-1].output_shape == (1, 512)


def test_maps_halve_from_the_first_stage():
    net = models.create("arcface_iresnet50", device="meta", features_only=True)
    assert [(f.name, f.channels, f.stride) for f in net.feature_info] == [
        ("conv1", 64, 1),
        ("layer1", 64, 2),
        ("layer2", 128, 4),
        ("layer3", 256, 8),
        ("layer4", 512, 16),
    ]
    maps = net(torch.empty(1, 3, 112, 112, device="meta"))
    assert [value.shape[-1] for value in maps.values()] == [112, 56, 28, 14, 7]


@pytest.mark.parametrize("stride", [1, 2])
def test_block_by_hand(stride, filled):
    block = filled(IBasicBlock(4, 4, stride, dtype=torch.float64))
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64)

    def norm(layer, value):
        return F.batch_norm(value, layer.running_mean, layer.running_var, layer.weight, layer.bias)

    with torch.no_grad():
        out = norm(block.bn2, F.conv2d(norm(block.bn1, x), block.conv1.weight, padding=1))
        out = torch.where(out > 0, out, block.prelu.weight[:, None, None] * out)
        out = norm(block.bn3, F.conv2d(out, block.conv2.weight, stride=stride, padding=1))
        shortcut = x
        if stride == 2:
            conv, after = block.downsample
            shortcut = norm(after, F.conv2d(x, conv.weight, stride=2))
        torch.testing.assert_close(block(x), out + shortcut)
    assert (block.downsample is None) == (stride == 1)


def test_one_step_with_the_margin_reaches_every_parameter():
    """But the scale of the last norm, and the linear layer's bias, of which it takes the mean."""
    net, head = models.create("arcface_iresnet18", **SMALL), ArcMarginHead(16, 5)
    target = torch.tensor([0, 1, 4, 1])
    F.cross_entropy(head(net(faces()), target), target).backward()
    without = [key for key, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert set(without) <= {"features.weight", "fc.bias"} and "features.weight" in without
    assert not net.features.weight.requires_grad and head.weight.grad.any()


def test_embeddings_in_eval_are_deterministic_and_fuse(filled):
    net = filled(models.create("arcface_iresnet18", **SMALL, dtype=torch.float64))
    x = faces(dtype=torch.float64)
    with torch.inference_mode():
        wanted = net(x)
        assert wanted.shape == (4, 16) and torch.equal(net(x), wanted)
        torch.testing.assert_close(net(x[2:3]), wanted[2:3])
        fused = copy.deepcopy(net).fuse()
        for _ in range(4):
            torch.testing.assert_close(fused(x), wanted, rtol=1e-8, atol=1e-8)
    left = [name for name, m in fused.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert left == [*(f"layer{n}.0.bn1" for n in (1, 2, 3, 4)), "bn2"]


def test_replace_head_renews_the_norm_too():
    net = models.create("arcface_iresnet18", **SMALL).eval()
    assert net.replace_head(7).num_classes == 7
    assert not net.features.weight.requires_grad and not net.features.training
    with torch.no_grad():
        assert net(faces()).shape == (4, 7)


def test_weights_come_back_from_a_file(tmp_path, filled):
    net = filled(models.create("arcface_iresnet18", **SMALL))
    torch.save(net.state_dict(), tmp_path / "w.pth")
    loaded = models.create("arcface_iresnet18", weights=tmp_path / "w.pth", **SMALL)
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in net.state_dict().items())
    assert not loaded.features.weight.requires_grad


def test_compiles_as_one_graph(filled):
    net = filled(models.create("arcface_iresnet18", **SMALL, dtype=torch.float64))
    x = faces(dtype=torch.float64)
    torch._dynamo.reset()
    with torch.inference_mode():
        torch.testing.assert_close(torch.compile(net, fullgraph=True, backend="aot_eager")(x), net(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": (1, 2)}, r"layers must be four positive ints, got \(1, 2\)"),
        ({"map_size": (0, 7)}, r"map_size must be two positive ints, got \(0, 7\)"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        models.create("arcface_iresnet18", device="meta", **options)


def test_inputs_of_another_size_and_preprocessing():
    net = models.create("arcface_iresnet18", device="meta")
    with pytest.raises(ValueError, match=r"the linear layer takes maps of \(7, 7\), got \(8, 8\)"):
        net(torch.empty(2, 3, 128, 128, device="meta"))
    assert net.preprocess(torch.full((3, 112, 112), 255, dtype=torch.uint8)).unique().item() == 1
