"""Dense layers for inference: weights packed once, the activation and a residual taken along."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook

from fastcnn.nn.layers import ChannelShuffle
from fastcnn.ops import _library
from fastcnn.ops._channel_means import op as _means_op
from fastcnn.ops._convolutions import ACTIVATIONS, RELU, activate, conv2d_size
from fastcnn.ops._dense_conv2d import into as _into_op
from fastcnn.ops._dense_conv2d import op as _dense_op
from fastcnn.ops._dense_conv2d import pack_taps
from fastcnn.ops._linear import op as _linear_op
from fastcnn.ops._shuffle_pair import op as _pair_op
from fastcnn.ops._winograd_conv2d import op as _winograd_op
from fastcnn.ops._winograd_conv2d import pack_tiles
from fastcnn.ops.pointwise_conv2d import _op as _pointwise_op
from fastcnn.ops.pointwise_conv2d import fits, pack

# oneDNN's names of activations. Its ReLUs make 0 of NaN, so that we run those.
_ONEDNN_ACTIVATIONS = {"hardswish": "hardswish", "silu": "swish"}
Activation = tuple[int, float]  # Its number in kernels, and the slope that makes ReLU the leaky one.
_MANY = 1 << 19  # Weights of a convolution.
_LEAST = 32  # Channels from which on Winograd's algorithm saves more than its transforms cost.
_MOST = 1 << 22  # Weights of a linear layer that are packed; a larger one takes as long as they take to read.


def _onednn(name: str) -> Any:
    """An operator that torch.compile's frozen networks run on; None in a PyTorch that has no such one."""
    try:
        return getattr(torch.ops.mkldnn, name).default if torch.backends.mkldnn.is_available() else None
    except AttributeError:
        return None


_onednn_conv2d, _onednn_pack = _onednn("_convolution_pointwise"), _onednn("_reorder_convolution_weight")


def runs_as_told() -> bool:
    """Whether PyTorch just runs what it is told: no compiler, tracer, transform, global hook."""
    return (
        # First, as the compiler cannot trace the rest; it fuses what it sees.
        not torch.compiler.is_compiling()
        and _library.mode.name != "reference"
        and not torch._C._is_tracing()
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
        and not _has_any_global_hook()
    )


def runs_eagerly() -> bool:
    """The same, and no gradients or autocast."""
    return runs_as_told() and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


def takes(input: Tensor, dim: int, channels: int) -> bool:
    """Whether our kernels run on such an input as it is."""
    return (
        type(input) is Tensor
        and input.dtype is torch.float32
        and input.is_cpu
        and input.dim() == dim
        and input.size(1) == channels
        and input.numel() > 0
    )


def has_versions(weight: Tensor | None) -> TypeGuard[Tensor]:
    """Whether a layer's weight is a tensor, and tells when it is changed."""
    return weight is not None and not weight.is_inference()  # None if it is parametrised.


class Packs(nn.Module):
    """Keeps what was made of a layer's weight until the weight changes; not in copies, not in files."""

    weight: Tensor

    def packed(self, make: Callable[[Tensor], Tensor], kind: str = "ours") -> Tensor | None:
        """``make(weight)``, one of a kind; None where the weight is not float32 on a CPU, or changes untold."""
        weight = self._parameters.get("weight")
        if not has_versions(weight):
            return None
        key = weight.data_ptr(), weight._version, kind, weight.shape, weight.stride()
        kept = self.__dict__.get("_kept")
        if kept is not None and kept[0] == key:
            return kept[1]
        if weight.dtype != torch.float32 or weight.device.type != "cpu":
            return None
        with torch.no_grad():
            detached = weight.detach()  # While it is kept, no other weight can come to lie where it lies.
            kept = self.__dict__["_kept"] = key, make(detached), detached
        return kept[1]

    def train(self, mode: bool = True) -> Any:
        """Also forgets what is packed: of changes through ``weight.data`` or NumPy nothing else tells."""
        self.__dict__.pop("_kept", None)
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}


class FusedConv2d(Packs, nn.Conv2d):
    """:class:`torch.nn.Conv2d` of one group, with its activation: what ``fuse()`` makes of it.

    ``forward(input, residual=None)`` is ``activation(conv2d(input) + residual)``, (N, C, H, W) to
    (N, out_channels, H', W'). On a CPU, in float32 and where gradients are off, it runs our kernels or, with many
    weights or a dilation, oneDNN's: channels_last whatever the layout of the input, with a second copy of the weights,
    packed at the first call and again after a change of them. Those of 3x3 and stride 1 run by Winograd's algorithm:
    the copy is 16/9 as large, and what is not finite spreads to pixels beside those it reaches. Else it runs PyTorch's
    functions. Deterministic.
    After a change that PyTorch does not count (in place of ``weight.data``, or by NumPy) call ``eval()`` again.

    Attributes:
        activation: None, "relu", "relu6", "hardswish", "silu" or "leaky_relu".
        negative_slope: of the last.
    """

    activation: str | None = None
    negative_slope: float = 0.0

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        if runs_eagerly() and takes(input, 4, self.in_channels):
            return self.run(input, residual)
        return _finish(super().forward(input), residual, self.activates())

    def activates(self) -> Activation:
        """The activation as kernels take it."""
        if self.activation == "leaky_relu":
            return RELU, self.negative_slope
        return ACTIVATIONS.index(self.activation), 0.0

    def run(self, input: Tensor, residual: Tensor | None, activation: Activation | None = None) -> Tensor:
        """``forward`` for an input that this layer takes, without gradients; maybe with an activation in its place."""
        after = activation or self.activates()
        if input.is_contiguous():
            input = input.contiguous(memory_format=torch.channels_last)
        weight = self._parameters.get("weight")  # None where it is parametrised.
        result = None
        if weight is not None and self._is_plain():
            size = out_size(input, weight, self)
            # What is wrong or has to be broadcast is left to PyTorch.
            if size[2] > 0 and size[3] > 0 and (residual is None or is_map(residual, size)):
                result = self._run(input, weight, residual, after)
        return _finish(super().forward(input), residual, after) if result is None else result

    def _run(self, input: Tensor, weight: Tensor, residual: Tensor | None, after: Activation) -> Tensor | None:
        kind, slope = after
        if self.is_pointwise():
            packed = self.packed(pack)
            if packed is not None:
                return call(_pointwise_op, input, weight, bias_of(self), residual, kind, packed, slope)
        elif self.is_winograd():
            packed = self.packed(pack_tiles, "tiles")
            if packed is not None:
                return call(_winograd_op, input, weight, packed, bias_of(self), self.padding, kind, residual, slope)
        elif self.is_dense():
            packed = self.packed(pack_taps)
            if packed is not None:
                window = self.stride, self.padding
                return call(_dense_op, input, weight, packed, bias_of(self), *window, kind, residual, slope)
        elif _onednn_conv2d is not None:
            geometry = self.padding, self.stride, self.dilation, 1
            packed = self.packed(lambda w: _onednn_pack(w, *geometry, list(input.shape)), "oneDNN's")
            if packed is not None:
                name, scalars = _onednn_activation(after) if residual is None else (None, [])
                result = _onednn_conv2d(input, packed, bias_of(self), *geometry, name or "none", scalars, "")
                if name:
                    return result
                return _finish(result if residual is None else result.add_(residual), None, after)
        return None

    def is_pointwise(self) -> bool:
        return self.kernel_size == self.stride == (1, 1) and self.padding == (0, 0) and fits(self.weight)

    def is_winograd(self) -> bool:
        """Whether it runs by Winograd's algorithm, where few channels are not worth it."""
        is_3x3 = self.kernel_size == (3, 3) and self.stride == self.dilation == (1, 1)
        return is_3x3 and self.in_channels >= _LEAST and fits(self.weight) and self._is_plain()

    def is_dense(self) -> bool:
        """Whether it can run our other kernel; where there are many weights oneDNN's is faster."""
        weight = self.weight
        few = weight.numel() < _MANY and fits(weight)
        return few and self.dilation == (1, 1) and self._is_plain()

    def _is_plain(self) -> bool:
        """Whether attributes are what the constructor makes of numbers; PyTorch takes others too."""
        numbers = type(self.padding) is type(self.stride) is type(self.dilation) is tuple
        return numbers and self.padding_mode == "zeros"

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", activation={self.activation}" if self.activation else "")


def _onednn_activation(after: Activation) -> tuple[str | None, list[float]]:
    """Its name and numbers; None where it is left to us."""
    kind, slope = after
    return ("leaky_relu", [slope]) if slope else (_ONEDNN_ACTIVATIONS.get(ACTIVATIONS[kind] or ""), [])


def _finish(result: Tensor, residual: Tensor | None, after: Activation) -> Tensor:
    """What follows a convolution, on its result."""
    kind, slope = after
    if residual is not None:
        result = result + residual
    if kind == RELU and not slope and not result.requires_grad:
        return result.relu_()
    return activate(kind, result, slope)


class FusedLinear(Packs, nn.Linear):
    """:class:`torch.nn.Linear` for few inputs at a time: what ``fuse()`` makes of it.

    (N, in_features) in float32 on a CPU without a gradient runs our kernel, with a second copy of up to 16 MB of
    weights, packed; all else PyTorch's function. Deterministic.
    """

    def forward(self, input: Tensor) -> Tensor:
        fitting = self.weight.numel() <= _MOST and fits(self.weight)
        packed = self.packed(pack) if fitting and runs_eagerly() and takes(input, 2, self.in_features) else None
        if packed is None:
            return super().forward(input)
        bias = None if self.bias is None else self.bias.contiguous()
        return call(_linear_op, input, self.weight, packed, bias)


class FusedMean2d(nn.AdaptiveAvgPool2d):
    """The mean of each channel, (N, C, H, W) to (N, C, 1, 1): what ``fuse()`` makes of ``nn.AdaptiveAvgPool2d(1)``.

    In float32 on a CPU without a gradient our kernel, with fixed sums: deterministic. Else PyTorch's function.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.output_size in (1, (1, 1)) and runs_eagerly() and input.dim() == 4 and takes(input, 4, input.size(1)):
            return call(_means_op, input)
        return super().forward(input)


def call(op: Any, *arguments: Any) -> Any:
    """The op where :func:`runs_eagerly` has been asked: without gradients."""
    if torch.is_inference_mode_enabled():
        return op.call(*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return op.call(*arguments)


def side_by_side(convolutions: Sequence[nn.Module], input: Tensor) -> Tensor | None:
    """What ``torch.cat`` makes of the results on one input, without a copy; None where that cannot be done."""
    convs = [c for c in convolutions if isinstance(c, FusedConv2d) and not is_hooked(c)]
    if len(convs) < len(convolutions) or not runs_eagerly():
        return None
    if not all(takes(input, 4, c.in_channels) and c.is_dense() for c in convs):
        return None
    packed = [c.packed(pack_taps) for c in convs]
    sizes = [out_size(input, c.weight, c) for c in convs]
    images, _, height, width = sizes[0]
    if min(height, width) < 1 or any(size[2:] != (height, width) for size in sizes) or any(p is None for p in packed):
        return None
    shape, first = (images, sum(size[1] for size in sizes), height, width), 0
    out = torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=torch.channels_last)
    for conv, weights, size in zip(convs, packed, sizes, strict=True):
        window = conv.stride, conv.padding
        call(_into_op, out, first, input, conv.weight, weights, bias_of(conv), *window, *conv.activates())
        first += size[1]
    return out


def shuffled_pair(first: Tensor, second: Tensor, shuffle: nn.ChannelShuffle) -> Tensor:
    """``shuffle(torch.cat([first, second], 1))``; of two groups in channels_last in one copy, for inference."""
    if (
        type(shuffle) is ChannelShuffle
        and shuffle.groups == 2
        and not is_hooked(shuffle)
        and runs_eagerly()
        and takes(first, 4, second.size(1))
        and takes(second, 4, second.size(1))
        and first.shape == second.shape
        and second.is_contiguous(memory_format=torch.channels_last)
    ):
        return call(_pair_op, first, second)
    return shuffle(torch.cat([first, second], 1))


def is_hooked(layer: Any) -> bool:
    """Whether somebody wants to hear of its calls."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks or "forward" in layer.__dict__)


def is_map(residual: Tensor | None, size: tuple[int, ...]) -> bool:
    """Whether kernels can add it to a result of this size."""
    return type(residual) is Tensor and residual.dtype is torch.float32 and residual.is_cpu and residual.shape == size


def bias_of(conv: nn.Conv2d) -> Tensor | None:
    """As kernels read it; that of a parametrised layer too."""
    parameters = conv._parameters
    bias = parameters["bias"] if "bias" in parameters else conv.bias  # noqa: SIM401 - The latter is slow to get.
    return None if bias is None else bias.contiguous()


def paddings(conv: nn.Conv2d) -> tuple[int, int, int, int]:
    """Above, below, left and right; of a layer that was asked whether its padding is a pair."""
    padding: Any = conv.padding
    height, width = padding
    return height, height, width, width


def out_size(input: Tensor, weight: Tensor, conv: nn.Conv2d) -> tuple[int, int, int, int]:
    """Of the convolution's result; sides below 1 where the kernel is larger than the input."""
    return conv2d_size(input, weight, conv.stride, paddings(conv), conv.dilation)
