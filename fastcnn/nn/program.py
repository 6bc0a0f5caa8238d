"""What a fused network comes to for inference, recorded once and run again without the Python of its layers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from fastcnn.nn.fused import call, has_versions
from fastcnn.ops import _library

KNOWN = ("fastcnn.", "torch.nn.modules.")
_EVERY = frozenset(nn.Module().__dict__)  # Attributes.
_MOST = 8  # Inputs of different sizes.
_NOT_YET: Any = object()
_programs: WeakKeyDictionary[nn.Module, Program] = WeakKeyDictionary()


def run_recorded(network: nn.Module, forward: Callable[[Tensor], Any], input: Tensor) -> Any:
    """``forward(input)``, which is what ``network`` computes, where :func:`fastcnn.nn.fused.runs_eagerly`.

    From the third call on for inputs of one size, for as long as nothing in the network changes, the operators that
    the second has called are called.
    """
    if type(input) is not Tensor or not input.is_cpu:
        return forward(input)
    program = _programs.get(network)
    if program is not None and program.holds(network):
        return program.run(forward, input)
    result = forward(input)  # First, as layers keep what they make of their weights.
    _programs[network] = Program(network)
    return result


class Program:
    """The operators that a network calls, for each size of its input; for as long as it ``holds``.

    Recorded are networks of our layers and PyTorch's: what these compute follows from what is compared at every call.
    Parameters are the operators' arguments, so that what is done to their elements shows; of packed ones versions tell.
    """

    def __init__(self, network: nn.Module) -> None:
        self._calls: dict[Any, _Call | None] = {}
        modules = list(network.modules())
        # No reference to the network itself, which otherwise would not go when its last user does.
        self._below, self._types = modules[1:], [*map(type, modules)]
        self._own = dict(network.__dict__)
        # Identities stand in for what has been folded: there are many.
        self._attributes = [m.__dict__ for m in self._below if type(m) is not nn.Identity]
        self._values = [*map(dict, self._attributes)]
        self._children = [m._modules for m in modules if m._modules]
        self._layers = [*map(dict, self._children)]
        self._hooks = [hooks for m in modules for hooks in (m._forward_hooks, m._forward_pre_hooks)]
        owners: list[dict[str, Any]] = [tensors for m in modules for tensors in (m._parameters, m._buffers) if tensors]
        self._owners = owners
        self._tensors = [*self._owned()]
        packs = [m for m in modules if "_kept" in m.__dict__ and has_versions(m._parameters.get("weight"))]
        self._packed: list[Any] = [m._parameters["weight"] for m in packs]
        self._packed_from = self._look_at_packed()
        made = [m.__dict__["_kept"][1] for m in packs]
        self._constants = [tensor for tensor in (*self._tensors, *made) if tensor is not None]
        self._is_known = self._follows_from_what_is_compared()

    def holds(self, network: nn.Module) -> bool:
        """Whether nothing in the network has changed."""
        try:
            return (
                network.__dict__ == self._own
                and all(map(operator.is_, self._owned(), self._tensors))
                and self._children == self._layers
                and self._attributes == self._values
                and [type(network), *map(type, self._below)] == self._types
                and self._look_at_packed() == self._packed_from
            )
        except Exception:  # Attributes that are not the same and have no answer, as tensors.
            return False

    def run(self, forward: Callable[[Tensor], Any], input: Tensor) -> Any:
        """``forward(input)``, of the network that it holds for."""
        if not self._is_known or self._is_watched():
            return forward(input)
        key = input.shape, input.stride(), input.dtype, torch.is_inference_mode_enabled()
        recorded = self._calls.get(key, _NOT_YET)
        if recorded is _NOT_YET:
            if len(self._calls) >= _MOST:
                self._calls.clear()
            with _Recorder(input, self._constants) as recorder:
                result = forward(input)
            self._calls[key] = recorder.call(result)
            return result
        if recorded is not None:
            try:
                return call(recorded, input)
            except Exception:  # A parameter has changed so that an operator does not take it: layers may.
                self._calls.pop(key, None)
        return forward(input)

    def _owned(self) -> Iterator[Any]:
        return chain.from_iterable(map(dict.values, self._owners))

    def _look_at_packed(self) -> tuple[list[Any], ...]:
        packed = self._packed
        versions, shapes = [weight._version for weight in packed], [weight.shape for weight in packed]
        return versions, shapes, [*map(Tensor.stride, packed)], [*map(Tensor.data_ptr, packed)]

    def _is_watched(self) -> bool:
        """Whether somebody wants layers called: has hooked one, or set a mode."""
        modes = torch._C._len_torch_dispatch_stack() or torch._C._len_torch_function_stack()
        return bool(modes) or any(self._hooks) or _library.mode.name != "auto"

    def _follows_from_what_is_compared(self) -> bool:
        every = (self._own, *self._values)
        own = (value for values in every for name, value in values.items() if name not in _EVERY)
        return (
            all(layer.__module__.startswith(KNOWN) for layer in self._types)
            and all(type(tensor) in (nn.Parameter, Tensor) for tensor in self._constants)
            and not any(isinstance(value, list | dict | set) for value in own)
            and not any("forward" in values for values in every)
        )


class _Call:
    """A graph of operators as a function of the input, and of constants."""

    def __init__(self, graph: fx.Graph, constants: list[Tensor]) -> None:
        self._forward, self._constants = fx.GraphModule(nn.Module(), graph).forward, constants

    def call(self, input: Tensor) -> Any:
        return self._forward(input, *self._constants)


class _Recorder(TorchDispatchMode):
    """Makes a graph of the operators that are called on an input and constants, if it follows from these alone."""

    def __init__(self, input: Tensor, constants: list[Tensor]) -> None:
        super().__init__()
        self._graph, self._constants, self._fails = fx.Graph(), constants, False
        self._nodes = WeakTensorKeyDictionary()  # Recording is to take no more memory than running.
        for index, tensor in enumerate((input, *constants)):
            self._nodes[tensor] = self._graph.placeholder(f"given{index}")
        self._given = set(self._graph.nodes)

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        node = self._graph.call_function(op, *fx.node.map_aggregate((args, kwargs or {}), self._node))
        given = dict(zip((a.name for a in op._schema.arguments), node.args, strict=False)) | node.kwargs
        self._fails |= any(a.is_write and given.get(a.name) in self._given for a in op._schema.arguments)
        result = op(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self._nodes[result] = node
        elif isinstance(result, list | tuple) and all(isinstance(tensor, Tensor) for tensor in result):
            for index, tensor in enumerate(result):
                self._nodes[tensor] = self._graph.call_function(operator.getitem, (node, index))
        else:
            self._fails |= result is not None  # A number, on which what comes next may depend.
        return result

    def _node(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        self._fails |= value not in self._nodes
        return self._nodes.get(value)

    def call(self, result: Any) -> _Call | None:
        """What computes the result again; None if that cannot be."""
        self._graph.output(fx.node.map_aggregate(result, self._node))
        return None if self._fails else _Call(self._graph, self._constants)
