"""Steps of optimisers by their papers' formulas, and what the recipes of classifiers say."""

import itertools

import pytest
import torch
from torch import nn

from fastcnn.models import create
from fastcnn.train import RMSprop, reduce_on_plateau


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rmsprop_by_its_formula(momentum):
    """Three steps; the mean square begins at 1, eps is inside the root."""
    weight = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = RMSprop([weight], 0.1, decay=0.8, eps=0.5, momentum=momentum, weight_decay=0.01)
    wanted, square, moved = [1.0, -2.0], [1.0, 1.0], [0.0, 0.0]
    for gradient in ([0.3, -4.0], [2.0, 0.0], [-1.0, 1.0]):
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        for i in range(2):
            g = gradient[i] + 0.01 * wanted[i]
            square[i] = 0.8 * square[i] + 0.2 * g**2
            moved[i] = momentum * moved[i] + 0.1 * g / (square[i] + 0.5) ** 0.5
            wanted[i] -= moved[i]
        assert weight.tolist() == pytest.approx(wanted, rel=1e-12)


def test_rmsprop_goes_on_from_its_state_and_leaves_what_has_no_gradient():
    weights = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    still = nn.Parameter(torch.ones(2))
    optimizers = [RMSprop([weight, still], momentum=0.9) for weight in weights]
    for weight, optimizer in zip(weights, optimizers, strict=True):
        weight.grad = torch.tensor([1.0, -3.0])
        optimizer.step()
    again = RMSprop([weights[1], still], momentum=0.9)
    again.load_state_dict(optimizers[1].state_dict())
    for optimizer in (optimizers[0], again):
        assert optimizer.step(lambda: 7.0) == 7.0
    assert torch.equal(*weights) and torch.equal(still, torch.ones(2))


def test_the_rate_falls_three_times_and_no_more():
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([{"params": [weight], "lr": 0.01}], momentum=0.9, weight_decay=5e-4)
    schedule = reduce_on_plateau(optimizer, patience=2)
    rates = []
    for error in (0.9, 0.8, *[0.8] * 20):
        schedule.step(error)
        rates.append(optimizer.param_groups[0]["lr"])
    # It waits for two tests in vain, and falls at the third.
    assert rates[:4] == [0.01] * 4 and rates[4] == pytest.approx(0.001)
    falls = [after / before for before, after in itertools.pairwise(rates) if after != before]
    assert falls == pytest.approx([0.1] * 3) and rates[-1] == pytest.approx(1e-5)
    for error in (0.7, 0.6):
        schedule.step(error)
    assert optimizer.param_groups[0]["lr"] == rates[-1]


def test_a_falling_error_keeps_the_rate():
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1)
    schedule = reduce_on_plateau(optimizer, patience=0)
    for error in (0.9, 0.7, 0.5):
        schedule.step(error)
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_sgd_with_momentum_and_decay_is_alexnets():
    """Section 5: v = 0.9 v - 0.0005 lr w - lr g, w = w + v; torch's has the rate outside v, the same at one rate."""
    weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = torch.optim.SGD([weight], 0.01, momentum=0.9, weight_decay=5e-4)
    w, v = 2.0, 0.0
    for gradient in (1.0, -0.5, 0.25):
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        v = 0.9 * v - 0.0005 * 0.01 * w - 0.01 * gradient
        w += v
        assert weight.item() == pytest.approx(w, rel=1e-12)


@pytest.mark.parametrize("network", ["resnet50", "resnetv2_50", "resnext50_32x4d"])
def test_residual_networks_have_no_dropout(network):
    modules = create(network, device="meta").modules()
    assert not [module for module in modules if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: RMSprop(p, -1.0), "got lr=-1.0"),
        (lambda p: RMSprop(p, decay=1.0), "got decay=1.0"),
        (lambda p: reduce_on_plateau(torch.optim.SGD(p, 0.1), -1), "got -1 and 3"),
        (lambda p: reduce_on_plateau(torch.optim.SGD(p, 0.1), 1, 0), "got 1 and 0"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make([nn.Parameter(torch.ones(1))])
