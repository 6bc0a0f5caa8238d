"""Round trips of networks and tensors, what is shared, and what is counted."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fastcnn import models
from fastcnn.compress import compress, decompress, prune, sizes
from fastcnn.compress._clusters import _centres, _nearest

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def sparse(shape, density, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(shape, generator=generator) < density
    return torch.where(kept, torch.randn(shape, generator=generator), 0.0).to(dtype)


def bits_of(tensor):
    """What bit-exact means, of NaN too."""
    return tensor.dtype, tensor.shape, tensor.contiguous().flatten().view(torch.uint8).tolist()


# Round trips.


@settings(max_examples=150, deadline=None)
@given(
    shape=st.lists(st.integers(0, 12), min_size=2, max_size=4).map(tuple),
    density=st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]),
    bits=st.integers(1, 8),
    index_bits=st.integers(1, 8),
    dtype=st.sampled_from(FLOATS),
    seed=st.integers(0, 1000),
)
def test_round_trip(shape, density, bits, index_bits, dtype, seed):
    weight = sparse(shape, density, seed, dtype)
    data = compress({"w": weight}, bits, index_bits=index_bits)
    found = decompress(data)["w"]
    assert found.dtype == dtype and found.shape == weight.shape
    assert not found[weight == 0].any()
    values = found[weight != 0].unique()
    assert len(values) <= 2**bits - 1
    assert data == compress({"w": weight}, bits, index_bits=index_bits)
    # Quantised weights are kept: compressing them again changes nothing.
    again = decompress(compress({"w": found}, bits))["w"]
    assert bits_of(again) == bits_of(found)
    if weight.count_nonzero():
        # Each weight has taken the nearest of the shared values.
        nearest = (weight[weight != 0].double()[:, None] - values.double()).abs().amin(1)
        assert torch.equal((weight - found)[weight != 0].double().abs(), nearest.to(dtype).double())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=64), min_size=1, max_size=60), st.integers(1, 8))
def test_any_finite_numbers(numbers, bits):
    weight = torch.tensor([numbers], dtype=torch.float64)
    found = decompress(compress({"w": weight}, bits))["w"]
    assert found.isfinite().all()
    if len(set(weight.tolist()[0]) - {0.0}) <= 2**bits - 1:
        assert torch.equal(found, weight)


@pytest.mark.parametrize(
    "weight",
    [torch.zeros(40, 50), torch.full((40, 50), 0.3), torch.tensor([[0.0] * 3000 + [1.5]]), torch.zeros(0, 3)],
    ids=["all zero", "all equal", "one at the end", "empty"],
)
def test_few_values_take_few_bytes(weight):
    data = compress({"w": weight}, 4)
    assert torch.equal(decompress(data)["w"], weight)
    size = sizes(data).tensors[0]
    assert size.coded < 80 and size.nonzeros == weight.count_nonzero()
    if len(weight.unique()) < 2:
        assert (size.weight_bits, size.weight_entropy, size.index_bits, size.index_entropy) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(7),
        torch.tensor(-2.5, dtype=torch.bfloat16),
        torch.tensor([[2**62 + 1, -3]]),
        torch.tensor([True, False]),
        torch.tensor([[255, 0]], dtype=torch.uint8),
        torch.tensor([float("nan"), float("inf"), -0.0, 1e-40]),
        torch.arange(6.0).reshape(2, 3).t()[0],
        torch.empty(0),
    ],
    ids=["step count", "scalar", "int64", "bool", "uint8", "not finite", "sliced", "empty"],
)
def test_all_but_weights_is_kept_bit_for_bit(tensor):
    assert bits_of(decompress(compress({"kept": tensor}))["kept"]) == bits_of(tensor)


def test_more_than_a_block_and_more_than_a_chunk(monkeypatch):
    monkeypatch.setattr("fastcnn.compress._tensors.CHUNK", 1000)
    monkeypatch.setattr("fastcnn.compress._clusters.CHUNK", 777)
    weight = sparse((90, 100), 0.4).sign()
    assert torch.equal(decompress(compress({"w": weight}, 2, index_bits=1))["w"], weight)


def test_layouts_and_gradients_do_not_matter():
    weight = sparse((4, 6, 3, 3), 0.5)
    laid = nn.Parameter(weight.to(memory_format=torch.channels_last))
    assert compress({"w": laid}) == compress({"w": weight})


def test_half_keeps_the_rest_as_float16():
    state = {"w": sparse((3, 4), 1), "bias": torch.tensor([0.1, -2.0]), "count": torch.tensor(3)}
    found = decompress(compress(state, half=True))
    assert found["bias"].dtype == torch.float32 and torch.equal(found["bias"], state["bias"].half().float())
    assert torch.equal(found["count"], state["count"])
    with pytest.raises(ValueError, match=r"'bias' has values beyond float16: up to 70000"):
        compress({"bias": torch.tensor([7e4])}, half=True)


def test_bits_by_path():
    state = {
        f"{path}.weight": sparse((30, 30), 1) for path in ("features.0", "features.1", "features.10", "neck", "head")
    }
    found = decompress(compress(state, {"features": 4, "features.1": 2, "neck.weight": 1}))
    assert [len(weight.unique()) for weight in found.values()] == [15, 3, 15, 1, 900]
    assert torch.equal(found["head.weight"], state["head.weight"])


# Networks.


def test_network_loads_strict_and_computes_what_the_quantised_one_does(tmp_path):
    torch.manual_seed(0)
    net = models.create("mobilenet_v3_small", num_classes=10).eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    (tmp_path / "net.fcnn").write_bytes(compress(net, 5))
    state = decompress(tmp_path / "net.fcnn")
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(torch.equal(tensor, state[name]) for name, tensor in before.items() if tensor.dim() < 2)
    other = models.create("mobilenet_v3_small", num_classes=10).eval()
    other.load_state_dict(state, strict=True)
    with torch.no_grad():
        for module in (m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)):
            # Here quantised by itself, so that one layer does not lean on the others' bytes.
            module.weight.copy_(decompress(compress({"w": module.weight}, 5))["w"])
        image = torch.rand(1, 3, 64, 64)
        assert torch.equal(other(image), net(image))
        assert not torch.equal(other(image), models.create("mobilenet_v3_small", num_classes=10).eval()(image))


@pytest.mark.parametrize(("bits", "most"), [(8, 660_000), (6, 470_000)])
def test_squeezenet_is_as_small_as_in_its_paper(bits, most):
    """Table 2, at a third of the weights in every layer: what the paper calls a sparsity of 33 %."""
    torch.manual_seed(0)
    data = compress(prune(models.create("squeezenet1_0"), 0.67), bits)
    report = sizes(data)
    assert report.dense == 4 * 1_248_424 and report.density == pytest.approx(0.33, abs=1e-4)
    assert len(data) == report.coded <= most
    models.create("squeezenet1_0").load_state_dict(decompress(data), strict=True)


# Clusters.


def test_clusters_by_hand():
    """From 0, 5, 10: {0, 1}, {4}, {9, 10}."""
    assert _centres(np.array([10.0, 0, 1, 9, 4]), 3).tolist() == [0.5, 4.0, 9.5]


@pytest.mark.parametrize(
    ("values", "means"),
    [
        ([1.0e308, 1.1e308, 1.6e308, 1.7e308], [1.05e308, 1.65e308]),
        # Of the sum of all that comes before, the second cluster's is below the last digit.
        ([-1.2, -1.1, -1.0, 1e-20, 1e-20, 2e-20], [-1.1, 1e-20]),
    ],
    ids=["sum overflows", "small after large"],
)
def test_clusters_of_extreme_numbers(values, means):
    np.testing.assert_allclose(_centres(np.array(values), 2), means, rtol=1e-12)


def test_of_two_values_as_near_the_lower_is_taken():
    assert _nearest(np.array([0.5, 1.5, 2.0, 2.6, 9.0]), np.array([1.0, 2.0, 3.0])).tolist() == [0, 0, 1, 2, 2]


def test_clusters_are_those_of_lloyds_algorithm():
    values = sparse((2000,), 1).double().numpy()
    centres = np.linspace(values.min(), values.max(), 15)
    for _ in range(300):
        nearest = np.abs(values[:, None] - centres).argmin(1)
        centres = np.array([values[nearest == at].mean() for at in range(15)])
    np.testing.assert_allclose(_centres(values, 15), centres, rtol=1e-9)


# Sizes.


def test_sizes_by_hand():
    """Of 1024 weights of +-1, a quarter of them: codes of 1 bit and gaps of 0, 1 and 5 zeros, each known."""
    weight = torch.zeros(4, 256)
    weight.view(-1)[::4] = torch.tensor([1.0, -1.0]).repeat(128)
    report = sizes(compress({"w": weight, "bias": torch.ones(3)}, 2, index_bits=2))
    x, bias = report.tensors
    assert (x.numel, x.nonzeros, x.density, x.dense) == (1024, 256, 0.25, 4096)
    assert x.pruned == 256 * 34 // 8 and x.quantised == 256 * 4 // 8 + 8
    assert x.weight_bits == x.weight_entropy == 1
    # One gap of 0, 255 of 3: one bit each, though far less would do.
    assert x.index_bits == 1 and x.index_entropy == pytest.approx(0.0369, abs=1e-4)
    # Two values, three and four lengths, and twice a block's size and 256 bits.
    assert x.coded == 8 + 3 + 4 + 2 * (2 + 32) and x.bits_per_weight == 8 * x.coded / 1024
    assert (bias.dense, bias.coded, bias.bits) == (12, 12, 0)
    assert report.dense == 4108 and report.density == 0.25
    assert f"{report.coded:,} bytes of 4,108" in str(report) and "25.0%" in str(report)


def test_huffman_size_is_within_a_bit_of_the_entropy():
    for x in sizes(compress({"w": sparse((200, 300), 0.2)}, 6)).tensors:
        assert x.weight_entropy <= x.weight_bits < x.weight_entropy + 0.1 < x.bits
        assert x.index_entropy <= x.index_bits < x.index_entropy + 0.1 < 5
        bits = (x.weight_bits + x.index_bits) * x.nonzeros
        assert bits / 8 < x.coded < bits / 8 * 1.02 + 400


# Bad input.


@pytest.mark.parametrize(
    ("state", "options", "message"),
    [
        ({"w": torch.tensor([[1.0, float("nan")]])}, {}, "'w' holds NaN or infinity"),
        ({"w": torch.tensor([[1.0, float("-inf")]])}, {}, "'w' holds NaN or infinity"),
        ({"w": torch.ones(2, 2)}, {"bits": 9}, "bits of 'w' must be a whole number from 1 to 8, got 9"),
        ({"w": torch.ones(2, 2)}, {"bits": 0}, "got 0"),
        ({"w": torch.ones(2, 2)}, {"bits": True}, "got True"),
        ({"w": torch.ones(2, 2)}, {"bits": {"v": 3}}, "no weight tensor at or below 'v'"),
        ({"w": torch.ones(2, 2)}, {"index_bits": 9}, "index_bits must be a whole number from 1 to 8, got 9"),
        ({"w": torch.ones(2, 2, device="meta")}, {}, "'w' is on the meta device"),
        ({"b": torch.ones(2, device="meta")}, {}, "'b' is on the meta device"),
        ({"w": torch.ones(2, 2, dtype=torch.complex64)}, {}, "'w' is complex64; only float64"),
        ({"w": torch.ones(2, 2).to(torch.float8_e5m2)}, {}, "'w' is float8_e5m2; only float64"),
        ({"w": torch.ones(2, 2).to_sparse()}, {}, "'w' is torch.sparse_coo; only dense tensors"),
        ({"w": torch.ones([1] * 33)}, {}, "'w' has 33 dimensions, at most 32"),
        ({"w": 3}, {}, "'w' is int"),
        (3, {}, "a module or a state dict is needed, got int"),
    ],
)
def test_bad_input_to_compress(state, options, message):
    with pytest.raises((ValueError, TypeError), match=message) as error:
        compress(state, **options)
    assert "\n" not in str(error.value)


def test_bad_paths(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no compressed file '.*gone.fcnn'"):
        decompress(tmp_path / "gone.fcnn")
    with pytest.raises(ValueError, match="is a directory"):
        decompress(tmp_path)
