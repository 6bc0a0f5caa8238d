"""MobileNetV2 with timm's keys, for the weights that timm publishes; else the networks of mobilenetv2.py."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.models._net import Feature
from fastcnn.models._pooled import PooledNet
from fastcnn.models._preprocess import BICUBIC
from fastcnn.models._registry import register
from fastcnn.models.classification.mobilenetv2 import TABLE, MobileNetV2Row
from fastcnn.nn.blocks import ConvSequence, conv2d, make_divisible
from fastcnn.nn.init import init_weights
from fastcnn.nn.layers import ReLU6


class FlatBottleneck(ConvSequence):
    """:class:`fastcnn.models.classification.mobilenetv2.LinearBottleneck` with timm's keys: no level in between."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        expansion: int,
        stride: int = 1,
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        options: dict[str, Any] = {"bias": False, "device": device, "dtype": dtype}
        width = in_channels * expansion
        depthwise = conv2d(width, width, 3, stride, padding=1, groups=width, **options)
        project = conv2d(width, out_channels, 1, **options)
        convs = {"conv_dw": depthwise, "conv_pw": project}
        if expansion != 1:
            expand = conv2d(in_channels, width, 1, **options)
            convs = {"conv_pw": expand, "conv_dw": depthwise, "conv_pwl": project}
        layers: dict[str, nn.Module] = {}
        for index, (name, conv) in enumerate(convs.items(), 1):
            layers[name] = conv
            layers[f"bn{index}"] = nn.BatchNorm2d(conv.out_channels, device=device, dtype=dtype)
            if conv is not project:
                layers[f"act{index}"] = ReLU6(inplace=True)
        super().__init__(OrderedDict(layers))
        self.use_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(input, input if self.use_shortcut else None)


class MobileNetV2Timm(PooledNet):
    """Keys are timm's. Features: ``stem``, ``blocks.0`` ... ``blocks.6``, one per row of the table, and ``head``."""

    head_names = ("global_pool", "dropout", "classifier")
    classifier_path = "classifier"
    conv_chains = (("conv_stem", "bn1", "act1"), ("conv_head", "bn2", "act2"))

    def __init__(self, row: MobileNetV2Row, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        channels, stride = make_divisible(32 * row.width_mult), 2
        self.conv_stem = nn.Conv2d(row.in_channels, channels, 3, 2, padding=1, bias=False, **factory)
        self.bn1 = nn.BatchNorm2d(channels, **factory)
        self.act1 = ReLU6(inplace=True)
        chain = [Feature("stem", channels, stride, ("conv_stem", "bn1", "act1"))]
        self.blocks = nn.Sequential()
        for expansion, table_out, repeats, first_stride in TABLE:
            out = make_divisible(table_out * row.width_mult)
            blocks = nn.Sequential(FlatBottleneck(channels, out, expansion, first_stride, **factory))
            for _ in range(repeats - 1):
                blocks.append(FlatBottleneck(out, out, expansion, **factory))
            channels, stride = out, stride * first_stride
            name = f"blocks.{len(self.blocks)}"
            self.blocks.append(blocks)
            chain.append(Feature(name, channels, stride, (name,)))
        last = make_divisible(1280 * max(1.0, row.width_mult))
        self.conv_head = conv2d(channels, last, 1, bias=False, **factory)
        self.bn2 = nn.BatchNorm2d(last, **factory)
        self.act2 = ReLU6(inplace=True)
        chain.append(Feature("head", last, stride, ("conv_head", "bn2", "act2")))
        self.feature_chain = tuple(chain)
        self.add_head(last, row.dropout, **factory)
        self.init_weights(self)

    def init_weights(self, module: nn.Module) -> None:
        init_weights(module, linear_std=0.01, per_group=True)


ROWS = {
    f"mobilenetv2_{round(100 * width):03d}": MobileNetV2Row(
        width_mult=width,
        dropout=0.0,
        preprocess=BICUBIC,
        source=f"Sandler et al., CVPR 2018, table 2; {width} times as wide, timm's keys and weights",
    )
    for width in (0.5, 1.0, 1.4)
}

register(ROWS, MobileNetV2Timm)
