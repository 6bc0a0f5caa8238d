"""Fused networks that run, change, are copied and run again: they must stay what they are with gradients on.

With gradients on, a fused network runs PyTorch's functions layer by layer: that is what the plan is compared with.
"""

import copy
import io
import pickle
import threading

import pytest
import torch
from fused_net import (
    DENSE,
    DEPTHWISE,
    DILATED,
    EXPAND,
    LINEAR,
    PROJECT,
    STEM,
    Twice,
    X,
    assert_same,
    build,
    fused,
    load,
    scale,
    scale_data,
    set_data,
    spread_biases,
    that_has_run,
    unfused,
)
from threads import threads
from torch import nn
from torch.autograd import forward_ad
from torch.nn.utils import parametrize

import fastcnn
from fastcnn.nn import DepthwiseConv2d, fold_conv_norm
from fastcnn.ops import _library


@pytest.fixture
def net():
    return that_has_run()


def through_meta(net):
    state = {key: value * 1.25 for key, value in net.state_dict().items()}
    assert fused(net.to("meta"), X.to("meta")).shape == (2, 20)
    net.to_empty(device="cpu").load_state_dict(state)


def one_bias_for_all(net):
    for parameter in net.parameters():
        if parameter.dim() == 1:
            parameter.data = torch.full((1,), 0.5).expand(len(parameter))


def turn_filters(net):
    weight = net.get_submodule(DEPTHWISE).weight
    weight.data = weight.data.transpose(2, 3)


def replace(net):
    net.set_submodule(DEPTHWISE, DepthwiseConv2d(48, 48, 5, padding=2))
    net[1][0][2] = nn.Tanh()
    net[1][2] = nn.Conv2d(48, 24, 1)


def remove_and_insert(net):
    del net[3]
    net.insert(3, nn.Tanh())


WEIGHTS = {
    "in place": scale,
    "data in place, then eval()": scale_data,
    "data": set_data,
    "load_state_dict": load,
    "load_state_dict by assignment": lambda net: load(net, assign=True),
    "half and back": lambda net: net.half().float(),
    "bfloat16 and back": lambda net: net.bfloat16().float(),
    "double and back": lambda net: (scale(net.double()), net.float()),
    "meta and back": through_meta,
    "biases with strides": spread_biases,
    "biases expanded": one_bias_for_all,
    "filters transposed": turn_filters,
    "layers replaced": replace,
    "layers removed and inserted": remove_and_insert,
    "no bias": lambda net: setattr(net.get_submodule(PROJECT), "bias", None),
}


@pytest.mark.parametrize("change", WEIGHTS)
def test_changes_are_seen(net, change):
    before = fused(net, X)
    WEIGHTS[change](net)
    found = assert_same(net, X)
    assert not torch.equal(found, before)


@pytest.mark.parametrize("layer", [nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 1), nn.Linear(16, 16)])
def test_another_view_of_the_same_memory(layer):
    net = fold_conv_norm(nn.Sequential(copy.deepcopy(layer)).eval())
    x = torch.randn(2, 16) if isinstance(layer, nn.Linear) else torch.randn(2, 16, 5, 5)
    assert_same(net, x)
    weight = net[0].weight
    weight.data = weight.data.transpose(0, 1)
    assert_same(net, x)


def test_weights_from_inference_mode(net):
    net.requires_grad_(False)
    with torch.inference_mode():
        state = {key: value * 1.25 for key, value in net.state_dict().items()}
    net.load_state_dict(state, assign=True)
    other = build()
    other.load_state_dict({key: value.clone() for key, value in state.items()})
    torch.testing.assert_close(fused(net, X), unfused(other, X), rtol=1e-4, atol=1e-5)


def test_built_in_inference_mode():
    with torch.inference_mode():
        net = build()
        before = net(X).clone()
        scale(net)
        found = net(X).clone()
    other = build()
    torch.testing.assert_close(before, unfused(other, X), rtol=1e-4, atol=1e-5)
    scale(other)
    torch.testing.assert_close(found, unfused(other, X), rtol=1e-4, atol=1e-5)


def test_packed_in_inference_mode():
    net = build().requires_grad_(False)
    with torch.inference_mode():
        found = net(X).clone()
    assert torch.equal(found, fused(net, X))
    torch.testing.assert_close(net(X), found, rtol=1e-4, atol=1e-5)


ATTRIBUTES = [
    (EXPAND, {"activation": "silu"}),
    (EXPAND, {"stride": (2, 2)}),
    (EXPAND, {"padding": (1, 1)}),
    (DEPTHWISE, {"activation": None}),
    (DEPTHWISE, {"stride": (2, 2)}),
    (DEPTHWISE, {"stride": (3, 3)}),
    (DEPTHWISE, {"stride": 2}),
    (DEPTHWISE, {"dilation": (2, 2)}),
    (DEPTHWISE, {"padding": (0, 2)}),
    (DEPTHWISE, {"padding": 2}),
    (DEPTHWISE, {"padding_mode": "reflect", "_reversed_padding_repeated_twice": [1] * 4}),
    (PROJECT, {"activation": "relu"}),
    (DENSE, {"activation": "relu6"}),
    (DENSE, {"stride": (2, 2)}),
    (DENSE, {"stride": 2}),
    (DENSE, {"padding": (2, 0)}),
    (DENSE, {"padding": 2}),
    (DENSE, {"dilation": (2, 2)}),
    (DENSE, {"dilation": 2}),
    (DENSE, {"padding_mode": "reflect", "_reversed_padding_repeated_twice": [1] * 4}),
    (DILATED, {"stride": (2, 1)}),
    (DILATED, {"padding": 3}),
    (DILATED, {"padding_mode": "circular", "_reversed_padding_repeated_twice": [2] * 4}),
]


@pytest.mark.parametrize("path, attributes", ATTRIBUTES)
def test_attributes_changed(net, path, attributes):
    before = fused(net, X)
    for name, value in attributes.items():
        setattr(net.get_submodule(path), name, value)
    assert not torch.equal(assert_same(net, X), before)


@pytest.mark.parametrize("path", ["1", "1.0", EXPAND, "1.0.1", DEPTHWISE, PROJECT, DENSE, "0.2", LINEAR])
@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks(net, path, kind):
    layer, calls, before = net.get_submodule(path), [], fused(net, X)

    def hook(module, args, *output):
        calls.append(module)
        return output[0] * 2 if output else (args[0] * 2,)

    handle = getattr(layer, kind)(hook)
    assert not torch.equal(assert_same(net, X), before)
    assert calls == [layer] * 2
    handle.remove()
    assert torch.equal(fused(net, X), before)


@pytest.mark.parametrize("kind", ["register_module_forward_hook", "register_module_forward_pre_hook"])
def test_global_hooks(net, kind):
    calls = []
    handle = getattr(nn.modules.module, kind)(lambda module, *_: calls.append(module))
    try:
        unfused(net, X)
        wanted, calls[:] = list(calls), []
        fused(net, X)
    finally:
        handle.remove()
    assert calls == wanted and net.get_submodule(DEPTHWISE) in wanted


def test_forward_replaced(net):
    layer = net.get_submodule(DEPTHWISE)
    forward, before = layer.forward, fused(net, X)
    layer.forward = lambda x: forward(x) * 2
    assert not torch.equal(assert_same(net, X), before)


@pytest.mark.parametrize("tensor", ["weight", "bias"])
@pytest.mark.parametrize("path", [STEM, EXPAND, DEPTHWISE, PROJECT, LINEAR])
def test_parametrised(net, path, tensor):
    before = fused(net, X)
    parametrize.register_parametrization(net.get_submodule(path), tensor, Twice())
    assert not torch.equal(assert_same(net, X), before)


@pytest.mark.parametrize("path", [STEM, EXPAND, DEPTHWISE, LINEAR])
def test_weight_norm(net, path):
    layer = nn.utils.parametrizations.weight_norm(net.get_submodule(path))
    with torch.no_grad():
        layer.parametrizations.weight.original0.mul_(3)
    assert_same(net, X)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda net: pickle.loads(pickle.dumps(net)),
    "torch.save": lambda net: torch.load(save(net), weights_only=False),
}


def save(net):
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("way", COPIES)
def test_copies(net, way):
    other, before = COPIES[way](net), fused(net, X)
    assert not any({"_kept", "_plan"} & set(module.__dict__) for module in other.modules())
    assert torch.equal(fused(other, X), before)
    scale(other)
    assert not torch.equal(assert_same(other, X), before)
    assert torch.equal(fused(net, X), before)


def test_a_replica_runs_its_own_layers(net):
    replica = net._replicate_for_data_parallel()
    replica._modules["1"] = nn.Tanh()
    assert_same(replica, X)


def test_functional_call(net):
    parameters = {name: value.detach() * 1.4 for name, value in net.named_parameters()}
    found = fused(lambda x: torch.func.functional_call(net, parameters, (x,)), X)
    scaled = copy.deepcopy(net)
    scaled.load_state_dict(parameters)
    torch.testing.assert_close(found, unfused(scaled, X), rtol=1e-4, atol=1e-5)
    assert_same(net, X)


def test_forward_mode_without_gradients(net):
    tangents = []
    for enabled in (False, True):
        with forward_ad.dual_level(), torch.set_grad_enabled(enabled):
            dual = forward_ad.make_dual(X, torch.ones_like(X))
            tangents.append(forward_ad.unpack_dual(net(dual)).tangent)
        tangents.append(torch.func.jvp(net, (X,), (torch.ones_like(X),))[1].detach())
    assert tangents[0] is not None and tangents[0].abs().max() > 0
    for tangent in tangents[1:]:
        torch.testing.assert_close(tangents[0], tangent)


def test_vmap(net):
    body = net[:5]
    found = fused(torch.func.vmap(body), X[:, None])[:, 0]
    torch.testing.assert_close(found, unfused(body, X), rtol=1e-4, atol=1e-5)


TRACERS = {
    "compile": lambda net: torch.compile(net, fullgraph=True, backend="eager"),
    "export": lambda net: torch.export.export(net, (X,)).module(),
    "jit": lambda net: torch.jit.trace(net, X),
}


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("way", TRACERS)
def test_traced(net, way):
    traced, other = fused(TRACERS[way], net), X.flip(0, 3)
    torch.testing.assert_close(fused(traced, other), unfused(net, other), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", [fastcnn.reference_mode, _library.kernel_mode, lambda: torch.autocast("cpu")])
def test_modes(net, mode):
    with mode():
        found, wanted = fused(net, X), unfused(net, X)
    tolerance = 5e-2 if found.dtype == torch.bfloat16 else 1e-4
    assert found.dtype == wanted.dtype
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


def test_bits_whatever_the_number_of_threads(net):
    wanted = fused(net, X)
    for count in (1, 2, 3):
        with threads(count):
            assert torch.equal(fused(net, X), wanted)


def test_many_callers_at_once():
    net, found = build(), []
    wanted = fused(copy.deepcopy(net), X)

    def call():
        with torch.inference_mode():
            found.extend(net(X).clone() for _ in range(10))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 40 and all(torch.equal(result, wanted) for result in found)


def test_dropout_in_training(net):
    fused(net.train(), X)
    torch.manual_seed(3)
    one, other = fused(net, X), fused(net, X)
    assert not torch.equal(one, other)
