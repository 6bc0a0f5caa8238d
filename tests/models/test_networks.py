"""Every registered network, held against published counts and outputs: to register a row is to test it."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fastcnn import models


def image(size, batch=2, channels=3, **options):
    return torch.rand(batch, channels, size, size, generator=torch.Generator().manual_seed(0), **options)


def test_every_network_has_expectations(expectations):
    assert sorted(expectations) == models.list_models()


def test_counts(name, expected):
    counted = models.summary(name)
    assert (counted.params, counted.macs) == (expected.params, expected.macs)


def test_state_dict_is_the_published_one(name, golden):
    state = models.create(name, device="meta").state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == golden["state"]
    assert list(state) == list(golden["state"])


def test_output_is_the_published_one(name, golden, filled):
    net = filled(models.create(name, dtype=torch.float64))
    shape = (2, net.in_channels, golden["size"], golden["size"])
    assert net.preprocess.input_size == golden["size"]
    with torch.inference_mode():
        logits = net(torch.from_numpy(np.random.RandomState(0).random_sample(shape))).flatten()
    digest = golden["output"]["logits"]
    assert logits.numel() == digest["numel"]
    found = [logits.norm().item(), logits.mean().item(), *logits[:8].tolist(), *logits[-4:].tolist()]
    wanted = [digest["norm"], digest["mean"], *digest["first"], *digest["last"]]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_every_parameter_gets_a_gradient(name):
    torch.manual_seed(0)
    net = models.create(name, num_classes=7)
    x = image(64).requires_grad_()
    net(x).square().sum().backward()
    without = [key for key, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    assert x.grad.any()


def test_eval_is_deterministic_and_independent_of_the_batch(name, filled):
    net = filled(models.create(name, dtype=torch.float64))
    x = image(64, batch=3, dtype=torch.float64)
    with torch.inference_mode():
        first, second = net(x), net(x)
        one_by_one = torch.cat([net(sample[None]) for sample in x])
    assert torch.equal(first, second)
    torch.testing.assert_close(one_by_one, first, rtol=1e-10, atol=1e-10)


def test_channels_last_gives_the_same_logits(name, filled):
    net = filled(models.create(name, dtype=torch.float64))
    x = image(64, dtype=torch.float64)
    with torch.inference_mode():
        wanted = net(x)
        found = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("batch", [0, 1])
def test_small_batches(name, batch):
    net = models.create(name).eval()
    with torch.no_grad():
        assert net(image(64, batch)).shape == (batch, 1000)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_options_on_meta(name, dtype):
    net = models.create(name, num_classes=10, in_channels=1, device="meta", dtype=dtype)
    assert {p.dtype for p in net.parameters()} == {dtype}
    assert {t.device.type for t in net.state_dict().values()} == {"meta"}
    assert (net.num_classes, net.in_channels) == (10, 1)
    logits = net(torch.empty(2, 1, 96, 64, device="meta", dtype=dtype))
    assert (logits.shape, logits.dtype) == ((2, 10), dtype)


def test_fake_tensors(name):
    with FakeTensorMode():
        logits = models.create(name)(torch.empty(2, 3, 64, 64))
    assert logits.shape == (2, 1000)


def test_bfloat16_is_close(name, filled):
    net = filled(models.create(name)).eval()
    x = image(96)
    with torch.inference_mode():
        wanted = net(x)
        found = net.to(torch.bfloat16)(x.to(torch.bfloat16)).float()
    assert (found - wanted).norm() < 0.1 * wanted.norm()


def test_autocast(name, filled):
    net = filled(models.create(name))
    x = image(64)
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
        states.append(models.create(name).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_initialised_activations_keep_their_scale(name):
    torch.manual_seed(0)
    net = models.create(name, features_only=True)
    with torch.no_grad():
        maps = net(image(64, batch=4).sub(0.5).mul(4))
    for key, value in maps.items():
        assert 0.1 < value.std() < 10, key


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 4, 64, 64), (1, 64, 64, 3)])
def test_wrong_input_shape_is_shown(name, shape):
    with pytest.raises(ValueError, match=r"takes \(N, 3, H, W\), got \(") as error:
        models.create(name, device="meta")(torch.empty(shape, device="meta"))
    assert str(shape) in str(error.value)


def test_replace_head(name, expected):
    net = models.create(name).eval()
    spread = net.get_submodule(net.classifier_path).weight.std().item()
    assert spread == pytest.approx(expected.classifier_std, rel=0.02)
    body = {k: v.clone() for k, v in net.state_dict().items() if not k.startswith(net.classifier_path)}
    assert net.replace_head(5) is net
    assert net.num_classes == 5
    assert net.get_submodule(net.classifier_path).weight.std().item() == pytest.approx(spread, rel=0.1)
    assert not any(module.training for module in net.modules())
    with torch.no_grad():
        assert net(image(64)).shape == (2, 5)
    assert all(torch.equal(net.state_dict()[key], value) for key, value in body.items())
    with pytest.raises(ValueError, match="at least 1, got 0"):
        net.replace_head(0)
    with pytest.raises(ValueError, match="has no head"):
        models.create(name, features_only=True, device="meta").replace_head(5)


def test_copies_are_independent(name):
    net = models.create(name)
    twin = copy.deepcopy(net)
    assert type(twin) is type(net)
    assert dataclasses.asdict(twin.row.preprocess) == dataclasses.asdict(net.row.preprocess)
    with torch.no_grad():
        next(twin.parameters()).zero_()
    assert next(net.parameters()).any()


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_as_one_graph(name, backend, filled):
    net = filled(models.create(name, dtype=torch.float64))
    x = image(64, dtype=torch.float64)
    torch._dynamo.reset()
    with torch.inference_mode():
        wanted = net(x)
        found = torch.compile(net, fullgraph=True, backend=backend)(x)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)


def test_exports(name, filled):
    net = filled(models.create(name))
    x = image(64)
    dynamic = ({0: torch.export.Dim("batch"), 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO},)
    program = torch.export.export(net, (x,), dynamic_shapes=dynamic)
    other = image(96, batch=3)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(other), net(other), rtol=1e-4, atol=1e-4)
