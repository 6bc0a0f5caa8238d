"""The deconvolutional network of Zeiler and Fergus: an activation led back to the pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcnn.models import ConvNet
from fastcnn.nn import layers
from fastcnn.visualize._layers import check, check_channel, path_of

Undo = Callable[[Tensor], Tensor]


def deconvnet(
    net: ConvNet, input: Tensor, layer: str, channel: int, position: tuple[int, int] | None = None
) -> Tensor:
    """The pattern in the input that made one activation: all others of its layer are set to 0, and the layers below are
    passed backwards. Max pooling puts values where the maxima were (its switches), ReLUs rectify what comes back,
    convolutions apply their transposed filters, without biases, batch norms their scale; local response normalisation,
    which the paper does not undo, passes values as they are.

    Args:
        net: a chain of such layers, in eval mode and not fused: ``alexnet``, ``zfnet``, ``vgg16``, ... from their rows.
        input: preprocessed (N, C, H, W).
        layer: a feature's name or the path of a module.
        channel: of its map.
        position: row and column in the map; None is the channel's strongest, for each image its own.

    Returns:
        (N, C, H, W), signed; linear in the activation once the switches are set. Deterministic on a CPU.

    Raises:
        ValueError: training mode, a bad input, layer, channel or position, or a layer that has no way back.

    Source: Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014, section 2.1.
    """
    check(net, input)
    path = path_of(net, layer)
    with torch.no_grad():
        maps, undo = input.clone(), []  # A copy, as a first layer may work in place.
        for name, module in _chain(net, path):
            if type(module) not in _STEPS:
                raise ValueError(f"deconvnet has no way back through {name}, a {type(module).__name__}")
            maps, back = _STEPS[type(module)](module, maps)
            undo.append(back)
        signal = _only(maps, layer, channel, position)
        for back in reversed(undo):
            signal = back(signal)
    return signal


def _chain(net: ConvNet, path: str) -> Iterator[tuple[str, nn.Module]]:
    """The layers from the input to the one at ``path``, in turn."""
    if type(net).forward_stages is not ConvNet.forward_stages:
        raise ValueError(f"deconvnet takes a chain of layers, which {type(net).__name__} is not")
    for feature in net.feature_chain:
        for start in feature.modules:
            for name, module in _leaves(start, net.get_submodule(start)):
                yield name, module
                if name == path:
                    return
            if start == path:
                return
    raise ValueError(f"{path} is not among the layers that lead to the features of this {type(net).__name__}")


def _leaves(path: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(module, nn.Sequential):
        for name, child in module.named_children():
            yield from _leaves(f"{path}.{name}", child)
    else:
        yield path, module


def _only(maps: Tensor, layer: str, channel: int, position: tuple[int, int] | None) -> Tensor:
    check_channel(channel, maps.size(1), layer)
    height, width = maps.shape[2:]
    if position is None:
        places = maps[:, channel].flatten(1).argmax(1)
    else:
        row, column = position
        if not (0 <= row < height and 0 <= column < width):
            raise ValueError(f"{layer}'s map is {height} x {width}, got position {tuple(position)}")
        places = torch.full((len(maps),), row * width + column, device=maps.device)
    signal = torch.zeros_like(maps)
    images = torch.arange(len(maps), device=maps.device)
    rows, columns = places // width, places % width
    signal[images, channel, rows, columns] = maps[images, channel, rows, columns]
    return signal


def unpool(values: Tensor, switches: Tensor, size: tuple[int, int]) -> Tensor:
    """Max pooling backwards: each value goes where the maximum was; where windows overlap and share one, they add up.

    Args:
        values: (N, C, h, w).
        switches: of the same shape, int64: the indices of ``max_pool2d(..., return_indices=True)``.
        size: height and width of the pooling's input.

    Returns:
        (N, C, *size), 0 elsewhere. Deterministic on a CPU.

    Raises:
        ValueError: other shapes, or a switch outside ``size``.
    """
    if values.dim() != 4 or values.shape != switches.shape:
        raise ValueError(
            f"switches must have values' shape (N, C, h, w), got {tuple(switches.shape)}, {tuple(values.shape)}"
        )
    height, width = size
    if switches.numel() and not 0 <= int(switches.min()) <= int(switches.max()) < height * width:
        raise ValueError(f"switches must be below {height} * {width}, got {int(switches.max())}")
    flat = values.new_zeros(*values.shape[:2], height * width)
    return flat.scatter_add_(2, switches.flatten(2), values.flatten(2)).unflatten(2, (height, width))


def _conv(conv: nn.Conv2d, input: Tensor) -> tuple[Tensor, Undo]:
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        raise ValueError(f"deconvnet has no way back through padding {conv.padding_mode!r}, {conv.padding!r}")
    shape, options = input.shape, (conv.stride, conv.padding, conv.dilation, conv.groups)
    return conv(input), lambda signal: torch.nn.grad.conv2d_input(shape, conv.weight, signal, *options)


def _pool(pool: nn.MaxPool2d, input: Tensor) -> tuple[Tensor, Undo]:
    size: Any = input.shape[2:]
    output, switches = F.max_pool2d(
        input, pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode, return_indices=True
    )
    return output, lambda signal: unpool(signal, switches, size)


def _norm(norm: nn.BatchNorm2d, input: Tensor) -> tuple[Tensor, Undo]:
    if norm.running_var is None or getattr(norm, "activation", None):
        raise ValueError("deconvnet has no way back through a batch norm without statistics or with an activation")
    scale = (norm.running_var + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight)
    return norm(input), lambda signal: signal * scale[:, None, None]


def _relu(relu: nn.ReLU, input: Tensor) -> tuple[Tensor, Undo]:
    return relu(input), torch.relu


def _pass(module: nn.Module, input: Tensor) -> tuple[Tensor, Undo]:
    return module(input), lambda signal: signal


_STEPS: dict[type[nn.Module], Callable[[Any, Tensor], tuple[Tensor, Undo]]] = {
    nn.Conv2d: _conv,
    nn.MaxPool2d: _pool,
    nn.BatchNorm2d: _norm,
    layers.BatchNorm2d: _norm,
    nn.ReLU: _relu,
    nn.LocalResponseNorm: _pass,
    layers.LocalResponseNorm: _pass,
    nn.Dropout: _pass,
    nn.Identity: _pass,
}
