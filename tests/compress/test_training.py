"""Training under masks and shared values."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastcnn import models
from fastcnn.compress import compress, decompress, make_permanent, prune, share_weights


def small(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 16, 20),
        nn.ReLU(),
        nn.Linear(20, 4),
    )


def train(model, optimizer, steps=5):
    torch.manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(torch.randn(6, 3, 6, 6)), torch.randint(4, (6,))).backward()
        optimizer.step()


def adam(model):
    return torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.1)


# Pruning.


def test_prune_takes_the_smallest_of_each_layer():
    model, whole = small(), small()
    assert prune(model, {"": 0.5, "4": 0.9, "6.weight": 0}) is model
    for path, sparsity in (("0", 0.5), ("4", 0.9), ("6", 0.0)):
        before, after = whole.get_submodule(path).weight, model.get_submodule(path).weight
        zero = after == 0
        assert zero.sum() == round(sparsity * before.numel())
        assert torch.equal(after[~zero], before[~zero])
        assert not zero.any() or before[zero].abs().max() <= before[~zero].abs().min()
    assert torch.equal(model[1].weight, whole[1].weight)


def test_equal_weights_are_pruned_to_the_number_too():
    layer = nn.Linear(10, 10)
    nn.init.constant_(layer.weight, 0.5)
    assert (prune(layer, 0.37).weight == 0).sum() == 37
    assert (prune(layer, 1.0).weight == 0).all()


def test_zeros_stay_in_training_and_others_move():
    model = small()
    optimizer = adam(model)
    train(model, optimizer, 1)
    prune(model, 0.6)
    zero, before = model[4].weight == 0, model[4].weight.detach().clone()
    train(model, optimizer)
    assert torch.equal(model[4].weight == 0, zero)
    assert (model[4].weight != before)[~zero].all()
    trained = {name: tensor.clone() for name, tensor in decompress(compress(model, {})).items()}
    parameters = {id(parameter) for parameter in model.parameters()}
    make_permanent(model)
    assert {id(parameter) for parameter in model.parameters()} == parameters
    assert set(model.state_dict()) == set(small().state_dict()) == set(trained)
    assert all(torch.equal(tensor, trained[name]) for name, tensor in model.state_dict().items())
    assert type(model[4]) is nn.Linear


def test_pruning_again_prunes_more_from_the_same():
    model = prune(small(), 0.5)
    first = model[4].weight == 0
    prune(model, 0.8)
    again = model[4].weight == 0
    assert again[first].all() and again.sum() == round(0.8 * again.numel())
    assert set(model.state_dict()) == set(prune(small(), 0.5).state_dict())


def test_copies_are_of_their_own():
    model = prune(small(), 0.5)
    other = make_permanent(copy.deepcopy(model))
    assert torch.equal(model[0].weight, other[0].weight)
    with torch.no_grad():
        other[0].weight.add_(1)
    assert (model[0].weight == 0).sum() == 108
    assert torch.equal(make_permanent(model)[0].weight + 1, other[0].weight)


@pytest.mark.parametrize("change", [lambda m: prune(m, 0.7), lambda m: share_weights(m, 3)], ids=["prune", "share"])
def test_models_are_compressed_as_they_compute(change):
    model = change(small())
    before = sorted(model.state_dict())
    state = decompress(compress(model, 8))
    assert sorted(model.state_dict()) == before
    other = small(1)
    other.load_state_dict(state, strict=True)
    for path in ("0", "4", "6"):
        # Up to 255 values are kept as they are; the linear layer of 2560 is not in the first case.
        found, wanted = other.get_submodule(path).weight, model.get_submodule(path).weight
        assert torch.equal(found == 0, wanted == 0)
        torch.testing.assert_close(found, wanted, atol=1e-3, rtol=0)


def test_a_layer_of_two_places_is_compressed_at_both():
    layer = nn.Linear(4, 4)
    twice = prune(nn.Sequential(layer, nn.ReLU(), layer), 0.5)
    state = decompress(compress(twice))
    assert list(state) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    assert torch.equal(state["0.weight"], layer.weight) and torch.equal(state["2.weight"], layer.weight)


def test_other_parametrisations_are_left_alone():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 4))
    keys = set(model.state_dict())
    make_permanent(prune(model, 0.5))
    assert set(model.state_dict()) == keys
    assert (model[1].weight == 0).sum() == 8 and (model[0].weight != 0).all()


def test_networks_of_the_library_prune_and_share():
    net = models.create("mobilenet_v3_small", num_classes=10)
    share_weights(prune(net, 0.5), 4).train()
    net(torch.rand(2, 3, 64, 64)).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    weights = [m.weight for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert all(len(w.unique()) <= 16 and (w == 0).sum() == round(0.5 * w.numel()) for w in weights)


@pytest.mark.parametrize(
    ("sparsity", "message"),
    [
        (1.5, r"sparsity of '0.weight' must be from 0 to 1, got 1.5"),
        (-0.1, "got -0.1"),
        (float("nan"), "got nan"),
        (True, "got True"),
        ("0.5", "got '0.5'"),
        ({"7": 0.5}, "no weight tensor at or below '7'"),
        ({"1": 0.5}, "no weight tensor at or below '1'"),
    ],
)
def test_bad_sparsity_changes_nothing(sparsity, message):
    model = prune(small(), 0.3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        prune(model, sparsity)
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_weights_that_cannot_be_pruned_or_shared():
    bad = nn.Linear(2, 2)
    nn.init.constant_(bad.weight, float("nan"))
    for model, message in ((bad, "holds NaN or infinity"), (nn.Linear(2, 2, device="meta"), "is on the meta device")):
        for change in (prune, share_weights):
            with pytest.raises(ValueError, match=f"'weight' {message}"):
                change(model, 1)
            assert set(model.state_dict()) == {"weight", "bias"}


# Shared weights.


def test_gradient_of_a_shared_value_is_the_sum_of_its_weights():
    model = share_weights(prune(small(), 0.4), 3)
    plain = make_permanent(copy.deepcopy(model))
    images, labels = torch.randn(6, 3, 6, 6), torch.randint(4, (6,))
    for net in (model, plain):
        F.cross_entropy(net(images), labels).backward()
    for path in ("0", "4", "6"):
        values = model.get_submodule(path).parametrizations.weight.original
        layer = plain.get_submodule(path)
        assert values.shape == layer.weight[layer.weight != 0].unique().shape and len(values) in (6, 7)
        wanted = torch.stack([layer.weight.grad[layer.weight == value].sum() for value in values])
        torch.testing.assert_close(values.grad, wanted, rtol=1e-5, atol=1e-6)


def test_shared_values_train_and_are_compressed_exactly():
    model = share_weights(prune(small(), 0.4), 3)
    codes = [(model[at].weight[..., None] == model[at].weight.unique()).int().argmax(-1) for at in (4, 6)]
    before = model[4].weight.detach().clone()
    train(model, adam(model))
    assert (model[4].weight == 0).sum() == round(0.4 * before.numel())
    assert (model[4].weight != before)[before != 0].all()
    # The same weights share a value as before training, whatever it is now.
    for at, code in zip((4, 6), codes, strict=True):
        assert all(len(model[at].weight[code == each].unique()) == 1 for each in code.unique())
    state = decompress(compress(model, 3))
    make_permanent(model)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_sharing_is_that_of_compress():
    model = small()
    state = decompress(compress(model, 4))
    share_weights(model, 4)
    assert torch.equal(model[4].weight, state["4.weight"]) and torch.equal(model[0].weight, state["0.weight"])
    with pytest.raises(ValueError, match=r"bits of '6.weight' must be a whole number from 1 to 8, got 0"):
        share_weights(model, {"": 2, "6": 0})
    assert len(model[4].weight.unique()) == 15
