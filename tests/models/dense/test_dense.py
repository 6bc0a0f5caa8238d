"""Every registered network whose output is a map: counts, sizes, gradients, what it is fused and compiled to."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from dense_rows import EXPECTED, FIRST, TASKS

from fastcnn import models
from fastcnn.models.__main__ import network_line

NETWORKS_PAGE = (Path(__file__).parents[3] / "docs" / "networks.md").read_text().splitlines()
BY_VALUE = [pytest.param(name, marks=[pytest.mark.slow] if row.heavy else []) for name, row in EXPECTED.items()]
RECORDED = [each for each in BY_VALUE if EXPECTED[each.values[0]].golden]
TRACED = [(name, path, shape) for name, row in EXPECTED.items() for path, shape in row.trace]
VARIANTS = [(name, *variant) for name, row in EXPECTED.items() for variant in row.variants]


def create(dense, **options):
    torch.manual_seed(0)
    return models.create(dense, **{**EXPECTED[dense].small, **options})


def image(net, sides, batch=2, **options):
    shape = (batch, net.in_channels, *sides)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), **options)


def channels_of(dense, net):
    if EXPECTED[dense].channels is not None:
        return EXPECTED[dense].channels
    return net.num_classes if net.row.task == "segmentation" else net.in_channels


def is_frozen(dense, key):
    return key.startswith(EXPECTED[dense].frozen) if EXPECTED[dense].frozen else False


def test_every_dense_network_has_expectations():
    assert sorted(EXPECTED) == sorted(name for task in TASKS for name in models.list_models(task=task))


@pytest.mark.parametrize("dense", EXPECTED)
def test_counts(dense):
    expected, whole = EXPECTED[dense], models.summary(dense)
    counted = whole if expected.counted is None else models.summary(create(dense, device="meta"), expected.counted)
    assert (counted.params, counted.macs) == (expected.params, expected.macs)
    assert network_line(dense, whole) in NETWORKS_PAGE


@pytest.mark.parametrize(("dense", "overrides", "params", "macs"), VARIANTS)
def test_counts_of_variants(dense, overrides, params, macs):
    counted = models.summary(models.create(dense, device="meta", **overrides), EXPECTED[dense].counted)
    assert counted.params == params
    assert macs in (None, counted.macs)


@pytest.mark.parametrize(("dense", "path", "shape"), TRACED)
def test_shapes_are_the_published_ones(dense, path, shape):
    net, seen = models.create(dense, device="meta").eval(), []
    net.get_submodule(path).register_forward_hook(lambda module, args, output: seen.append(tuple(output.shape)))
    net(torch.empty(1, net.in_channels, *[net.preprocess.input_size] * 2, device="meta"))
    assert seen == [(1, *shape)]


@pytest.mark.parametrize("dense", EXPECTED)
def test_sizes_of_outputs(dense):
    net = models.create(dense, device="meta").eval()
    for before, after in EXPECTED[dense].sizes:
        assert net(torch.empty(2, net.in_channels, *before, device="meta")).shape == (
            2,
            channels_of(dense, net),
            *after,
        )


@pytest.mark.parametrize("dense", EXPECTED)
def test_options_on_meta(dense):
    options = {"num_classes": 5} if models.find_entry(dense).row.task == "segmentation" else {}
    net = models.create(dense, device="meta", dtype=torch.bfloat16, **options).eval()
    assert {value.dtype for value in net.parameters()} == {torch.bfloat16}
    assert {value.device.type for value in net.state_dict().values()} == {"meta"}
    before, after = EXPECTED[dense].sizes[0]
    found = net(torch.empty(0, net.in_channels, *before, device="meta", dtype=torch.bfloat16))
    assert found.shape == (0, channels_of(dense, net), *after) and found.dtype == torch.bfloat16


@pytest.mark.parametrize("dense", RECORDED)
def test_state_dict_is_the_published_one(dense, golden_of):
    golden = golden_of(EXPECTED[dense].golden)
    net = models.create(dense, device="meta")
    state = net.state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == golden["state"]
    assert list(state) == list(golden["state"])
    assert models.count_params(net) == golden["parameters"]


@pytest.mark.parametrize("dense", RECORDED)
def test_output_is_the_published_one(dense, golden_of, filled):
    golden = golden_of(EXPECTED[dense].golden)
    net = filled(models.create(dense, dtype=torch.float64))
    shape = (1, net.in_channels, golden["size"], golden["size"])
    with torch.inference_mode():
        found = net(torch.from_numpy(np.random.RandomState(3).random_sample(shape))).flatten()
    digest = golden["output"]["out"]
    assert found.numel() == digest["numel"]
    values = [found.norm().item(), found.mean().item(), *found[:8].tolist(), *found[-4:].tolist()]
    wanted = [digest["norm"], digest["mean"], *digest["first"], *digest["last"]]
    np.testing.assert_allclose(values, wanted, rtol=1e-6)


@pytest.mark.parametrize("dense", BY_VALUE)
def test_every_parameter_gets_a_gradient(dense, filled):
    """Of one step with the values of `filled`: layers that begin at zero give nothing to those before them."""
    net = filled(create(dense)).train()
    x = image(net, EXPECTED[dense].sides).requires_grad_()
    found = net(x)
    sum(each.square().mean() for each in (found if isinstance(found, tuple) else (found,))).backward()
    without = [key for key, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert [key for key in without if not is_frozen(dense, key)] == []
    assert [key for key, p in net.named_parameters() if is_frozen(dense, key) and p.grad is not None] == []
    assert x.grad.any() and x.grad.isfinite().all()


@pytest.mark.parametrize("dense", BY_VALUE)
def test_eval_is_deterministic_and_independent_of_the_batch(dense, filled):
    net = filled(create(dense, dtype=torch.float64))
    x = image(net, EXPECTED[dense].sides, dtype=torch.float64)
    with torch.inference_mode():
        first, second = net(x), net(x)
        alone = net(x[1:])
    assert torch.equal(first, second) and first.isfinite().all()
    torch.testing.assert_close(alone, first[1:], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dense", BY_VALUE)
def test_fused_networks_give_the_same(dense, filled):
    net = filled(create(dense, dtype=torch.float64))
    x = image(net, EXPECTED[dense].sides, dtype=torch.float64)
    with torch.inference_mode():
        wanted = net(x)
        fused = copy.deepcopy(net).fuse()
        found = [fused(x) for _ in range(4)]  # The third call records the operators, the fourth replays them.
        narrow = net.float().fuse()(x.float())
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in fused.modules()) == EXPECTED[dense].norms_left
    for each in found:
        torch.testing.assert_close(each, wanted, rtol=1e-8, atol=1e-8)
    assert (narrow.double() - wanted).norm() <= 1e-4 * wanted.norm()


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("dense", FIRST)
def test_compiles_as_one_graph(dense, backend, filled):
    net = filled(create(dense, dtype=torch.float64))
    x = image(net, EXPECTED[dense].sides, dtype=torch.float64)
    torch._dynamo.reset()
    with torch.inference_mode():
        wanted = net(x)
        found = torch.compile(net, fullgraph=True, backend=backend)(x)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dense", FIRST)
def test_exports(dense, filled):
    """For any batch; for sizes it is exported anew."""
    net = filled(create(dense))
    program = torch.export.export(
        net, (image(net, EXPECTED[dense].sides),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    other = image(net, EXPECTED[dense].sides, batch=3)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(other), net(other), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dense", FIRST)
def test_channels_last_gives_the_same(dense, filled):
    net = filled(create(dense, dtype=torch.float64))
    x = image(net, EXPECTED[dense].sides, dtype=torch.float64)
    if x.dim() != 4:
        assert x.dim() == 5  # Of volumes, torch.channels_last_3d is no layout of ours.
        return
    with torch.inference_mode():
        wanted = net(x)
        found = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dense", EXPECTED)
def test_wrong_input_shape_is_shown(dense):
    net = models.create(dense, device="meta")
    sides, channels = EXPECTED[dense].sides, net.in_channels
    for shape in ((channels, *sides), (1, channels + 1, *sides)):
        with pytest.raises(ValueError, match=rf"takes \(N, {channels}, (D, )?H, W\), got \(") as error:
            net(torch.empty(shape, device="meta"))
        assert str(shape) in str(error.value)


@pytest.mark.parametrize("dense", FIRST)
def test_weights_come_back_from_a_file(dense, tmp_path, filled):
    net = filled(create(dense))
    torch.save(net.state_dict(), tmp_path / "w.pth")
    loaded = create(dense, weights=tmp_path / "w.pth").state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in net.state_dict().items())


@pytest.mark.parametrize("dense", [name for name in FIRST if models.find_entry(name).row.task == "segmentation"])
def test_replace_head(dense, tmp_path, filled):
    net = filled(create(dense, num_classes=5))
    kept = {key: value.clone() for key, value in net.state_dict().items()}
    assert net.replace_head(3) is net and net.num_classes == 3
    assert not any(module.training for module in net.modules())
    after = net.state_dict()
    changed = [key for key, value in kept.items() if not torch.equal(value, after[key])]
    assert changed and any(key.startswith(net.classifier_path) for key in changed)
    with torch.no_grad():
        assert net(image(net, EXPECTED[dense].sides)).shape[1] == 3
    torch.save(after, tmp_path / "w.pth")
    assert create(dense, num_classes=3, weights=tmp_path / "w.pth").num_classes == 3
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        net.replace_head(0)
    with pytest.raises(ValueError, match=r"w\.pth has 3 classes|w\.pth does not fit"):
        create(dense, num_classes=7, weights=tmp_path / "w.pth")


@pytest.mark.parametrize("dense", FIRST)
def test_seed_fixes_the_initialisation(dense):
    first, second = create(dense).state_dict(), create(dense).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
