"""Linear layers as two of low rank."""

import pytest
import torch
from torch import nn

from fastcnn import models
from fastcnn.compress import factorize_linear


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("ins", "outs"), [(30, 20), (20, 30)])
def test_what_is_lost_is_the_singular_values_dropped(ins, outs, bias):
    torch.manual_seed(0)
    layer = nn.Linear(ins, outs, bias=bias, dtype=torch.float64)
    factors = factorize_linear(layer, rank=7)
    lost = layer.weight - factors[1].weight @ factors[0].weight
    dropped = torch.linalg.svdvals(layer.weight)[7:]
    torch.testing.assert_close(torch.linalg.matrix_norm(lost, 2), dropped[0])
    torch.testing.assert_close(torch.linalg.matrix_norm(lost), dropped.square().sum().sqrt())
    assert [tuple(p.shape) for p in factors.parameters()] == [(7, ins), (outs, 7)] + [(outs,)] * bias
    x = torch.randn(3, 5, ins, dtype=torch.float64)
    torch.testing.assert_close(factorize_linear(layer, rank=20)(x), layer(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_factors_keep_dtype_and_mode(dtype):
    layer = nn.Linear(12, 8, dtype=dtype).eval()
    factors = factorize_linear(layer, rank=8)
    assert not factors.training and {p.dtype for p in factors.parameters()} == {dtype}
    torch.testing.assert_close((factors[1].weight @ factors[0].weight), layer.weight, atol=0.01, rtol=0.01)


def test_rank_from_compression():
    """The largest that is as many times fewer; AlexNet's linear layers by 6 make the network 5 times smaller."""
    net = models.create("alexnet", device="meta")
    whole = models.count_params(net)
    for path in ("classifier.0", "classifier.3", "classifier.6"):
        layer = net.get_submodule(path)
        net.set_submodule(path, factorize_linear(layer, compression=6))
        rank = net.get_submodule(path)[0].out_features
        a_rank = layer.in_features + layer.out_features
        assert rank * a_rank * 6 <= layer.weight.numel() < (rank + 1) * a_rank * 6
    assert whole / models.count_params(net) == pytest.approx(5, abs=0.1)
    assert net(torch.rand(1, 3, 227, 227, device="meta")).shape == (1, 1000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give one of rank and compression, got None and None"),
        ({"rank": 2, "compression": 2}, "give one of rank and compression, got 2 and 2"),
        ({"rank": 0}, "rank of 6x8 weights must be from 1 to 6, got 0"),
        ({"rank": 7}, "from 1 to 6, got 7"),
        ({"rank": 2.0}, r"got 2\.0"),
        ({"compression": 0}, "compression must be positive, got 0"),
        ({"compression": float("nan")}, "compression must be positive, got nan"),
        ({"compression": 4}, "6x8 weights cannot be made 4 times fewer"),
    ],
)
def test_bad_ranks(options, message):
    with pytest.raises(ValueError, match=message):
        factorize_linear(nn.Linear(8, 6), **options)


def test_what_cannot_be_factorised():
    with pytest.raises(TypeError, match="a linear layer is needed, got Conv2d"):
        factorize_linear(nn.Conv2d(3, 3, 1), rank=1)
    layer = nn.Linear(3, 3)
    nn.init.constant_(layer.weight, float("inf"))
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        factorize_linear(layer, rank=1)
