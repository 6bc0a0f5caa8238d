"""Strides for dilations, as dense prediction needs them; and how much of the image a layer sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcnn.models._net import Net
from fastcnn.models._summary import on_meta

# Of the traced image: so large that what padding leaves out at the borders does not change a stride.
SIDE = 4096


class _Call(NamedTuple):
    """A leaf module that ran, and the strides of its input and output."""

    path: str
    layer: Any
    before: int
    after: int


def _trace(module: nn.Module, run: Callable[[Any], Callable[[Tensor], Any]], channels: int) -> list[_Call]:
    """Of the twin of ``module`` on meta; maps of one pixel, which have no stride, are left out."""
    twin = on_meta(module)
    calls: list[_Call] = []

    def hook_of(path: str) -> Any:
        def note(layer: nn.Module, args: Any, output: Any) -> None:
            sides = [each.size(-1) for each in (args[0], output) if isinstance(each, Tensor) and each.dim() == 4]
            if len(sides) == 2 and min(sides) > 1:
                calls.append(_Call(path, layer, *(round(SIDE / side) for side in sides)))

        return note

    for path, layer in twin.named_modules():
        if not any(layer.children()):
            layer.register_forward_hook(hook_of(path))
    dtype = next((p.dtype for p in twin.parameters()), torch.float32)
    with torch.no_grad():
        run(twin)(torch.empty(1, channels, SIDE, SIDE, dtype=dtype, device="meta"))
    return calls


def _features(twin: Any) -> Callable[[Tensor], Any]:
    return twin.forward_features  # type: ignore[no-any-return]


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)  # type: ignore[return-value]


class FullMaxPool2d(nn.MaxPool2d):
    """A max pooling of stride 1 that keeps the side of its map: what its padding leaves out is added at the ends."""

    def forward(self, input: Tensor) -> Tensor:
        sizes = zip(_pair(self.kernel_size), _pair(self.dilation), _pair(self.padding), strict=True)
        bottom, right = ((side - 1) * apart - 2 * pad for side, apart, pad in sizes)
        return super().forward(F.pad(input, (0, right, 0, bottom), value=float("-inf")))


def set_output_stride(net: Net, stride: int, *, dilate_strided: bool = False) -> Net:
    """Makes the maps of ``net`` no coarser than ``stride`` pixels of the input, in place; returns the network.

    Layers lose the strides that would make them so, and those behind see pixels as far apart as they would have:
    convolutions and max poolings are dilated, the "hole algorithm". Weights and keys stay, and so do values: every
    pixel that the network with strides has is one of the finer map, where zeros around the image do not matter and
    sides are multiples of the stride; not behind squeeze-excite, whose means are of other pixels. ``feature_info``
    tells the new strides. Calling it again with a smaller stride is as calling it with that at first.

    Args:
        net: not fused; any whose maps become coarser by strides of padded convolutions and of max poolings.
        stride: one of its features'.
        dilate_strided: layers that lose a stride are dilated as those behind them, as torchvision's MobileNetV3 has it
            (its ResNets do not); values are then others.

    Raises:
        ValueError: another stride, a network that is fused, or one with a layer that cannot be dilated.

    Source: Chen et al., Rethinking Atrous Convolution, 2017, section 3.1.
    """
    strides = sorted({feature.stride for feature in net.feature_chain})
    if stride not in strides:
        raise ValueError(
            f"stride must be one of {', '.join(map(str, strides))} of this {type(net).__name__}, got {stride}"
        )
    if net.is_fused:
        raise ValueError(f"this {type(net).__name__} is fused: set its output stride before")
    changes = {}
    for path, layer, before, after in _trace(net, _features, net.in_channels):
        if after <= stride or (before == after and not hasattr(layer, "kernel_size")):
            continue
        if not _can_dilate(layer, before < after):
            raise ValueError(f"{path}, a {type(layer).__name__}, cannot be dilated")
        apart = max(before, after if dilate_strided else 0) // stride
        changes[path] = max(1, stride // before), max(1, apart)
    for path, (step, apart) in changes.items():
        _dilate(net.get_submodule(path), step, apart)
    net.feature_chain = tuple(each._replace(stride=min(each.stride, stride)) for each in net.feature_chain)
    return net


def _can_dilate(layer: Any, is_strided: bool) -> bool:
    if isinstance(layer, nn.MaxPool2d):
        return True
    if not isinstance(layer, nn.Conv2d) or isinstance(layer.padding, str):
        return False
    # With strides, TensorFlow's "SAME" pads such a convolution from outside, by the size of the image.
    return not is_strided or layer.kernel_size == (1, 1) or any(layer.padding)


def _dilate(layer: Any, step: int, apart: int) -> None:
    layer.stride = (step, step)
    if _pair(layer.kernel_size) == (1, 1):
        return
    layer.dilation, layer.padding = (tuple(apart * n for n in _pair(of)) for of in (layer.dilation, layer.padding))
    if isinstance(layer, nn.MaxPool2d) and step == 1:
        layer.__class__ = FullMaxPool2d
