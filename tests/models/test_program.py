"""Fused networks that have recorded what they call: they must stay what they are with gradients on."""

import copy
import gc
import pickle
import threading
import weakref

import pytest
import torch
from fused_net import Twice, fused, load, scale, scale_data, set_data, spread_biases, unfused
from threads import threads
from torch import nn
from torch.nn.utils import parametrize

import fastcnn
from fastcnn.models._net import ConvNet
from fastcnn.nn import program
from fastcnn.ops import _library

X = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
NAME = "mobilenet_v3_small"
EXPAND, DEPTHWISE, PROJECT = (f"features.2.block.{index}.0" for index in range(3))
STEM, GATE, LINEAR = "features.0.0", "features.4.block.2", "classifier.0"


def build(name=NAME, **options):
    torch.manual_seed(0)
    net = fastcnn.models.create(name, num_classes=20, **options).eval().fuse()
    for parameter in net.parameters():  # Otherwise little is left of the input in so deep a network.
        if parameter.dim() == 1:
            nn.init.normal_(parameter)
        else:
            nn.init.kaiming_uniform_(parameter, nonlinearity="relu")
    return net


def recorded(net):
    return [call for call in program._programs[net]._calls.values() if call is not None]


@pytest.fixture
def net():
    """That has run three times, the last time what it has recorded."""
    net = build()
    for _ in range(3):
        fused(net, X)
    assert len(recorded(net)) == 1
    return net


def assert_same(net, x=X):
    """Every time: as layers, while it records, and what it has recorded."""
    wanted = unfused(net, x)
    scale = wanted.abs().max().item()
    for _ in range(4):
        found = fused(net, x)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * scale, equal_nan=True)
    return found


def turn(net):
    weight = net.get_submodule(DEPTHWISE).weight
    weight.data = weight.data.transpose(2, 3)


def repack(net):
    """What PyTorch does not count, and packed anew by another than the network."""
    scale_data(net)
    fused(net.features, X)


def set_all(path, **attributes):
    return lambda net: [setattr(net.get_submodule(path), *item) for item in attributes.items()]


CHANGES = {
    "in place": scale,
    "data in place, then eval()": scale_data,
    "data in place, then packed": repack,
    "data": set_data,
    "load_state_dict": load,
    "load_state_dict by assignment": lambda net: load(net, assign=True),
    "biases with strides": spread_biases,
    "filters transposed": turn,
    "a parameter replaced": lambda net: setattr(net.get_submodule(STEM), "bias", nn.Parameter(torch.ones(16))),
    "no bias": lambda net: setattr(net.get_submodule(PROJECT), "bias", None),
    "activation": set_all(DEPTHWISE, activation="silu"),
    "stride": set_all(DEPTHWISE, stride=(1, 1)),
    "padding": set_all(STEM, padding=(2, 2)),
    "a shortcut left out": set_all("features.3", use_shortcut=False),
    "a gate by modules": lambda net: set_all(GATE, as_one_op=False, scale_activation=nn.Tanh())(net),
    "a gate's weights": lambda net: nn.init.normal_(net.get_submodule(GATE).fc2.weight),
    "a layer replaced": lambda net: net.set_submodule(PROJECT, nn.Conv2d(72, 24, 1)),
    "a layer of one's own": lambda net: net.set_submodule("features.1", nn.Sequential(net.features[1], Twice())),
    "another class": lambda net: setattr(net.get_submodule("classifier.1"), "__class__", nn.Tanh),
    "forward": lambda net: setattr(net.avgpool, "forward", lambda x: x.amax((2, 3), keepdim=True)),
    "a parametrised weight": lambda net: parametrize.register_parametrization(
        net.get_submodule(EXPAND), "weight", Twice()
    ),
    "a norm of weights": lambda net: nn.init.ones_(
        nn.utils.parametrizations.weight_norm(net.get_submodule(LINEAR)).parametrizations.weight.original0
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_seen(net, change):
    before = fused(net, X)
    CHANGES[change](net)
    assert not torch.equal(assert_same(net), before)


@pytest.mark.parametrize("path", ["features.2", EXPAND, DEPTHWISE, "features.2.block.0.1", "avgpool"])
@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks(net, path, kind):
    calls, before = [], fused(net, X)

    def hook(module, args, *output):
        calls.append(module)
        return output[0] * 2 if output else (args[0] * 2,)

    handle = getattr(net.get_submodule(path), kind)(hook)
    assert not torch.equal(assert_same(net), before)
    assert len(calls) == 5  # Every time.
    handle.remove()
    assert torch.equal(fused(net, X), before)


@pytest.mark.parametrize("mode", [fastcnn.reference_mode, _library.kernel_mode, lambda: torch.autocast("cpu")])
def test_modes(net, mode):
    with mode():
        found, wanted = fused(net, X), unfused(net, X)
    tolerance = 0.1 if found.dtype == torch.bfloat16 else 1e-4
    assert found.dtype == wanted.dtype
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance * wanted.abs().max().item())


def test_global_hooks(net):
    calls = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: calls.append(module))
    try:
        fused(net, X)
    finally:
        handle.remove()
    assert net.get_submodule(DEPTHWISE) in calls


@pytest.mark.parametrize("network", [NAME, "shufflenet_v1_g3", "shufflenet_v2_x0_5", "squeezenet1_1", "resnet18"])
def test_bits_and_sizes(network):
    net = build(network)
    unfused(net, X)  # Rows keep what they make of their layers then.
    inputs = X, X[:, :, :48, 1:50], torch.cat([X, X.flip(3)]), X.contiguous(memory_format=torch.channels_last)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            for x in inputs:
                first = net(x).clone()
                for count in (1, 2, 3):
                    with threads(count):
                        assert torch.equal(net(x), first)
                scale = first.abs().max().item()
                torch.testing.assert_close(first, unfused(net, x), rtol=1e-4, atol=1e-5 * scale)
    assert len(recorded(net)) == 8


def test_few_sizes_are_kept(net):
    for width in range(33, 60):
        fused(net, X[..., :width])
    assert len(recorded(net)) <= program._MOST


def test_features():
    net = fastcnn.models.create(NAME, features_only=True).eval().fuse()
    wanted = net(X)
    for _ in range(4):
        found = fused(net, X)
        assert list(found) == list(wanted)
        torch.testing.assert_close(found, {name: value.detach() for name, value in wanted.items()})
    assert len(recorded(net)) == 1
    fused(net.keep_features(["features.1"]), X)
    assert list(fused(net, X)) == ["features.1"]


def test_results_are_new(net):
    first = fused(net, X)
    kept = first.clone()
    fused(net, X + 1).add_(1)
    assert torch.equal(first, kept)


class Branching(type(fastcnn.models.create(NAME, device="meta"))):
    def forward_head(self, features):
        return super().forward_head(features) * (2 if features.sum() > 0 else 3)


def test_networks_of_ones_own_are_not_recorded(net):
    net.__class__ = Branching
    assert_same(net)
    assert not program._programs[net]._calls


def test_what_depends_on_numbers_is_not_recorded(net, monkeypatch):
    monkeypatch.setattr(Branching, "__module__", "fastcnn.models")
    net.__class__ = Branching
    assert_same(net)
    assert list(program._programs[net]._calls.values()) == [None]


def test_what_changes_its_input_is_not_recorded():
    net = build()
    net.features[0] = nn.Sequential(nn.ReLU(inplace=True), net.features[0])
    for _ in range(4):
        x = X.clone()
        fused(net, x)
        assert torch.equal(x, X.relu())
    assert not recorded(net)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies(net, way):
    other, before = way(net), fused(net, X)
    assert other not in program._programs
    scale(other)
    assert not torch.equal(assert_same(other), before)
    assert torch.equal(fused(net, X), before)


def test_a_replica_runs_its_own_layers(net):
    replica = net._replicate_for_data_parallel()
    replica._modules["avgpool"] = nn.AdaptiveMaxPool2d(1)
    assert not torch.equal(assert_same(replica), fused(net, X))


def test_functional_call(net):
    before = fused(net, X)
    parameters = {name: value.detach() * 1.25 for name, value in net.named_parameters()}
    found = [fused(lambda x: torch.func.functional_call(net, parameters, (x,)), X) for _ in range(4)]
    load(net)
    for result in found:
        torch.testing.assert_close(result, unfused(net, X), rtol=1e-4, atol=1e-3)
        assert not torch.equal(result, before)


def test_many_callers_at_once(net):
    wanted, found = fused(net, X), []

    def call():
        with torch.no_grad():
            found.extend(net(X) for _ in range(10))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 40 and all(torch.equal(result, wanted) for result in found)


def test_training_and_back(net):
    before = fused(net, X)
    net.train()
    assert not torch.equal(fused(net, X), fused(net, X))  # Dropout.
    net.eval()
    assert torch.equal(assert_same(net), before)


def test_networks_are_freed():
    net = build()
    for _ in range(3):
        fused(net, X)
    gone = weakref.ref(net)
    gc.disable()
    try:
        del net
        assert gone() is None
    finally:
        gc.enable()


def test_only_fused_networks_are_recorded():
    net = fastcnn.models.create(NAME).eval()
    assert isinstance(net, ConvNet) and not net.is_fused
    for _ in range(3):
        fused(net, X)
    assert net not in program._programs
