"""A network and the same in plain PyTorch, on a photograph, compared before anything is timed."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import TypeVar

import torch
from torch import Tensor, nn

from fastcnn.models import create, find_entry
from fastcnn.nn import SqueezeExcite, layers
from fastcnn.nn.stochastic import StochasticDepth
from fastcnn.testing.benches import BOTH, DTYPES, Bench, Prepared, one_line
from fastcnn.testing.compare import APART, assert_near
from fastcnn.testing.runtimes import load_runtimes

Results = tuple[Tensor, ...]
Net = TypeVar("Net", bound=nn.Module)

# Ours and PyTorch itself must run everywhere; the others may lack a compiler or a package.
_ALWAYS = ("fastcnn", "eager", "eager channels_last")
# Every pool of threads spins for some milliseconds after its work, on the cores that others are timed on.
_POOLS_SPIN = 0.01

# On the way back rounding grows a thousandfold more than on the way there, as ReLUs flip, so that the first layer's
# gradient says little, and in float32 only: eager PyTorch in its two layouts comes as far apart.
_FIRST_GRADIENT_APART = 0.5
# Batch norms that train divide rounding by the deviations of untrained layers, which are small.
_TRAINING_APART = 10.0


def prepare_network(
    bench: Bench,
    image: Tensor,
    *,
    compile: bool = True,
    runtimes: bool = True,
    weights: Mapping[str, str | PathLike[str]] | None = None,
) -> Prepared:
    """A network against its plain-PyTorch twin: eager in both layouts, compiled, and in other runtimes.

    Ours runs channels_last, and for inference with norms folded (``model.fuse()``), as ``torch.compile`` does on a CPU
    by freezing, and the runtimes do by themselves. Training rows run without dropout, which would make their results
    incomparable.

    Args:
        bench: of kind "network".
        image: uint8 pixels ``[3, H, W]``, preprocessed as the network expects; a batch has it rolled sideways by
            equal steps, since equal images have no variance for batch norms to divide by.
        compile: whether ``torch.compile`` is a rival.
        runtimes: whether ONNX Runtime and OpenVINO are, for inference in float32 on a CPU.
        weights: files by name of network; where there is none, seeded random weights.

    Raises:
        AssertionError: a result that differs by more than rounding.
    """
    dtype, backward = DTYPES[bench.dtype], bench.direction == BOTH
    torch.manual_seed(0)
    model = without_dropout(create(bench.subject, weights=(weights or {}).get(bench.subject)))
    batch = int(bench.layer.removeprefix("batch "))
    rolled = torch.stack([image.roll(i * image.shape[-1] // batch, -1) for i in range(batch)])
    x = find_entry(bench.subject).row.preprocess(rolled).to(bench.device, dtype)
    x_last = x.contiguous(memory_format=torch.channels_last)
    model = model.to(bench.device, dtype).train(backward)
    twin = plain_torch(model)
    twin_last = channels_last(copy.deepcopy(twin))
    ours = channels_last(model)
    if not backward:
        ours = ours.fuse()
    rows = {"fastcnn": (ours, x_last), "eager": (twin, x), "eager channels_last": (twin_last, x_last)}
    if compile:
        rows["compile"] = (twin_last, x_last)
    calls = {}
    for name, (net, input) in rows.items():
        run = torch.compile(net, dynamic=False) if name == "compile" else net
        calls[name] = _train(run, list(net.parameters()), input) if backward else _infer(run, input)
    prepared = Prepared({}, context=torch.enable_grad if backward else torch.inference_mode)
    if runtimes and not backward and x.device.type == "cpu" and dtype == torch.float32:
        loaded, prepared.missing = load_runtimes(twin, x)
        calls.update({name: _result(run) for name, run in loaded.items()})
        prepared.pause = _POOLS_SPIN if loaded else 0.0

    freezes = compile and not backward and x.device.type == "cpu"
    with prepared.context(), _freezing() if freezes else contextlib.nullcontext():
        expected = calls["eager"]()
        for name, call in calls.items():
            try:
                results = call()
            except Exception as error:  # A missing compiler shows as any of several errors.
                if name in _ALWAYS:
                    raise
                prepared.missing[name] = one_line(error)
                continue
            _check(f"{bench.group}: {name}", results, expected)
            prepared.calls[name] = call
            if not backward and name in ("fastcnn", "eager"):
                top5 = prepared.notes.setdefault("top5", {})
                top5["PyTorch" if name == "eager" else name] = results[0][0].float().topk(5).indices.tolist()
    prepared.notes["weights"] = "loaded" if bench.subject in (weights or {}) else "untrained (seed 0)"
    return prepared


def plain_torch(model: nn.Module, keep: tuple[type[nn.Module], ...] = ()) -> nn.Module:
    """A copy in which every layer of ``fastcnn.nn`` is its ``torch.nn`` twin: what people run without this library.

    Squeeze-and-excitation runs layer by layer, and so do batch norms and activations. Layers of the types ``keep`` stay
    as they are.

    Raises:
        TypeError: a layer that has no twin there, as one that also activates or shuffles has none.
    """
    model = copy.deepcopy(model)
    for path, module in model.named_modules():
        if type(module).__module__ == layers.__name__ and not isinstance(module, keep):
            twin = type(module).__mro__[1]
            does_more = getattr(module, "activation", None) or getattr(module, "shuffle_groups", 1) != 1
            if twin is nn.Module or does_more:
                raise TypeError(f"{path}: {type(module).__name__} has no twin in torch.nn")
            module.__class__ = twin
        if isinstance(module, (SqueezeExcite, nn.BatchNorm2d)):
            module.as_one_op = False  # type: ignore[assignment]
    return model


def without_dropout(model: Net) -> Net:
    """Sets the probability of every dropout, of whole branches too, to 0; returns the model, itself changed."""
    for module in model.modules():
        if isinstance(module, (nn.modules.dropout._DropoutNd, StochasticDepth)):
            module.p = 0.0
    return model


def channels_last(model: Net) -> Net:
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _freezing() -> contextlib.AbstractContextManager[None]:
    """Within it, what ``torch.compile`` compiles for inference has weights as constants: folded norms, packed weights.

    As an option of ``torch.compile`` it has no effect: TorchDynamo, which makes weights inputs of the graph or
    constants, reads the setting of the process.
    """
    from torch._inductor import config

    return config.patch(freezing=True)  # type: ignore[no-any-return]


def _result(run: Callable[[], Tensor]) -> Callable[[], Results]:
    return lambda: (run(),)


def _infer(model: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], Results]:
    return lambda: (model(x),)


def _train(model: Callable[[Tensor], Tensor], parameters: Sequence[Tensor], x: Tensor) -> Callable[[], Results]:
    """Forward and backward; gives the logits and the gradients of the last and the first layer's weight."""
    target = torch.arange(len(x), device=x.device)

    def step() -> Results:
        logits = model(x)
        gradients = torch.autograd.grad(nn.functional.cross_entropy(logits, target), parameters)
        last = next(g for g in reversed(gradients) if g.dim() > 1)
        return logits, last, gradients[0]

    return step


def _check(what: str, results: Results, expected: Results) -> None:
    # A GPU multiplies float32 as TF32, whose rounding is float16's.
    dtype = torch.float16 if expected[0].is_cuda and expected[0].dtype == torch.float32 else expected[0].dtype
    most = APART[dtype] * (_TRAINING_APART if len(expected) > 1 else 1)
    limits = {"logits": most, "last gradient": most}
    if dtype == torch.float32:
        limits["first gradient"] = _FIRST_GRADIENT_APART
    for (part, most), actual, wanted in zip(limits.items(), results, expected, strict=False):
        assert_near(actual, wanted, most, what=f"{what}: {part}", whose="eager PyTorch's")
