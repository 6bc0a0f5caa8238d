"""Batch norms that run together with the activation after them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from fastcnn.nn.fused import FusedConv2d, is_hooked, runs_as_told, runs_eagerly, takes
from fastcnn.nn.layers import BatchNorm2d, Hardswish, ReLU6, normalize
from fastcnn.ops._convolutions import ACTIVATIONS

# What kernels can do to a result. By exact type: a subclass may compute something else.
ACTIVATION_OF: dict[type, str] = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    ReLU6: "relu6",
    nn.Hardswish: "hardswish",
    Hardswish: "hardswish",
    nn.SiLU: "silu",
}
_NORMS = (nn.BatchNorm2d, BatchNorm2d)


def _is_watched(layer: Any) -> bool:
    """Whether somebody wants to hear of its calls, or of gradients."""
    return bool(is_hooked(layer) or layer._backward_hooks or layer._backward_pre_hooks)


def _is_norm(layer: nn.Module) -> bool:
    # Of a layer that is to stay PyTorch's, ``as_one_op`` is False.
    return type(layer) in _NORMS and layer.__dict__.get("as_one_op", True) and not _is_watched(layer)


def _follows(norm: nn.Module, layer: nn.Module) -> bool:
    return type(layer) in ACTIVATION_OF and not getattr(norm, "activation", None) and not _is_watched(layer)


def _takes(input: Tensor) -> bool:
    return type(input) is Tensor and input.is_cpu and input.dim() == 4


class NormAct:
    """A batch norm and the activation after it, if there is one, as one op."""

    def __init__(self, norm: nn.BatchNorm2d, act: nn.Module | None) -> None:
        self._norm, self._act = norm, act
        self._activation = getattr(norm, "activation", None) if act is None else ACTIVATION_OF[type(act)]

    def __call__(self, input: Tensor) -> Tensor:
        if _takes(input):
            return normalize(self._norm, input, self._activation)
        result = self._norm(input)
        return result if self._act is None else self._act(result)  # type: ignore[no-any-return]


def norm_act_at_start(layers: Sequence[nn.Module]) -> tuple[NormAct | None, int]:
    """The step that a batch norm with which the layers begin makes, and of how many layers; else None and 0."""
    norm = layers[0]
    if not _is_norm(norm):
        return None, 0
    act = layers[1] if len(layers) > 1 and _follows(norm, layers[1]) else None
    return NormAct(norm, act), 1 if act is None else 2  # type: ignore[arg-type]


def run_in_turn(layers: Iterable[nn.Module], input: Tensor) -> Tensor:
    """What the layers make of it one after the other, batch norms together with the activations after them."""
    left = list(layers)
    pairs = runs_as_told()
    while left:
        step, count = norm_act_at_start(left) if pairs else (None, 0)
        input = left[0](input) if step is None else step(input)
        del left[: count or 1]
    return input


def conv_norm_act(
    conv: nn.Module, norm: nn.Module, act: nn.Module | None, input: Tensor, residual: Tensor | None = None
) -> Tensor:
    """``act(norm(conv(input)) + residual)``, of a convolution that ``fuse()`` has prepared in one pass.

    For blocks whose layers are not in a row, as one activation comes after several.
    """
    kind = None if act is None else ACTIVATION_OF.get(type(act))
    if (
        isinstance(conv, FusedConv2d)
        and type(norm) is nn.Identity
        and (act is None or (kind is not None and conv.activation is None))
        and runs_eagerly()
        and takes(input, 4, conv.in_channels)
        and not any(is_hooked(layer) for layer in (conv, norm, act) if layer is not None)
    ):
        return conv.run(input, residual, None if act is None else (ACTIVATIONS.index(kind), 0.0))
    return add_act(norm(conv(input)), act, residual)


def add_act(result: Tensor, act: nn.Module | None, residual: Tensor | None) -> Tensor:
    """``act(result + residual)``; the sum in place of ``result``."""
    if residual is not None:
        result += residual
    return result if act is None else act(result)  # type: ignore[no-any-return]


class Steps:
    """How a row of layers runs one by one, batch norms with what follows them; for as long as it ``holds``."""

    def __init__(self, row: nn.Module) -> None:
        self._modules = row._modules
        self._layers = tuple(row._modules.values())
        self._hooks: list[dict[int, Any]] = []
        self._attributes: list[dict[str, Any]] = []
        self.steps: list[Callable[[Tensor], Tensor]] = []
        layers: list[Any] = list(self._layers)
        while layers:
            step, count = norm_act_at_start(layers)
            for layer in layers[:count]:
                self._hooks += (layer._forward_hooks, layer._forward_pre_hooks)
                self._hooks += (layer._backward_hooks, layer._backward_pre_hooks)
                self._attributes.append(layer.__dict__)
            self.steps.append(layers[0] if step is None else step)
            del layers[: count or 1]

    def holds(self, row: nn.Module) -> bool:
        """Whether the layers are those that they were, and nobody wants to hear of the calls that are left out."""
        return (
            self._modules is row._modules  # A replica of nn.DataParallel's gets the attributes of the original.
            and tuple(self._modules.values()) == self._layers
            and not any(self._hooks)
            and not any("forward" in attributes for attributes in self._attributes)
        )
