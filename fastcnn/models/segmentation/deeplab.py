"""DeepLabv3: Chen et al., Rethinking Atrous Convolution for Semantic Image Segmentation, 2017.

With ResNets and MobileNetV3 as torchvision has it, and with MobileNets as Sandler et al., MobileNetV2, CVPR 2018, table 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register
from fastcnn.models.classification.mobilenetv1 import TIMM
from fastcnn.models.segmentation.segmenter import Segmenter, SegmenterRow
from fastcnn.nn.blocks import ConvNormAct, ConvSequence

# Of an output stride of 16; twice as far apart at 8, section 4.3.
RATES = (6, 12, 18)


@dataclass(frozen=True, kw_only=True)
class DeepLabRow(SegmenterRow):
    """A DeepLabv3.

    Attributes:
        output_stride: 16, or 8 for finer maps and four times the work of the layers behind.
        aspp: whether there are dilated convolutions beside the 1x1 convolution and the pooling of the whole image.
        rates: their dilations; () is ``RATES``, times 16 / output_stride.
        hidden: channels of every branch.
        last_conv: a 3x3 convolution before the classifier, as torchvision has it.
    """

    output_stride: int | None = 16
    aspp: bool = True
    rates: tuple[int, ...] = ()
    hidden: int = 256
    last_conv: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(rate < 1 for rate in self.rates) or self.hidden < 1:
            raise ValueError(f"rates and hidden must be at least 1, got {self.rates} and {self.hidden}")


class ImagePooling(ConvSequence):
    """The mean of the whole map, a 1x1 convolution, and that at every pixel: section 3.3."""

    def __init__(self, channels: int, out: int, **factory: Any) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), *ConvNormAct(channels, out, 1, **factory))

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        return super().forward(input).expand(-1, -1, *input.shape[-2:])


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: a 1x1 convolution, a 3x3 of each dilation and the image's mean, side by side.

    (N, channels, H, W) to (N, hidden, H, W). Keys are torchvision's.

    Args:
        rates: dilations; none leaves the convolution and the mean.
        dropout: after the 1x1 convolution that joins the branches.
    """

    def __init__(
        self,
        channels: int,
        rates: Sequence[int],
        hidden: int = 256,
        dropout: float = 0.5,
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.convs = nn.ModuleList([ConvNormAct(channels, hidden, 1, **factory)])
        self.convs.extend(ConvNormAct(channels, hidden, 3, dilation=rate, **factory) for rate in rates)
        self.convs.append(ImagePooling(channels, hidden, **factory))
        joined = ConvNormAct(len(self.convs) * hidden, hidden, 1, **factory)
        self.project = ConvSequence(*joined, nn.Dropout(dropout))

    def forward(self, input: Tensor) -> Tensor:
        return self.project(torch.cat([branch(input) for branch in self.convs], 1))


class DeepLabV3(Segmenter):
    """Keys are torchvision's; the MobileNets' are ``backbone.`` and those of the classifier.

    Logits are resized to the image as torchvision does, corners not aligned; the authors' code aligns them.
    In training mode a batch of one image is refused by the batch norm after the pooling of the whole image.
    """

    def __init__(self, row: DeepLabRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.add_backbone(**factory)
        hidden, last = row.hidden, self.feature_chain[-1]
        rates = row.rates or tuple(rate * 16 // last.stride for rate in RATES)
        conv = ConvNormAct(hidden, hidden, 3, **factory) if row.last_conv else ()
        self.classifier = ConvSequence(
            ASPP(last.channels, rates if row.aspp else (), hidden, **factory),
            *conv,
            nn.Conv2d(hidden, row.num_classes, 1, **factory),
        )
        self.classifier_path = f"classifier.{len(self.classifier) - 1}"
        self.class_paths = (self.classifier_path,)
        self.add_aux_classifier(**factory)


_513 = Preprocess(513, crop_pct=1.0, mean=TIMM.mean, std=TIMM.std)
_TV = "torchvision's DeepLabv3, after Chen et al., 2017: {}, rates 12, 24, 36"
_TABLE_7 = "Sandler et al., CVPR 2018, table 7: DeepLabv3 on {}, output stride 16"


def _torchvision(backbone: str, features: tuple[str], stride: int, aux_feature: str, **options: Any) -> DeepLabRow:
    return DeepLabRow(
        backbone=backbone,
        features=features,
        output_stride=stride,
        rates=(12, 24, 36),
        last_conv=True,
        aux_feature=aux_feature,
        source=_TV.format(f"{backbone} of stride {stride}"),
        **options,
    )


def _mobile(backbone: str, feature: str, source: str, **options: Any) -> DeepLabRow:
    source = _TABLE_7.format(source)
    return DeepLabRow(backbone=backbone, features=(feature,), preprocess=_513, source=source, **options)


_V2 = "MobileNetV2 without its last 1x1 convolution"

ROWS = {
    "deeplabv3_resnet50": _torchvision("resnet50", ("layer4",), 8, "layer3"),
    "deeplabv3_resnet101": _torchvision("resnet101", ("layer4",), 8, "layer3"),
    "deeplabv3_mobilenet_v3_large": _torchvision(
        "mobilenet_v3_large", ("features.16",), 16, "features.4", dilate_strided=True
    ),
    "deeplabv3_mobilenet_v1": _mobile("mobilenet_v1", "blocks.4", "MobileNetV1"),
    "deeplabv3_mobilenet_v2_aspp": _mobile("mobilenet_v2", "features.17", _V2),
    "deeplabv3_mobilenet_v2": _mobile("mobilenet_v2", "features.17", f"{_V2}, no dilated convolutions", aspp=False),
}

register(ROWS, DeepLabV3)
