"""Fused networks that run, change, are copied and run again: they must stay what they are with gradients on.

With gradients on, a fused network runs PyTorch's functions layer by layer: that is what the plan is compared with.
"""

import copy
import io
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.utils import parametrize

import fastcnn
from fastcnn.models.classification.squeezenet import Fire, Widths
from fastcnn.nn import ConvNormAct, ConvSequence, DepthwiseConv2d, fold_conv_norm
from fastcnn.ops import _library

X = torch.randn(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))
STEM, EXPAND, DEPTHWISE, PROJECT, DENSE, DILATED, LINEAR = "0.0", "1.0.0", "1.1.0", "1.2.0", "2.0", "4.0", "7"


def build():
    torch.manual_seed(0)
    net = ConvSequence(
        ConvNormAct(3, 24, 3, 2),
        ConvSequence(
            ConvNormAct(24, 48, 1, act=nn.ReLU6),
            ConvNormAct(48, 48, 3, groups=48, act=nn.Hardswish),
            ConvNormAct(48, 24, 1, act=None),
        ),
        ConvNormAct(24, 32, 3, act=nn.SiLU),
        nn.Dropout(0.5),
        ConvNormAct(32, 40, 3, dilation=2, padding=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(40, 20),
    )
    for parameter in net.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter)
    return fold_conv_norm(net.eval())


def fused(net, *inputs):
    with torch.no_grad():
        return net(*inputs)


def unfused(net, *inputs):
    with torch.enable_grad():
        return net(*inputs).detach()


@pytest.fixture
def net():
    """That has run, so that it keeps a plan and packed weights."""
    net = build()
    fused(net, X)
    assert "_plan" in net.__dict__ and "_kept" in net.get_submodule(DENSE).__dict__
    return net


def assert_same(net, *inputs):
    found, wanted = fused(net, *inputs), unfused(net, *inputs)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5, equal_nan=True)
    return found


def scale(net):
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.5)


def scale_data(net):
    for parameter in net.parameters():
        parameter.data.mul_(1.5)
    net.eval()  # PyTorch does not count such changes.


def set_data(net):
    for parameter in net.parameters():
        parameter.data = parameter.data * 1.5


def load(net, **options):
    net.load_state_dict({key: value * 1.5 for key, value in net.state_dict().items()}, **options)


def through_meta(net):
    state = {key: value * 1.5 for key, value in net.state_dict().items()}
    assert fused(net.to("meta"), X.to("meta")).shape == (2, 20)
    net.to_empty(device="cpu").load_state_dict(state)


def spread_biases(net):
    for parameter in net.parameters():
        if parameter.dim() == 1:
            parameter.data = torch.randn(2 * len(parameter))[::2]


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
        state = {key: value * 1.5 for key, value in net.state_dict().items()}
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


class Twice(nn.Module):
    def forward(self, weight):
        return 2 * weight


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
    before, wanted = torch.get_num_threads(), fused(net, X)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(fused(net, X), wanted)
    finally:
        torch.set_num_threads(before)


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


def last(x):
    return x.contiguous(memory_format=torch.channels_last)


INPUTS = {
    "empty": lambda x: x[:0],
    "one pixel": lambda x: x[..., :1, :1],
    "odd": lambda x: x[..., :7, 1:14],
    "some channels": lambda x: torch.cat((x, x), 1)[:, 1 : 1 + x.size(1)],
    "some channels of channels_last": lambda x: last(torch.cat((x, x), 1))[:, 1 : 1 + x.size(1)],
    "transposed": lambda x: x.transpose(2, 3),
    "expanded images": lambda x: x[:1].expand(4, *x.shape[1:]),
    "expanded rows": lambda x: x[:, :, :1].expand(x.shape),
    "one image": lambda x: x[0],
    "nan": lambda x: x.index_fill(3, torch.tensor(5), torch.nan),
    "inf": lambda x: x.index_fill(2, torch.tensor(4), torch.inf),
    "minus inf": lambda x: x.index_fill(2, torch.tensor(4), -torch.inf),
}


@pytest.mark.parametrize("part", ["whole", "block"])
@pytest.mark.parametrize("case", INPUTS)
def test_inputs(net, case, part):
    body, x = (net[:5], X) if part == "whole" else (net[1], torch.cat([X] * 8, 1))
    assert_same(body, INPUTS[case](x))


@pytest.mark.parametrize(
    "residual", [torch.ones(1, 24, 1, 1), torch.ones(2, 24, 20, 20).double(), torch.ones(2, 24, 20, 20)]
)
def test_residuals_are_added_as_they_are(net, residual):
    assert_same(net[1], torch.cat([X] * 8, 1), residual)
    assert_same(net[1][2], torch.cat([X] * 16, 1), residual)


def wide_kernel(*layers):
    return fold_conv_norm(ConvSequence(*layers).eval())


REFUSED = {
    "channels": (build, torch.ones(2, 4, 20, 20)),
    "dtype": (build, X.double()),
    "integers": (build, torch.ones(2, 3, 20, 20, dtype=torch.int64)),
    "dimensions": (build, X[0, 0]),
    "no pixels": (build, X[..., :0]),
    "kernel": (lambda: wide_kernel(nn.Conv2d(3, 16, 21)), X),
    "oneDNN's kernel": (lambda: wide_kernel(nn.Conv2d(3, 16, 11, dilation=2)), X),
    "depthwise kernel": (lambda: wide_kernel(nn.Conv2d(3, 16, 1), DepthwiseConv2d(16, 16, 7)), X[..., :5]),
    "a lone depthwise kernel": (lambda: wide_kernel(DepthwiseConv2d(3, 3, 7)), last(X[..., :5])),
}


@pytest.mark.parametrize("case", REFUSED)
def test_errors_are_those_of_the_layers(case):
    make, x = REFUSED[case]
    with pytest.raises((RuntimeError, ValueError)) as wanted:
        unfused(make(), x)
    with pytest.raises(wanted.type) as found:
        fused(make(), x)
    assert str(found.value) == str(wanted.value)
    assert "\n" not in str(found.value)


@pytest.fixture
def fire():
    """That has run with its two convolutions side by side."""
    torch.manual_seed(0)
    fire = fold_conv_norm(Fire(24, Widths(16, 32, 48)).eval())
    assert_same(fire, FIRE_INPUT)
    return fire


FIRE_INPUT = torch.randn(2, 24, 9, 7, generator=torch.Generator().manual_seed(1))


def narrower(conv):
    for name in ("weight", "bias"):
        setattr(conv, name, nn.Parameter(getattr(conv, name)[:17].detach().clone()))


BESIDE = {
    "fewer filters first": lambda fire: narrower(fire.expand1x1),
    "fewer filters last": lambda fire: narrower(fire.expand3x3),
    "padding as a number": lambda fire: setattr(fire.expand3x3, "padding", 1),
    "a stride": lambda fire: [setattr(conv, "stride", (2, 2)) for conv in (fire.expand1x1, fire.expand3x3)],
    "an activation": lambda fire: setattr(fire.expand1x1, "activation", "silu"),
    "a parametrised bias": lambda fire: parametrize.register_parametrization(fire.expand1x1, "bias", Twice()),
    "a parametrised weight": lambda fire: parametrize.register_parametrization(fire.expand3x3, "weight", Twice()),
    "biases with strides": spread_biases,
    "a layer replaced": lambda fire: setattr(fire, "expand1x1", nn.Conv2d(16, 20, 1)),
    "an activation replaced": lambda fire: setattr(fire, "expand1x1_activation", nn.Tanh()),
}


@pytest.mark.parametrize("change", BESIDE)
def test_side_by_side(fire, change):
    BESIDE[change](fire)
    assert_same(fire, FIRE_INPUT)


@pytest.mark.parametrize("path", ["squeeze", "expand1x1", "expand3x3", "expand3x3_activation"])
def test_hooks_side_by_side(fire, path):
    calls = []
    fire.get_submodule(path).register_forward_hook(lambda module, args, output: calls.append(path) or output * 2)
    assert_same(fire, FIRE_INPUT)
    assert calls == [path] * 2


def test_side_by_side_whatever_the_defaults(fire):
    wanted = fused(fire, FIRE_INPUT)
    with torch.device("meta"):
        assert torch.equal(fused(fire, FIRE_INPUT), wanted)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(fused(fire, FIRE_INPUT), wanted)
    finally:
        torch.set_default_dtype(torch.float32)


def test_side_by_side_sizes_that_differ(fire):
    fire.expand3x3.padding = (0, 0)
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        fused(fire, FIRE_INPUT)
    fire.expand1x1.padding = (1, 1)
    with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        fused(fire, FIRE_INPUT[..., :2, :2])
