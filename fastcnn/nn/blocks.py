"""The blocks that networks share. Every one takes ``device=`` and ``dtype=`` and so builds on ``meta``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn import ops
from fastcnn.nn.fused import FusedConv2d, FusedMean2d, is_hooked, runs_as_told, runs_eagerly
from fastcnn.nn.fusing import fold_conv_norm
from fastcnn.nn.layers import DepthwiseConv2d, GroupedConv2dShuffle, Hardsigmoid, PointwiseConv2d
from fastcnn.nn.norms import Steps
from fastcnn.nn.plan import Plan

ModuleFactory = Callable[..., nn.Module]
Size = int | tuple[int, int]


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def make_divisible(channels: float, divisor: int = 8) -> int:
    """``channels`` rounded to a multiple of ``divisor``, never by more than 10 % down.

    The width rule of Sandler et al., MobileNetV2, CVPR 2018 (the authors' code), used by V3 and EfficientNet.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor


def conv2d(in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1, **options: Any) -> nn.Conv2d:
    """A convolution by the kernels that are made for it: depthwise, grouped, 1x1, or PyTorch's own.

    Keys, results and ``options`` (padding, dilation, groups, bias, device, dtype) are :class:`torch.nn.Conv2d`'s.
    """
    groups = options.get("groups", 1)
    if groups == 1:
        pointwise = all(_pair(size) == (1, 1) for size in (kernel_size, stride)) and not any(
            _pair(options.get("padding", 0))
        )
        kind = PointwiseConv2d if pointwise else nn.Conv2d
        return kind(in_channels, out_channels, kernel_size, stride, **options)
    if groups == in_channels:
        return DepthwiseConv2d(in_channels, out_channels, kernel_size, stride, **options)
    return GroupedConv2dShuffle(in_channels, out_channels, kernel_size, stride, shuffle_groups=1, **options)


class ConvSequence(nn.Sequential):
    """A Sequential of which :func:`fold_conv_norm` folds into every convolution what comes directly after it.

    (N, C, H, W) to what the last layer gives. Takes layers as :class:`torch.nn.Sequential` does, all at once.
    """

    def __init__(self, *layers: Any) -> None:
        super().__init__(*layers)
        names = list(self._modules)
        self.conv_chains = tuple(
            tuple(names[index:]) for index, layer in enumerate(self) if isinstance(layer, nn.Conv2d | nn.Conv3d)
        )

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """The layers in a row; then ``residual``, if there is one, is added.

        Without gradients, convolutions that ``fuse()`` has prepared run together: 1x1, depthwise and 1x1 as one op.
        A batch norm and the activation directly after it run as one op, :func:`fastcnn.ops.batch_norm`.
        """
        if runs_eagerly():
            plan = self.__dict__.get("_plan")
            if plan is None or not plan.holds(self):
                plan = self.__dict__["_plan"] = Plan(self, _is_row)
            return plan.run(input, residual)
        for layer in self._steps() if runs_as_told() else self:
            input = layer(input)
        return input if residual is None else input + residual

    def _steps(self) -> Sequence[Callable[[Tensor], Tensor]]:
        kept = self.__dict__.get("_kept")
        if kept is None or not kept.holds(self):
            kept = self.__dict__["_kept"] = Steps(self)
        return kept.steps  # type: ignore[no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_plan", "_kept")}


def _is_row(layer: Any) -> bool:
    return type(layer).forward is ConvSequence.forward and not is_hooked(layer)


class ConvNormAct(ConvSequence):
    """Convolution, normalisation, activation: children 0, 1 and 2, as torchvision.ops.Conv2dNormActivation.

    (N, in_channels, H, W) to (N, out_channels, H', W'); the default padding keeps H' = ceil(H / stride).

    Args:
        kernel_size, stride, padding, dilation: one number, or (height, width).
        groups: of the convolution; depthwise and grouped ones run fastcnn's kernels.
        norm: called as ``norm(out_channels, device=, dtype=)``; None leaves it out and gives the convolution
            a bias.
        act: called as ``act(inplace=True)``; None leaves it out.
    """

    names = ("0", "1", "2")  # Of the children; a subclass may have others, for the keys of a published network.

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size = 3,
        stride: Size = 1,
        *,
        padding: Size | None = None,
        dilation: Size = 1,
        groups: int = 1,
        norm: ModuleFactory | None = nn.BatchNorm2d,
        act: ModuleFactory | None = nn.ReLU,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        sides = zip(_pair(kernel_size), _pair(dilation), strict=True)
        same = tuple((side - 1) * step // 2 for side, step in sides)
        options: dict[str, Any] = {"padding": same if padding is None else padding, "dilation": dilation}
        conv = conv2d(
            in_channels, out_channels, kernel_size, stride, groups=groups, bias=norm is None, **options, **factory
        )
        layers: dict[str, nn.Module] = {self.names[0]: conv}
        if norm is not None:
            layers[self.names[1]] = norm(out_channels, **factory)
        if act is not None:
            layers[self.names[2]] = act(inplace=True)
        super().__init__(OrderedDict(layers))

    def fuse(self) -> ConvNormAct:
        """Folds the norm into the convolution for inference: see :func:`fold_conv_norm`."""
        return fold_conv_norm(self)


_PLAIN = (nn.Conv2d, FusedConv2d)
_MEANS = (nn.AdaptiveAvgPool2d, FusedMean2d)
_ACTIVATIONS: dict[type, str] = {nn.ReLU: "relu", nn.SiLU: "silu"}
_GATES: dict[type, str] = {nn.Sigmoid: "sigmoid", nn.Hardsigmoid: "hardsigmoid", Hardsigmoid: "hardsigmoid"}


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation: scales each channel by a gate computed from all channels' means. Shape is kept.

    Keys ``fc1`` and ``fc2`` (1x1 convolutions) are torchvision.ops.SqueezeExcitation's. Source: Hu et al.,
    Squeeze-and-Excitation Networks, CVPR 2018, section 3.

    Runs :func:`fastcnn.ops.squeeze_excite`; the modules one by one where one of them has a hook or has been replaced
    by what that op does not compute, or ``as_one_op`` is set to False.

    Args:
        channels: of input and output.
        squeeze_channels: of the hidden layer.
        act: activation of the hidden layer.
        gate: activation that makes the gate; sigmoid in the paper, ``nn.Hardsigmoid`` in MobileNetV3.
    """

    as_one_op = True

    def __init__(
        self,
        channels: int,
        squeeze_channels: int,
        *,
        act: ModuleFactory = nn.ReLU,
        gate: ModuleFactory = nn.Sigmoid,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeeze_channels, 1, device=device, dtype=dtype)
        self.fc2 = nn.Conv2d(squeeze_channels, channels, 1, device=device, dtype=dtype)
        self.activation = act()
        self.scale_activation = gate()

    def forward(self, input: Tensor) -> Tensor:
        if self.as_one_op and isinstance(input, Tensor) and self._is_one_op():
            activation, gate = _ACTIVATIONS[type(self.activation)], _GATES[type(self.scale_activation)]
            parameters = self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias
            return ops.squeeze_excite(input, *parameters, activation, gate)
        scores = self.fc2(self.activation(self.fc1(self.avgpool(input))))
        return input * self.scale_activation(scores)

    def _is_one_op(self) -> bool:
        fc1, fc2 = self.fc1, self.fc2
        if not (
            type(self.activation) in _ACTIVATIONS
            and type(self.scale_activation) in _GATES
            and type(self.avgpool) in _MEANS
            and type(fc1) in _PLAIN  # Another subclass may quantise, or parametrise its weight.
            and type(fc2) in _PLAIN
            and self.avgpool.output_size == 1
            and fc1.kernel_size == fc2.kernel_size == (1, 1)
            and fc1.groups == fc2.groups == 1
        ):
            return False
        # Whoever hooks a module wants it called.
        return not any(
            m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
            for m in self._modules.values()
            if m is not None
        )


class InvertedResidual(nn.Module):
    """MobileNet's inverted residual: 1x1 expansion, depthwise, squeeze-excite, linear 1x1 projection.

    (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)); adds the input where the
    shape is kept. Keys ``block.0`` ... ``block.3`` are torchvision's of MobileNetV3 (no expansion where
    ``expanded_channels == in_channels``). Source: Sandler et al., MobileNetV2, CVPR 2018, section 3.3; Howard
    et al., MobileNetV3, figure 4.

    Args:
        squeeze_excite: called as ``squeeze_excite(expanded_channels, device=, dtype=)``; None leaves it out.
    """

    def __init__(
        self,
        in_channels: int,
        expanded_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        *,
        norm: ModuleFactory = nn.BatchNorm2d,
        act: ModuleFactory = nn.ReLU,
        squeeze_excite: ModuleFactory | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        options: dict[str, Any] = {"norm": norm, **factory}
        width = expanded_channels
        layers: list[nn.Module] = []
        if width != in_channels:
            layers.append(ConvNormAct(in_channels, width, 1, act=act, **options))
        layers.append(ConvNormAct(width, width, kernel_size, stride, groups=width, act=act, **options))
        if squeeze_excite is not None:
            layers.append(squeeze_excite(width, **factory))
        layers.append(ConvNormAct(width, out_channels, 1, act=None, **options))
        self.block = ConvSequence(*layers)
        self.use_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, input: Tensor) -> Tensor:
        return self.block(input, input if self.use_shortcut else None)
