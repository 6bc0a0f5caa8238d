"""The blocks of residual networks."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcnn.nn.blocks import ConvNormAct, ModuleFactory, conv2d
from fastcnn.nn.norms import add_act, conv_norm_act

SHORTCUTS = ("A", "B", "C", None)


class ZeroPadShortcut(nn.Module):
    """Option A: the identity at every ``stride``-th pixel, with channels of zeros after its own; no parameters.

    (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)). Source: He et al., Deep Residual
    Learning, CVPR 2016, section 3.3.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.padding, self.stride = out_channels - in_channels, stride

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input[..., :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.padding))

    def extra_repr(self) -> str:
        return f"padding={self.padding}, stride={self.stride}"


class ResidualBlock(nn.Module):
    """``relu(branch(input) + shortcut(input))``: what all residual blocks share.

    (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)). A subclass adds the layers of its
    ``branch`` and then calls :meth:`add_ends`, which takes these options of every block:

    Args:
        shortcut: where shape changes, "A" pads with zeros and "B" projects; "C" projects in every block; None adds
            nothing, which makes a plain network.
        squeeze_excite: called as ``squeeze_excite(out_channels, device=, dtype=)``, runs on the branch before the
            addition; None leaves it out. Source: Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, figure 3.
        squeeze_excite_name: of that child, for the keys of a published network.
        projection_kernel: size of the projections that have a stride.

    Raises:
        ValueError: another ``shortcut``.
    """

    expansion: int

    def add_ends(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        shortcut: str | None = "B",
        squeeze_excite: ModuleFactory | None = None,
        squeeze_excite_name: str = "se",
        projection_kernel: int = 1,
        **factory: Any,
    ) -> None:
        if shortcut not in SHORTCUTS:
            raise ValueError(f"shortcut must be 'A', 'B', 'C' or None, got {shortcut!r}")
        self.relu = nn.ReLU(inplace=True)
        self.has_shortcut = shortcut is not None
        self.squeeze_excite_name = None if squeeze_excite is None else squeeze_excite_name
        if squeeze_excite is not None:
            self.add_module(squeeze_excite_name, squeeze_excite(out_channels, **factory))
        self.downsample: nn.Module | None = None
        changes = stride != 1 or in_channels != out_channels
        if shortcut == "A" and changes:
            self.downsample = ZeroPadShortcut(in_channels, out_channels, stride)
        elif shortcut == "C" or (shortcut == "B" and changes):
            kernel = 1 if stride == 1 else projection_kernel
            self.downsample = ConvNormAct(in_channels, out_channels, kernel, stride, act=None, **factory)

    def branch(self, input: Tensor, act: nn.Module | None = None, residual: Tensor | None = None) -> Tensor:
        """What is added to the shortcut; or ``act`` of its sum with ``residual``, the shortcut itself."""
        raise NotImplementedError(f"{type(self).__name__} has no branch")

    def forward(self, input: Tensor) -> Tensor:
        shortcut = None
        if self.has_shortcut:
            shortcut = input if self.downsample is None else self.downsample(input)
        if self.squeeze_excite_name is None:
            return self.branch(input, self.relu, shortcut)
        out = getattr(self, self.squeeze_excite_name)(self.branch(input))
        return add_act(out, self.relu, shortcut)


class BasicBlock(ResidualBlock):
    """ResNet's block of two 3x3 convolutions, with torchvision's keys.

    (N, in_channels, H, W) to (N, planes, ceil(H / stride), ceil(W / stride)). Source: He et al., Deep Residual
    Learning, CVPR 2016, figure 5, left. ``options`` are :class:`ResidualBlock`'s.
    """

    expansion = 1
    conv_chains = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int = 1,
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.conv1 = nn.Conv2d(in_channels, planes, 3, stride, padding=1, bias=False, **factory)
        self.bn1 = nn.BatchNorm2d(planes, **factory)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False, **factory)
        self.bn2 = nn.BatchNorm2d(planes, **factory)
        self.add_ends(in_channels, planes, stride, **options, **factory)

    def branch(self, input: Tensor, act: nn.Module | None = None, residual: Tensor | None = None) -> Tensor:
        out = conv_norm_act(self.conv1, self.bn1, self.relu, input)
        return conv_norm_act(self.conv2, self.bn2, act, out, residual)


class Bottleneck(ResidualBlock):
    """ResNet's bottleneck: 1x1, 3x3, 1x1 convolutions and a shortcut, with torchvision's keys.

    (N, in_channels, H, W) to (N, 4 * planes, ceil(H / stride), ceil(W / stride)). Source: He et al., Deep Residual
    Learning, CVPR 2016, figure 5, right; ``groups`` and ``width_per_group``: Xie et al., Aggregated Residual
    Transformations, CVPR 2017, figure 3c. ``options`` are :class:`ResidualBlock`'s.

    Args:
        stride_in_1x1: stride in the first 1x1 convolution, as in the paper, instead of the 3x3 ("v1.5").
        halve_1x1: half the channels in the first 1x1 convolution, as SENet-154 has them.
        dilation: of the 3x3 convolution.
    """

    expansion = 4
    conv_chains = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int = 1,
        *,
        groups: int = 1,
        width_per_group: int = 64,
        stride_in_1x1: bool = False,
        halve_1x1: bool = False,
        dilation: int = 1,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        width = planes * width_per_group // 64 * groups
        first = width // 2 if halve_1x1 else width
        out_channels = planes * self.expansion
        stride1, stride2 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, first, 1, stride1, bias=False, **factory)
        self.bn1 = nn.BatchNorm2d(first, **factory)
        holes = {"padding": dilation, "dilation": dilation}
        self.conv2 = conv2d(first, width, 3, stride2, groups=groups, bias=False, **holes, **factory)
        self.bn2 = nn.BatchNorm2d(width, **factory)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False, **factory)
        self.bn3 = nn.BatchNorm2d(out_channels, **factory)
        self.add_ends(in_channels, out_channels, stride, **options, **factory)

    def branch(self, input: Tensor, act: nn.Module | None = None, residual: Tensor | None = None) -> Tensor:
        out = conv_norm_act(self.conv1, self.bn1, self.relu, input)
        out = conv_norm_act(self.conv2, self.bn2, self.relu, out)
        return conv_norm_act(self.conv3, self.bn3, act, out, residual)


class ConcatenatedBottleneck(ResidualBlock):
    """The bottleneck as ``groups`` paths of 1x1 and 3x3 convolutions that are concatenated before the last 1x1.

    Same function, parameters and arguments as :class:`Bottleneck`; path i, ``paths.i``, has the weights of its group.
    Source: Xie et al., Aggregated Residual Transformations, CVPR 2017, figure 3b.
    """

    expansion = 4
    conv_chains: tuple[tuple[str, str], ...] = (("conv3", "bn3"),)

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int = 1,
        *,
        groups: int = 1,
        width_per_group: int = 64,
        stride_in_1x1: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        width = planes * width_per_group // 64
        stride1, stride2 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.paths = nn.ModuleList(
            nn.Sequential(
                ConvNormAct(in_channels, width, 1, stride1, **factory),
                ConvNormAct(width, width, 3, stride2, **factory),
            )
            for _ in range(groups)
        )
        out_channels = planes * self.expansion
        self.add_merge(width, out_channels, **factory)
        self.bn3 = nn.BatchNorm2d(out_channels, **factory)
        self.add_ends(in_channels, out_channels, stride, **options, **factory)

    def add_merge(self, width: int, out_channels: int, **factory: Any) -> None:
        self.conv3 = nn.Conv2d(len(self.paths) * width, out_channels, 1, bias=False, **factory)

    def branch(self, input: Tensor, act: nn.Module | None = None, residual: Tensor | None = None) -> Tensor:
        paths = torch.cat([path(input) for path in self.paths], dim=1)
        return conv_norm_act(self.conv3, self.bn3, act, paths, residual)


class SplitBottleneck(ConcatenatedBottleneck):
    """The bottleneck as ``groups`` paths of three convolutions that are summed: split, transform, merge.

    Same function, parameters and arguments as :class:`Bottleneck`. The last norm follows the sum, so ``fuse()`` leaves
    it. Source: Xie et al., Aggregated Residual Transformations, CVPR 2017, figure 3a.
    """

    conv_chains = ()

    def add_merge(self, width: int, out_channels: int, **factory: Any) -> None:
        for path in self.paths:
            assert isinstance(path, nn.Sequential)
            path.append(nn.Conv2d(width, out_channels, 1, bias=False, **factory))

    def branch(self, input: Tensor, act: nn.Module | None = None, residual: Tensor | None = None) -> Tensor:
        first, *others = (path(input) for path in self.paths)
        for other in others:
            first = first + other
        return add_act(self.bn3(first), act, residual)
