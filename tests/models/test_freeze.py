"""Transfer learning: what is frozen stays to the bit, and has no gradient; the rest trains."""

import copy

import pytest
import torch
import torch.nn.functional as F

from fastcnn.models import create, freeze
from fastcnn.train import classification_loss

NETWORKS = ["resnet18", "mobilenet_v2", "googlenet_bn"]


def train(net, steps=2):
    """Of two optimiser's steps, what changed and what has a gradient, by key."""
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 0.1, weight_decay=0.1)
    net.train()
    for _ in range(steps):
        optimizer.zero_grad()
        classification_loss(net(torch.randn(2, 3, 64, 64)), torch.tensor([0, 2])).backward()
        optimizer.step()
    changed = {key for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    return changed, {key for key, parameter in net.named_parameters() if parameter.grad is not None}


def is_in_head(net, key):
    return key.split(".")[0] in net.head_names


@pytest.mark.parametrize("network", NETWORKS)
def test_the_head_alone_trains(network):
    net = freeze(create(network)).replace_head(3)
    changed, with_gradient = train(net)
    head = {key for key, _ in net.named_parameters() if is_in_head(net, key)}
    assert with_gradient == head
    assert head <= changed and all(is_in_head(net, key) for key in changed)
    # In training mode still.
    assert net.training and len(head) < len(list(net.parameters()))


def test_up_to_a_feature():
    net = freeze(create("resnet18", 3), "layer2")
    changed, with_gradient = train(net)
    frozen = ("conv1.", "bn1.", "layer1.", "layer2.")
    assert not [key for key in changed | with_gradient if key.startswith(frozen)]
    later = {key for key in net.state_dict() if not key.startswith(frozen)}
    assert changed == later, "statistics of the norms that are not frozen are among them"


def test_frozen_statistics_are_those_that_eval_mode_uses():
    net, x = freeze(create("resnet18", 3)), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        net.layer1[0].bn1.running_mean.normal_()
        trained, judged = net.train().forward_features(x), net.eval().forward_features(x)
    assert torch.equal(trained, judged)


def test_fine_tuning_trains_all():
    net = create("resnet18").replace_head(3)
    changed, with_gradient = train(net)
    assert with_gradient == {key for key, _ in net.named_parameters()} and changed == set(net.state_dict())


def test_the_head_learns():
    """Four images of four classes, told apart by a head on random features."""
    net, x, labels = freeze(create("squeezenet1_1", 4, dropout=0.0)), torch.randn(4, 3, 64, 64), torch.arange(4)
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 0.01)
    first = F.cross_entropy(net(x), labels).item()
    for _ in range(30):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), labels)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.75 * first


def test_what_has_no_such_feature():
    with pytest.raises(ValueError, match=r"ResNet has no feature 'layer9'; it has .*layer4"):
        freeze(create("resnet18", device="meta"), "layer9")
