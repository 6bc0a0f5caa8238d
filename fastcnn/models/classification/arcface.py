"""ArcFace's networks: Deng et al., ArcFace: Additive Angular Margin Loss for Deep Face Recognition, CVPR 2019."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.models._net import ConvNet, Feature, Row
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register
from fastcnn.nn.blocks import ConvNormAct

_FACES = Preprocess(112, crop_pct=1.0, mean=(0.5,) * 3, std=(0.5,) * 3)


@dataclass(frozen=True, kw_only=True)
class ArcFaceRow(Row):
    """A depth. ``num_classes`` is the width of the embedding.

    Attributes:
        layers: blocks per stage.
        map_size: (height, width) of the last map, a 16th of the input's.
        dropout: before the linear layer.
    """

    task: str = "embedding"
    layers: tuple[int, ...]
    map_size: tuple[int, int] = (7, 7)
    dropout: float = 0.0
    num_classes: int = 512
    preprocess: Preprocess = _FACES

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.layers) != 4 or not all(isinstance(n, int) and n > 0 for n in self.layers):
            raise ValueError(f"layers must be four positive ints, got {self.layers!r}")
        if len(self.map_size) != 2 or min(self.map_size) < 1:
            raise ValueError(f"map_size must be two positive ints, got {self.map_size!r}")


class IBasicBlock(nn.Module):
    """``BN - conv - BN - PReLU - conv - BN`` plus the input, or where the shape changes a 1x1 projection of it.

    (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)); the second convolution strides,
    and nothing comes after the sum. Source: section 2.1, "improved residual unit".
    """

    conv_chains = (("conv1", "bn2"), ("conv2", "bn3"))  # bn1 stays: its convolution pads with zeros after it.

    def __init__(self, in_channels: int, out_channels: int, stride: int, **factory: Any) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels, **factory)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False, **factory)
        self.bn2 = nn.BatchNorm2d(out_channels, **factory)
        self.prelu = nn.PReLU(out_channels, **factory)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, stride, padding=1, bias=False, **factory)
        self.bn3 = nn.BatchNorm2d(out_channels, **factory)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = ConvNormAct(in_channels, out_channels, 1, stride, act=None, **factory)

    def forward(self, input: Tensor) -> Tensor:
        out = self.prelu(self.bn2(self.conv1(self.bn1(input))))
        out = self.bn3(self.conv2(out))
        return out + (input if self.downsample is None else self.downsample(input))


class ArcFace(ConvNet):
    """(N, in_channels, 112, 112) faces, aligned, to embeddings (N, num_classes), which are not scaled to length 1.

    Compare embeddings by their cosine; train with :class:`fastcnn.nn.losses.ArcMarginHead`. The linear layer weighs
    every place, so the input has one size, 16 times ``map_size``. The last batch norm's scale is 1 and gets no
    gradient. Keys are those of the authors' PyTorch code. Features: ``conv1`` (stride 1), ``layer1`` (2) ...
    ``layer4`` (16).

    Raises:
        ValueError: an input of another size.
    """

    head_names = ("bn2", "dropout", "fc", "features")
    classifier_path = "fc"
    conv_chains = (("conv1", "bn1"),)

    def __init__(self, row: ArcFaceRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        self.row: ArcFaceRow
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        channels = 64
        self.conv1 = nn.Conv2d(row.in_channels, channels, 3, padding=1, bias=False, **factory)
        self.bn1 = nn.BatchNorm2d(channels, **factory)
        self.prelu = nn.PReLU(channels, **factory)
        chain = [Feature("conv1", channels, 1, ("conv1", "bn1", "prelu"))]
        for index, blocks in enumerate(row.layers):
            stage = nn.Sequential()
            for block in range(blocks):
                stage.append(IBasicBlock(channels, 64 * 2**index, 2 if block == 0 else 1, **factory))
                channels = 64 * 2**index
            name = f"layer{index + 1}"
            self.add_module(name, stage)
            chain.append(Feature(name, channels, 2 ** (index + 1), (name,)))
        self.feature_chain = tuple(chain)
        self.bn2 = nn.BatchNorm2d(channels, **factory)
        self.dropout = nn.Dropout(row.dropout)
        height, width = row.map_size
        self.fc = nn.Linear(channels * height * width, row.num_classes, **factory)
        self.features = _norm(row.num_classes, **factory)
        self.init_weights(self)

    def forward_head(self, features: Tensor) -> Tensor:
        if tuple(features.shape[2:]) != self.row.map_size:
            raise ValueError(f"the linear layer takes maps of {self.row.map_size}, got {tuple(features.shape[2:])}")
        return self.features(self.fc(self.dropout(self.bn2(features).flatten(1))))

    def renew(self, path: str, outputs: int) -> None:
        """Renews the norm of the embedding too."""
        super().renew(path, outputs)
        weight = self.fc.weight
        self.features = _norm(outputs, device=weight.device, dtype=weight.dtype).train(self.features.training)

    def init_weights(self, module: nn.Module) -> None:
        """The authors' code's: normal convolutions of deviation 0.1, PyTorch's linear layer."""
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.1)


def _norm(width: int, **factory: Any) -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(width, **factory)
    norm.weight.requires_grad_(False)
    return norm


_PAPER = "Deng et al., CVPR 2019, section 2.1, and the authors' PyTorch code"

ROWS = {
    "arcface_iresnet18": ArcFaceRow(layers=(2, 2, 2, 2), source=_PAPER),
    "arcface_iresnet50": ArcFaceRow(layers=(3, 4, 14, 3), source=_PAPER),
    "arcface_iresnet100": ArcFaceRow(layers=(3, 13, 30, 3), source=_PAPER),
}

register(ROWS, ArcFace)
