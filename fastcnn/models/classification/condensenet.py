"""CondenseNet: Huang et al., CondenseNet: An Efficient DenseNet using Learned Group Convolutions, CVPR 2018."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.models._net import ConvNet, Feature, Row
from fastcnn.models._preprocess import CIFAR10
from fastcnn.models._registry import register
from fastcnn.nn.blocks import conv2d
from fastcnn.nn.init import init_weights
from fastcnn.nn.learned_groups import CondensedConv, LearnedGroupConv


@dataclass(frozen=True, kw_only=True)
class CondenseNetRow(Row):
    """Section 3.2, for ImageNet or CIFAR as in section 4.

    Attributes:
        layers: dense layers per block.
        growth: channels that a layer adds, for each block; the stem has twice the first.
        groups: of the 1x1 convolutions, learned, and of the 3x3 ones, which are not; G in the paper.
        condensation: inputs of a 1x1 convolution over those that a group keeps, C in the paper.
        bottleneck: width of a layer's 1x1 convolution, in growth rates.
        stem_stride: of the first convolution.
        converted: build what :meth:`CondenseNet.convert` makes, to load its weights.
        kept_features: part of the last features that a converted network's classifier sees.
        dropout: before each 1x1 convolution of a layer that still learns its groups.
    """

    layers: tuple[int, ...]
    growth: tuple[int, ...]
    groups: int
    condensation: int
    bottleneck: int = 4
    stem_stride: int = 2
    converted: bool = False
    kept_features: float = 1.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.layers or not all(isinstance(n, int) and n > 0 for n in self.layers):
            raise ValueError(f"layers must be positive ints, got {self.layers!r}")
        if len(self.growth) != len(self.layers):
            raise ValueError(f"growth must have {len(self.layers)} ints, one for each block, got {self.growth!r}")
        for field in ("groups", "condensation", "bottleneck", "stem_stride"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        for field in ("groups", "condensation"):
            if any(rate < 1 or rate % getattr(self, field) for rate in self.growth):
                raise ValueError(f"growth must be multiples of {field} = {getattr(self, field)}, got {self.growth!r}")
        if not 0 < self.kept_features <= 1:
            raise ValueError(f"kept_features must be above 0 and at most 1, got {self.kept_features}")


class NormActConv(nn.Module):
    """Batch norm, ReLU and a 3x3 convolution in groups: the size is kept."""

    def __init__(self, in_channels: int, out_channels: int, groups: int, **factory: Any) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels, **factory)
        self.relu = nn.ReLU(inplace=True)
        self.conv = conv2d(in_channels, out_channels, 3, padding=1, groups=groups, bias=False, **factory)

    def forward(self, input: Tensor) -> Tensor:
        return self.conv(self.relu(self.norm(input)))


class CondenseLayer(nn.Module):
    """Puts ``growth`` channels behind the input's. The learned groups are shuffled by their order."""

    conv_chains = (("conv_1.conv", "conv_2.norm"),)  # The first norm has a concatenation before it, so it stays.

    def __init__(self, in_channels: int, growth: int, row: CondenseNetRow, **factory: Any) -> None:
        super().__init__()
        width = row.bottleneck * growth
        self.conv_1: nn.Module
        if row.converted:
            self.conv_1 = CondensedConv(in_channels // row.condensation * row.groups, width, row.groups, **factory)
            self.conv_1.index.remainder_(in_channels)
        else:
            self.conv_1 = LearnedGroupConv(in_channels, width, row.groups, dropout=row.dropout, **factory)
        self.conv_2 = NormActConv(width, growth, row.groups, **factory)

    def forward(self, input: Tensor) -> Tensor:
        return torch.cat([input, self.conv_2(self.conv_1(input))], 1)


class CondenseNet(ConvNet):
    """Features: ``stem``, ``denseblock_1``, ... and ``last`` (the last block's, after norm and ReLU).

    Built to be trained: call :meth:`prune` as training goes on, :meth:`convert` after it. Counts that the paper
    prints are those of the converted network.
    """

    head_names = ("avgpool", "kept_features", "classifier")
    classifier_path = "classifier"

    def __init__(self, row: CondenseNetRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        self.row: CondenseNetRow
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        channels, stride = 2 * row.growth[0], row.stem_stride
        self.features = nn.Sequential()
        stem = nn.Conv2d(row.in_channels, channels, 3, stride, padding=1, bias=False, **factory)
        self.features.add_module("init_conv", stem)
        chain = [Feature("stem", channels, stride, ("features.init_conv",))]
        for index, (layers, growth) in enumerate(zip(row.layers, row.growth, strict=True), 1):
            path: tuple[str, ...] = ()
            if index > 1:
                self.features.add_module(f"transition_{index - 1}", nn.AvgPool2d(2))
                stride, path = 2 * stride, (f"features.transition_{index - 1}",)
            block = nn.Sequential()
            for number in range(layers):
                block.add_module(f"denselayer_{number + 1}", CondenseLayer(channels, growth, row, **factory))
                channels += growth
            self.features.add_module(f"denseblock_{index}", block)
            chain.append(Feature(f"denseblock_{index}", channels, stride, (*path, f"features.denseblock_{index}")))
        self.features.add_module("norm_last", nn.BatchNorm2d(channels, **factory))
        self.features.add_module("relu_last", nn.ReLU(inplace=True))
        self.feature_chain = (*chain, Feature("last", channels, stride, ("features.norm_last", "features.relu_last")))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        kept = int(channels * row.kept_features) if row.converted else channels
        self.register_buffer("kept_features", torch.arange(kept, device=device) if kept < channels else None)
        self.kept_features: Tensor | None
        self.classifier = nn.Linear(kept, row.num_classes, **factory)
        self.init_weights(self)

    def forward_head(self, features: Tensor) -> Tensor:
        pooled = self.avgpool(features).flatten(1)
        return self.classifier(pooled if self.kept_features is None else pooled.index_select(1, self.kept_features))

    def _learned(self) -> list[LearnedGroupConv]:
        return [module for module in self.modules() if isinstance(module, LearnedGroupConv)]

    def prune(self, progress: float) -> None:
        """Takes from the learned groups the inputs that they have lost when ``progress`` of the training is over.

        The first half of it has C - 1 condensing stages; at the end of each, every group loses the 1/C of all inputs
        for which its sums of absolute weights are the least. Lost inputs stay lost.

        Raises:
            ValueError: ``progress`` is not between 0 and 1.
        """
        if not 0 <= progress <= 1:
            raise ValueError(f"progress must be between 0 and 1, got {progress}")
        last = self.row.condensation - 1
        stage = min(last, int(2 * progress * last))
        for module in self._learned():
            conv = module.conv
            conv.prune(conv.in_channels - stage * (conv.in_channels // self.row.condensation))

    def group_lasso(self) -> Tensor:
        """The regulariser of section 3.1: a sum over groups and inputs of their weights' norms; differentiable."""
        norms = [module.conv.grouped_weight().square().sum(0) for module in self._learned()]
        return sum((norm.clamp(min=1e-6).sqrt().sum() for norm in norms), torch.zeros(()))

    def convert(self, kept_features: float = 1.0) -> CondenseNet:
        """Makes a standard group convolution of every pruned one, in place; returns the network.

        Outputs are those of the pruned network. ``kept_features`` below 1 leaves the classifier that part of its
        inputs, those with the greatest sums of absolute weights, as the authors do with 0.5; that changes them. Call
        :meth:`fuse` before, as it folds the norms behind learned groups only. A second call changes nothing.

        Raises:
            RuntimeError: groups are not pruned to the last stage; nothing has been converted then.
            ValueError: ``kept_features`` is not above 0 and at most 1.
        """
        if self.row.converted:
            return self
        row = dataclasses.replace(self.row, converted=True, kept_features=kept_features)
        layers = [layer for layer in self.modules() if isinstance(layer, CondenseLayer)]
        convs = [CondensedConv.of(conv, row.condensation) for conv in self._learned()]
        for layer, conv in zip(layers, convs, strict=True):
            layer.conv_1 = conv
        if kept_features < 1 and not self.features_only:
            old = self.classifier
            kept = old.weight.detach().abs().sum(0).topk(int(old.in_features * kept_features)).indices.sort().values
            options: dict[str, Any] = {"device": old.weight.device, "dtype": old.weight.dtype}
            self.classifier = nn.Linear(len(kept), old.out_features, **options).train(old.training)
            self.classifier.load_state_dict({"weight": old.weight.detach()[:, kept], "bias": old.bias.detach()})
            self.kept_features = kept
        self.row = row
        return self

    def init_weights(self, module: nn.Module) -> None:
        """Convolutions by fan-out; linear layers PyTorch's, bias 0; as the authors' code."""
        init_weights(module)
        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.bias)


_PAPER = "Huang et al., CVPR 2018"
_IMAGENET: dict[str, Any] = {"layers": (4, 6, 8, 10, 8), "growth": (8, 16, 32, 64, 128)}
_CIFAR: dict[str, Any] = {"stem_stride": 1, "num_classes": 10, "preprocess": CIFAR10}

ROWS = {
    "condensenet50_cifar10": CondenseNetRow(
        layers=(8, 8, 8),
        growth=(8, 16, 32),
        groups=4,
        condensation=4,
        source=f"{_PAPER}, CondenseNet-50, G = C = 4, for CIFAR-10",
        **_CIFAR,
    ),
    "condensenet74_g4": CondenseNetRow(
        **_IMAGENET, groups=4, condensation=4, source=f"{_PAPER}, CondenseNet-74, G = C = 4"
    ),
    "condensenet74_g8": CondenseNetRow(
        **_IMAGENET, groups=8, condensation=8, source=f"{_PAPER}, CondenseNet-74, G = C = 8"
    ),
}

register(ROWS, CondenseNet)
