"""How an op comes to be: a schema, a reference under it, kernels on top, one wiring for autograd.

Schemas are defined here, in Python, so that an install without a compiler has every op. The reference is registered for
every device; loading ``fastcnn._C`` puts the C++ kernels over it, and :func:`define` the Triton ones.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fastcnn import _backend

library = torch.library.Library("fastcnn", "DEF")


@dataclass
class Mode:
    """What public functions call: ``auto`` follows the rules, ``kernel`` ignores those that route to PyTorch."""

    name: str = "auto"


mode = Mode()


_entered: list[Mode] = []  # The last of those entered and not left counts, so that threads cannot leave one behind.
_entering = threading.Lock()


@contextlib.contextmanager
def _set_mode(name: str) -> Iterator[None]:
    mine = Mode(name)
    with _entering:
        _entered.append(mine)
        mode.name = name
    try:
        yield
    finally:
        with _entering:
            _entered[:] = [m for m in _entered if m is not mine]
            mode.name = _entered[-1].name if _entered else "auto"


def reference_mode() -> contextlib.AbstractContextManager[None]:
    """Within it, every fastcnn op runs its plain-PyTorch reference: for tests and for honest benchmarks.

    In all threads of the process, those that run backward passes among them.
    """
    return _set_mode("reference")


def kernel_mode() -> contextlib.AbstractContextManager[None]:
    """Within it, rules that route a call to PyTorch because it is faster there are ignored."""
    return _set_mode("kernel")


@dataclass(frozen=True)
class Op:
    """A defined op: its overload, its reference, and what is known of who runs it.

    ``torch_rule`` states, for people, when the public function calls PyTorch instead.
    """

    name: str
    call: Any
    reference: Callable[..., Any]
    triton: str | None = None
    cuda: bool = False
    torch_rule: dict[str, str] = field(default_factory=dict)
    flops: Callable[..., int] | None = None

    @property
    def takes_lists(self) -> bool:
        """Whether an argument is a list of tensors."""
        return any(str(argument.type) == "List[Tensor]" for argument in self.call._schema.arguments)

    def where(self, key: str) -> str:
        part = _backend.cpu if key == "CPU" else _backend.cuda
        if key == "CUDA" and not self.cuda:
            text = "Triton" if self.triton and _backend.triton.available else "PyTorch reference"
        else:
            text = part.detail if part.available else "PyTorch reference"
        return f"{text}; {self.torch_rule[key]}" if key in self.torch_rule else text


ops: dict[str, Op] = {}
_eager: dict[str, Callable[..., Any]] = {}  # By name, autograd without the detours that only transforms need.


def run_triton(name: str, module: str, reference: Callable[..., Any], *args: Any) -> Any:
    """Calls the function `name` of a module of kernels; the reference where it says NotImplemented, or none imports."""
    try:
        kernels = importlib.import_module(f"fastcnn.kernels.{module}")
    except ImportError as error:
        _backend.note_fallback(f"fastcnn.{name}", "cuda", f"Triton does not import: {error}")
        return reference(*args)
    result = getattr(kernels, name)(*args)
    return reference(*args) if result is NotImplemented else result


def define(
    schema: str,
    *,
    reference: Callable[..., Any],
    fake: Callable[..., Any],
    triton: str | None = None,
    cuda: bool = False,
    torch_rule: dict[str, str] | None = None,
    flops: Callable[..., int] | None = None,
) -> Op:
    """Defines ``fastcnn::<name>``.

    Args:
        schema: as for :meth:`torch.library.Library.define`.
        reference: the op in plain PyTorch, differentiable where the op is; runs wherever no kernel does.
        fake: shapes, dtypes and strides of the result, the strides those of the real one.
        triton: module of ``fastcnn.kernels`` whose function of the op's name runs CUDA tensors, or returns
            NotImplemented for the reference to run them.
        cuda: whether the compiled CUDA library has a kernel.
        torch_rule: per dispatch key, when the public function calls PyTorch instead.
        flops: floating-point operations from the shapes of the arguments, for torch's ``FlopCounterMode``.
    """
    name = schema.split("(")[0]
    library.define(schema)

    def run_reference(*args: Any) -> Any:
        device = next(a.device.type for a in args if isinstance(a, Tensor))
        gpu = _backend.triton if triton else _backend.cuda if cuda else None
        part = {"cpu": _backend.cpu, "cuda": gpu}.get(device)
        _backend.note_fallback(f"fastcnn.{name}", device, part.detail if part else "no kernel for this device")
        return reference(*args)

    library.impl(name, run_reference, "CompositeExplicitAutograd")
    if triton is not None and _backend.triton.available:
        library.impl(name, functools.partial(run_triton, name, triton, reference), "CUDA")

    torch.library.register_fake(f"fastcnn::{name}", fake, lib=library)
    op = Op(name, getattr(torch.ops.fastcnn, name).default, reference, triton, cuda, torch_rule or {}, flops)
    ops[name] = op
    return op


def flop_counter() -> Any:
    """A silent :class:`torch.utils.flop_counter.FlopCounterMode`, taught the formulas of all ops.

    Not taught on import: the counter's module imports Triton, or warns that it is missing.
    """
    from torch.utils.flop_counter import FlopCounterMode, flop_registry, register_flop_formula

    for op in ops.values():
        packet = getattr(torch.ops.fastcnn, op.name)
        if op.flops is not None and packet not in flop_registry:
            register_flop_formula(packet)(op.flops)
    return FlopCounterMode(display=False)


def autograd(op: Op, backward: Callable[..., Any], setup_context: Callable[..., None]) -> None:
    """Wires the gradient of `op`: the same one in eager mode, under ``torch.compile`` and for ``torch.export``.

    Args:
        backward: ``(ctx, *grads)`` gives a gradient or None for every argument; kernels by :func:`call_backward`.
        setup_context: ``(ctx, inputs, output)`` saves what `backward` needs.
    """
    torch.library.register_autograd(f"fastcnn::{op.name}", backward, setup_context=setup_context, lib=library)
    if op.takes_lists:  # A torch.autograd.Function sees no tensor within a list; torch.library takes care of them.
        return

    def forward(ctx: Any, *args: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            output = op.call(*args)
        setup_context(ctx, args, output)
        return output

    # The same two functions without what torch.library wraps around them, half of what a small call costs.
    members = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    function: Any = type(f"{op.name}_function", (torch.autograd.Function,), members)
    # Past its wrapper in Python, which is there for the transforms that call() has sent another way.
    _eager[op.name] = super(torch.autograd.Function, function).apply


def call_backward(op: Op, *args: Any) -> Any:
    """Calls, in a backward pass, the op that computes it; twice differentiable where the op is."""
    if torch.is_grad_enabled():
        return op.call(*args)
    with torch._C._AutoDispatchBelowAutograd():
        return op.call(*args)


def autocast(*tensors: Tensor | None, dtype: torch.dtype | None = None) -> tuple[Tensor | None, ...]:
    """Under autocast, floating tensors in its dtype, as it casts what a convolution gets; else as they are.

    A `dtype` is that of ops which autocast runs in it, as losses in float32.
    """
    device = next(t for t in tensors if t is not None).device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return tensors
    dtype = dtype or torch.get_autocast_dtype(device)
    castable = (torch.float32, torch.float16, torch.bfloat16)
    return tuple(t.to(dtype) if t is not None and t.dtype in castable else t for t in tensors)


def _only_vmap() -> bool:
    vmap = torch._C._functorch.TransformType.Vmap
    return forward_ad._current_level < 0 and all(t.key() == vmap for t in torch._C._functorch.get_interpreter_stack())


def _requires_grad(argument: Any) -> bool:
    if isinstance(argument, Tensor):
        return argument.requires_grad
    return type(argument) is list and any(map(_requires_grad, argument))


def call(op: Op, *args: Any) -> Any:
    """Calls the op: its reference in :func:`reference_mode`, without autograd's bookkeeping where nothing needs it."""
    if mode.name == "reference":
        return op.reference(*args)
    # In this order: the compiler cannot trace a question about inference mode.
    if torch.compiler.is_compiling() or torch.is_inference_mode_enabled():
        return op.call(*args)
    if forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active():
        # Kernels have no forward-mode rule and would drop tangents without a word; the reference carries them. vmap can
        # loop over a kernel, unless tensors are in a list; whether the tensor it wraps needs a gradient, only the
        # dispatcher can see.
        return op.call(*args) if _only_vmap() and not op.takes_lists else op.reference(*args)
    if torch.is_grad_enabled() and any(map(_requires_grad, args)):
        return _eager[op.name](*args) if op.name in _eager else op.call(*args)
    with torch._C._AutoDispatchBelowAutograd():
        return op.call(*args)
