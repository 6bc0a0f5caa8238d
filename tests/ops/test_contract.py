"""What every op must do, run over every row of the table of ops."""

from __future__ import annotations

import contextlib

import pytest
import torch

from fastcnn.ops import _library
from fastcnn.testing.compare import assert_close_to
from fastcnn.testing.specs import SPECS, Case, OpSpec

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
CASES = [pytest.param(spec, case, id=f"{spec.name}-{case.name}") for spec in SPECS.values() for case in spec.cases]
FIRST = [pytest.param(spec, spec.cases[0], id=spec.name) for spec in SPECS.values()]
DIFFERENTIABLE = [p for p in CASES if p.values[0].differentiable]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(autouse=True)
def _our_kernels():
    """The rules that route to PyTorch are tested on their own; here our kernels run."""
    with _library.kernel_mode():
        yield


def arguments(case: Case, dtype: torch.dtype, device: str = "cpu", seed: int = 0):
    return case.make(dtype, device, torch.Generator().manual_seed(seed))


def widened(args):
    return tuple(a.double() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in args)


def expected(spec: OpSpec, case: Case, args, dtype: torch.dtype) -> torch.Tensor:
    """In float64, on the same inputs; what an op computes of integers or compares exactly, in the dtype it uses."""
    if spec.exact:
        return spec.reference(*args, **case.kwargs)
    return spec.reference(*widened(args), **case.kwargs)


def check(spec: OpSpec, actual: torch.Tensor, exact: torch.Tensor) -> None:
    if spec.exact:
        assert torch.equal(actual, exact)
    else:
        # Coordinates are float32: on these maps, of up to 40 pixels, they are rounded by up to 4e-6.
        assert_close_to(actual.cpu(), exact.cpu(), reduction=spec.reduction)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("spec, case", CASES)
def test_values(spec, case, dtype, device):
    args = arguments(case, dtype, device)
    actual = spec.function(*args, **case.kwargs)
    check(spec, actual, expected(spec, case, args, dtype))
    assert spec.exact or actual.dtype == dtype


def layouts(x: torch.Tensor):
    """The same values in other layouts: as a slice of a larger tensor, every other element, channels_last, expanded."""
    padded = torch.full([n + 3 for n in x.shape], float("nan"), dtype=x.dtype)
    inner = padded[tuple(slice(1, n + 1) for n in x.shape)]
    inner.copy_(x)
    yield "slice", inner
    strided = torch.full([*x.shape[:-1], 2 * x.shape[-1]], float("nan"), dtype=x.dtype)[..., ::2]
    strided.copy_(x)
    yield "strided", strided
    yield "transposed", x.transpose(0, -1).contiguous().transpose(0, -1)
    if x.dim() == 4:
        yield "channels_last", x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("spec, case", CASES)
def test_layouts(spec, case):
    args = arguments(case, torch.float32)
    if args[0].dim() == 0:
        pytest.skip("a scalar has one layout")
    usual = spec.function(*args, **case.kwargs)
    for name, x in layouts(args[0]):
        actual = spec.function(x, *args[1:], **case.kwargs)
        torch.testing.assert_close(actual, usual, msg=lambda text, name=name: f"{name}: {text}")
        if (
            name == "channels_last" and x.shape[0] and min(x.shape[1:]) > 1
        ):  # Else both formats describe the same memory.
            assert actual.is_contiguous(memory_format=torch.channels_last), "channels_last was not kept"
    expanded = args[0][:1].expand(args[0].shape) if args[0].shape[0] else args[0]
    torch.testing.assert_close(
        spec.function(expanded, *args[1:], **case.kwargs),
        spec.function(expanded.contiguous(), *args[1:], **case.kwargs),
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("spec, case", DIFFERENTIABLE)
def test_gradients(spec, case, dtype, layout, device):
    args = arguments(case, dtype, device)
    x = args[0]
    if x.dim() == 4:
        x = x.contiguous(memory_format=layout)
    x = x.detach().requires_grad_()
    wide = x.detach().double().requires_grad_()
    out = spec.function(x, *args[1:], **case.kwargs)
    exact = spec.reference(wide, *widened(args[1:]), **case.kwargs)
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    (grad,) = torch.autograd.grad(out, x, cotangent)
    (exact_grad,) = torch.autograd.grad(exact, wide, cotangent.double())
    # Each pixel sums over all boxes that see it, and each box over its bins.
    terms = spec.reduction * max(1, out.numel() // max(x.numel(), 1))
    assert_close_to(grad.cpu(), exact_grad.cpu(), reduction=16 * terms, what="gradient")
    assert grad.dtype == dtype
    # An expanded cotangent, as sum() sends, has strides of 0.
    (ones,) = torch.autograd.grad(spec.function(x, *args[1:], **case.kwargs).sum(), x)
    (exact_ones,) = torch.autograd.grad(spec.reference(wide, *widened(args[1:]), **case.kwargs).sum(), wide)
    assert_close_to(ones.cpu(), exact_ones.cpu(), reduction=16 * terms, what="gradient of the sum")


@pytest.mark.parametrize("spec, case", DIFFERENTIABLE)
def test_gradcheck(spec, case):
    args = arguments(case, torch.float64)
    if case.name in ("knees", "large"):
        pytest.skip("kinks, where numerical derivatives are wrong" if case.name == "knees" else "too large to perturb")
    x = args[0].detach().requires_grad_()
    fast = {"fast_mode": True, "nondet_tol": 0.0}
    assert torch.autograd.gradcheck(lambda t: spec.function(t, *args[1:], **case.kwargs), x, **fast)
    if spec.gradgrad:
        assert torch.autograd.gradgradcheck(lambda t: spec.function(t, *args[1:], **case.kwargs), x, **fast)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("spec, case", CASES)
def test_opcheck(spec, case, layout):
    args = arguments(case, torch.float32)
    x = args[0].contiguous(memory_format=layout) if args[0].dim() == 4 else args[0]
    overload, op_args = spec.overload(x.requires_grad_(spec.differentiable), *args[1:], **case.kwargs)
    torch.library.opcheck(overload, op_args)


@pytest.mark.parametrize("spec, case", FIRST)
def test_autocast(spec, case):
    args = arguments(case, torch.float32)
    usual = spec.function(*args, **case.kwargs)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(spec.function(*args, **case.kwargs), usual)
        half = arguments(case, torch.bfloat16)
        assert spec.function(*half, **case.kwargs).dtype == (
            torch.bfloat16 if usual.is_floating_point() else usual.dtype
        )


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("spec, case", FIRST)
def test_compile(spec, case, dynamic):
    args = arguments(case, torch.float32)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(
            lambda *a: spec.function(*a, **case.kwargs), fullgraph=True, dynamic=dynamic, backend="aot_eager"
        )
        assert torch.equal(compiled(*args), spec.function(*args, **case.kwargs))
        if spec.differentiable:
            x, y = (args[0].clone().requires_grad_() for _ in range(2))
            compiled(x, *args[1:]).sum().backward()
            spec.function(y, *args[1:], **case.kwargs).sum().backward()
            torch.testing.assert_close(x.grad, y.grad)


@pytest.mark.parametrize("spec, case", FIRST)
def test_export(spec, case):
    class Call(torch.nn.Module):
        def forward(self, *args):
            return spec.function(*args, **case.kwargs)

    args = arguments(case, torch.float32)
    program = torch.export.export(Call(), args)
    assert torch.equal(program.module()(*args), spec.function(*args, **case.kwargs))


@pytest.mark.parametrize("spec, case", CASES)
def test_deterministic(spec, case):
    args = arguments(case, torch.float32)
    runs, threads = [], torch.get_num_threads()
    try:
        for count in (threads, threads, 1):
            torch.set_num_threads(count)
            x = args[0].detach().clone().requires_grad_(spec.differentiable)
            out = spec.function(x, *args[1:], **case.kwargs)
            runs.append((out, *torch.autograd.grad(out.sum(), x)) if spec.differentiable else (out,))
    finally:
        torch.set_num_threads(threads)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@pytest.mark.parametrize("spec, case", [p for p in FIRST if p.values[0].differentiable])
def test_function_transforms(spec, case):
    x, *rest = arguments(case, torch.float64)

    def call(t):
        return spec.function(t, *rest, **case.kwargs)

    _, tangent = torch.func.jvp(call, (x,), (torch.ones_like(x),))
    with torch.autograd.forward_ad.dual_level():
        dual = call(torch.autograd.forward_ad.make_dual(x, torch.ones_like(x)))
        assert torch.equal(torch.autograd.forward_ad.unpack_dual(dual).tangent, tangent)
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(call(leaf).sum(), leaf)
    torch.testing.assert_close(tangent.sum(), grad.sum())
    torch.testing.assert_close(torch.func.grad(lambda t: call(t).sum())(x), grad)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("spec, case", [p for p in FIRST if p.values[0].differentiable])
def test_vmap(spec, case):
    x, *rest = arguments(case, torch.float32)
    stack = torch.stack([x, 2 * x]).requires_grad_()

    def call(t):
        return spec.function(t, *rest, **case.kwargs)

    out = torch.vmap(call)(stack)
    assert torch.equal(out, torch.stack([call(t) for t in stack]))
    (grad,) = torch.autograd.grad(out.sum(), stack)
    (each,) = torch.autograd.grad(call(x.requires_grad_()).sum(), x)
    torch.testing.assert_close(grad[0], each)
    # A tangent is carried or refused, never dropped.
    with contextlib.suppress(RuntimeError):
        _, tangent = torch.func.jvp(torch.vmap(call), (stack.detach(),), (torch.ones_like(stack),))
        torch.testing.assert_close(tangent.sum(), grad.sum())


@pytest.mark.parametrize("spec, case", CASES)
def test_meta(spec, case):
    args = arguments(case, torch.float32)
    if not spec.differentiable:
        pytest.skip("its output's shape depends on the data")
    meta = tuple(a.to("meta") if isinstance(a, torch.Tensor) else a for a in args)
    out, real = spec.function(*meta, **case.kwargs), spec.function(*args, **case.kwargs)
    assert (out.shape, out.dtype, out.stride()) == (real.shape, real.dtype, real.stride())


@pytest.mark.parametrize("spec, case", CASES)
def test_peers_agree(spec, case):
    if not spec.peer:
        pytest.skip("torchvision does not import beside this torch")
    args = arguments(case, torch.float32)
    for peer in spec.peer.values():
        theirs, ours = peer(*args, **case.kwargs), spec.function(*args, **case.kwargs)
        if spec.exact:
            assert torch.equal(ours, theirs)
        else:
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
