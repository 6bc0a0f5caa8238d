"""AlexNet, "One weird trick" AlexNet and ZFNet."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from fastcnn.models._plain import LRN, Conv, PlainNet, PlainRow, Pool
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register


@dataclass(frozen=True, kw_only=True)
class AlexNetRow(PlainRow):
    """A stack and its initialisation.

    Attributes:
        weight_std: initial deviation of every weight; None is PyTorch's initialisation.
        hidden_bias: initial bias of the hidden fully connected layers.
    """

    pooled: int | tuple[int, ...] = 6
    weight_std: float | None = 0.01
    hidden_bias: float = 0.0


class AlexNet(PlainNet):
    """Features: ``conv1`` ... ``conv5`` after their ReLUs; ``pool1``, ``pool2`` and ``pool5``."""

    def init_weights(self, module: nn.Module) -> None:
        row = self.row
        assert isinstance(row, AlexNetRow)
        layers = [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        biases = [layer.bias for layer in row.layers if isinstance(layer, Conv)] + [row.hidden_bias] * 2 + [0.0]
        for layer, bias in zip(layers, biases if module is self else [0.0] * len(layers), strict=True):
            if row.weight_std is None:
                layer.reset_parameters()
            else:
                assert layer.bias is not None
                nn.init.normal_(layer.weight, std=row.weight_std)
                nn.init.constant_(layer.bias, bias)


def _zfnet(conv3: int, conv4: int, conv5: int) -> tuple[Conv | Pool | LRN, ...]:
    # Rounding up is what makes the sides of figure 3: 110, 55, 26, 13, 13, 13, 13, 6.
    return (
        Conv(96, 7, 2),
        Pool(3, ceil_mode=True),
        LRN(),
        Conv(256, 5, 2, 0),
        Pool(3, ceil_mode=True),
        LRN(),
        Conv(conv3),
        Conv(conv4),
        Conv(conv5),
        Pool(3, ceil_mode=True),
    )


_ALEXNET = (
    Conv(96, 11, 4, 0),
    LRN(),
    Pool(3),
    Conv(256, 5, 1, 2, grouped=True, bias=1.0),
    LRN(),
    Pool(3),
    Conv(384),
    Conv(384, grouped=True, bias=1.0),
    Conv(256, grouped=True, bias=1.0),
    Pool(3),
)
_ONE_WEIRD_TRICK = (
    Conv(64, 11, 4, 2),
    Pool(3),
    Conv(192, 5, 1, 2),
    Pool(3),
    Conv(384),
    Conv(256),
    Conv(256),
    Pool(3),
)
# Both papers train on pixels from 0 to 255 without their mean.
_PIXELS_227 = Preprocess(input_size=227, crop_pct=227 / 256, std=(1 / 255,) * 3)
_PIXELS_224 = Preprocess(std=(1 / 255,) * 3)

ROWS = {
    "alexnet": AlexNetRow(
        layers=_ALEXNET,
        groups=2,
        hidden_bias=1.0,
        preprocess=_PIXELS_227,
        source="Krizhevsky et al., NIPS 2012, section 3; two GPUs as two groups, 227 pixels so that conv1 needs no pad",
    ),
    "alexnet_owt": AlexNetRow(
        layers=_ONE_WEIRD_TRICK,
        dropout_first=True,
        weight_std=None,
        source="Krizhevsky, One weird trick, 2014, as torchvision's alexnet: one GPU, other widths, no LRN",
    ),
    "zfnet": AlexNetRow(
        layers=_zfnet(384, 384, 256),
        preprocess=_PIXELS_224,
        source="Zeiler and Fergus, ECCV 2014, figure 3; LRN, whose constants it does not give, as AlexNet's",
    ),
    "zfnet_wide": AlexNetRow(
        layers=_zfnet(512, 1024, 512),
        preprocess=_PIXELS_224,
        source="Zeiler and Fergus, ECCV 2014, table 2, model (b): larger middle convolutions",
    ),
    "zfnet_spp": AlexNetRow(
        layers=_zfnet(384, 384, 256)[:-1],
        pooled=(6, 3, 2, 1),
        preprocess=_PIXELS_224,
        source="He et al., SPP-net, ECCV 2014, section 3.1: ZF-5 with a pyramid of 50 bins for the last pool; any size",
    ),
}

register(ROWS, AlexNet)
