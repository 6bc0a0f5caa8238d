"""Every registered classifier, held against published counts and outputs: to register a row is to test it."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from expectation import EXPECTED, FIRST, TYPICAL, create
from torch._subclasses.fake_tensor import FakeTensorMode

from fastcnn import models
from fastcnn.models.__main__ import network_line

NETWORKS_PAGE = (Path(__file__).parents[2] / "docs" / "networks.md").read_text().splitlines()
RECORDED = [
    pytest.param(name, row.golden, marks=[pytest.mark.slow] if row.heavy or row.lighter else [])
    for name, row in EXPECTED.items()
    if row.golden
]
# Of those compiled ahead of time too: group convolutions with a shuffle, branches, and norms before convolutions.
AHEAD_OF_TIME = ("shufflenet_v2_x0_5", "googlenet", "densenet121")
VARIANTS = [(name, *variant) for name, row in EXPECTED.items() for variant in row.variants]


def image(net, size, batch=2, **options):
    shape = (batch, net.in_channels, size, size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), **options)


def near(macs, found, within):
    return found == macs if isinstance(macs, int) else abs(found - macs) <= within * macs


def test_every_classifier_has_expectations():
    assert sorted(EXPECTED) == models.list_models(task="classification")


@pytest.mark.every_row
def test_counts_and_shapes(name, expected):
    net = models.create(name, device="meta")
    seen = []
    for path, _ in expected.trace:
        net.get_submodule(path).register_forward_hook(
            lambda module, args, output, path=path: seen.append((path, tuple(output.shape[1:])))
        )
    counted = models.summary(net)
    assert sorted(seen) == sorted(expected.trace)
    assert counted.params == expected.params
    assert near(expected.macs, counted.macs, expected.macs_within), counted.macs
    assert expected.params_with_bn_stats in (None, counted.params_with_bn_stats)
    assert expected.weights_only in (None, counted.weights_only)
    assert network_line(name, counted) in NETWORKS_PAGE


@pytest.mark.parametrize(("variant", "overrides", "params", "macs"), VARIANTS)
def test_counts_of_variants(variant, overrides, params, macs):
    counted = models.summary(models.create(variant, device="meta", **overrides))
    assert counted.params == params
    assert macs is None or near(macs, counted.macs, EXPECTED[variant].macs_within), counted.macs


@pytest.mark.parametrize(("recorded", "record"), [(p.values[0], p.values[1]) for p in RECORDED])
def test_state_dict_is_the_published_one(recorded, record, golden_of):
    golden = golden_of(record)
    state = models.create(recorded, device="meta").state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == golden["state"]
    assert list(state) == list(golden["state"])


@pytest.mark.parametrize(("recorded", "record"), RECORDED)
def test_output_is_the_published_one(recorded, record, golden_of, filled):
    golden = golden_of(record)
    net = filled(models.create(recorded, dtype=torch.float64))
    shape = (2, net.in_channels, golden["size"], golden["size"])
    assert golden["size"] in (net.preprocess.input_size, 224)  # Those of networks for larger images may be smaller.
    with torch.inference_mode():
        logits = net(torch.from_numpy(np.random.RandomState(0).random_sample(shape))).flatten()
    digest = golden["output"]["logits"]
    assert logits.numel() == digest["numel"]
    found = [logits.norm().item(), logits.mean().item(), *logits[:8].tolist(), *logits[-4:].tolist()]
    wanted = [digest["norm"], digest["mean"], *digest["first"], *digest["last"]]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.every_row(by_value=True)
def test_every_parameter_gets_a_gradient(name, side):
    torch.manual_seed(0)
    net = create(name, num_classes=7, **EXPECTED[name].steady)
    x = image(net, side).requires_grad_()
    logits = net(x)
    sum(each.square().sum() for each in (logits if isinstance(logits, tuple) else (logits,))).backward()
    without = [key for key, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    assert x.grad.any()


@pytest.mark.every_row(by_value=True, fast=FIRST)
def test_eval_is_deterministic_and_independent_of_the_batch(name, side, filled):
    net = filled(create(name, dtype=torch.float64))
    x = image(net, side, dtype=torch.float64)
    with torch.inference_mode():
        first, second = net(x), net(x)
        one_by_one = torch.cat([net(sample[None]) for sample in x])
    assert torch.equal(first, second)
    torch.testing.assert_close(one_by_one, first, rtol=1e-10, atol=1e-10)


def test_channels_last_gives_the_same_logits(name, side, filled):
    net = filled(create(name, dtype=torch.float64))
    x = image(net, side, dtype=torch.float64)
    with torch.inference_mode():
        wanted = net(x)
        found = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("batch", [0, 1])
def test_small_batches(name, side, batch):
    net = create(name).eval()
    with torch.no_grad():
        assert net(image(net, side, batch)).shape == (batch, net.num_classes)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_options_on_meta(name, side, dtype, expected):
    net = create(name, num_classes=10, in_channels=2, device="meta", dtype=dtype).eval()
    assert {p.dtype for p in net.parameters()} == {dtype}
    assert {t.device.type for t in net.state_dict().values()} == {"meta"}
    assert (net.num_classes, net.in_channels) == (10, 2)
    other = side + 32 if expected.any_size else side
    logits = net(torch.empty(2, 2, other, side, device="meta", dtype=dtype))
    assert (logits.shape, logits.dtype) == ((2, 10), dtype)


@pytest.mark.every_row(fast=FIRST)
def test_fake_tensors(name):
    with FakeTensorMode():
        net = create(name).eval()
        logits = net(torch.empty(2, net.in_channels, *[net.preprocess.input_size] * 2))
    assert logits.shape == (2, net.num_classes)


def test_bfloat16_is_close(name, side, filled):
    net = filled(create(name)).eval()
    x = image(net, side)
    with torch.inference_mode():
        wanted = net(x)
        found = net.to(torch.bfloat16)(x.to(torch.bfloat16)).float()
    assert (found - wanted).norm() < 0.1 * wanted.norm()


def test_autocast(name, side, filled):
    net = filled(create(name))
    x = image(net, side)
    with torch.inference_mode():
        wanted = net(x)
        with torch.autocast("cpu", torch.bfloat16):
            found = net(x)
    assert found.dtype == torch.bfloat16
    assert (found.float() - wanted).norm() < 0.1 * wanted.norm()


def test_seed_fixes_the_initialisation(name):
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(create(name).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_initialised_activations_keep_their_scale(name, side, expected):
    torch.manual_seed(0)
    net = create(name, features_only=True)
    with torch.no_grad():
        maps = net(image(net, side, batch=4).sub(0.5).mul(expected.pixel_range))
    for key, value in maps.items():
        assert 0.1 < value.std() < 10, key


@pytest.mark.every_row
def test_wrong_input_shape_is_shown(name):
    net = create(name, device="meta")
    channels = net.in_channels
    for shape in ((channels, 64, 64), (1, channels + 1, 64, 64), (1, 64, 64, channels)):
        with pytest.raises(ValueError, match=rf"takes \(N, {channels}, H, W\), got \(") as error:
            net(torch.empty(shape, device="meta"))
        assert str(shape) in str(error.value)


def test_replace_head(name, side, expected):
    torch.manual_seed(0)
    net = create(name).eval()
    weight = net.get_submodule(net.classifier_path).weight
    spread = weight.std().item()
    assert spread == pytest.approx(expected.classifier_std or (3 * weight[0].numel()) ** -0.5, rel=0.03)
    paths = (net.classifier_path, *(head for _, head in net.auxiliary))
    body = {k: v.clone() for k, v in net.state_dict().items() if not k.startswith(paths)}
    assert net.replace_head(5) is net
    assert net.num_classes == 5
    assert net.get_submodule(net.classifier_path).weight.std().item() == pytest.approx(spread, rel=0.2)
    assert not any(module.training for module in net.modules())
    with torch.no_grad():
        assert net(image(net, side)).shape == (2, 5)
        logits = net.train()(image(net, side))
        assert {tuple(each.shape) for each in (logits if net.auxiliary else (logits,))} == {(2, 5)}
    found = {k: v for k, v in net.state_dict().items() if k in body and not k.endswith(RUNNING)}
    assert all(torch.equal(value, body[key]) for key, value in found.items())
    with pytest.raises(ValueError, match="at least 1, got 0"):
        net.replace_head(0)
    with pytest.raises(ValueError, match="has no head"):
        create(name, features_only=True, device="meta").replace_head(5)


RUNNING = ("running_mean", "running_var", "num_batches_tracked")


def test_copies_are_independent(name):
    net = create(name)
    twin = copy.deepcopy(net)
    assert type(twin) is type(net)
    assert dataclasses.asdict(twin.row.preprocess) == dataclasses.asdict(net.row.preprocess)
    with torch.no_grad():
        next(twin.parameters()).zero_()
    assert next(net.parameters()).any()


@pytest.mark.parametrize("backend", ["traced", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_as_one_graph(name, side, backend, filled):
    if backend == "traced":
        # What comes after the graph takes seconds and is PyTorch's and the ops' own: a few show it as well as all.
        backend = "aot_eager" if name in (*TYPICAL, *AHEAD_OF_TIME) else "eager"
    net = filled(create(name, dtype=torch.float64))
    x = image(net, side, dtype=torch.float64)
    torch._dynamo.reset()
    with torch.inference_mode():
        wanted = net(x)
        found = torch.compile(net, fullgraph=True, backend=backend)(x)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.every_row(fast=TYPICAL)
def test_exports(name, side, filled, expected):
    """For any batch and, where the network takes any size, any size."""
    net = filled(create(name))
    sizes = {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO} if expected.any_size else {}
    dynamic = ({0: torch.export.Dim("batch"), **sizes},)
    program = torch.export.export(net, (image(net, side),), dynamic_shapes=dynamic)
    other = image(net, side + 32 if expected.any_size else side, batch=3)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(other), net(other), rtol=1e-4, atol=1e-4)
