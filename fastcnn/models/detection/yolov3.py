"""YOLOv3: Redmon and Farhadi, YOLOv3: An Incremental Improvement, 2018: three scales over Darknet-53."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import find_entry, register
from fastcnn.models.classification.darknet import Darknet53, Darknet53Row, DarknetConv
from fastcnn.models.detection import priors
from fastcnn.models.detection.yolo import SQUARE_416
from fastcnn.models.detection.yolo_anchors import AnchorRow, AnchorYOLO
from fastcnn.models.detection.yolo_layers import TINY, DarknetStack, Layers, scale_channels


class Scale(NamedTuple):
    """One of the maps that boxes are predicted from.

    Attributes:
        feature: of the backbone, which the coarser scale's map is put before.
        body: widths of the convolutions, in turn 1x1 and 3x3; the finer scale takes their result.
        out: width of the 3x3 convolution before the predictor.
        lateral: width to which a 1x1 convolution reduces the coarser scale's map before it is doubled in size.
    """

    feature: str
    body: tuple[int, ...]
    out: int
    lateral: int = 0


@dataclass(frozen=True, kw_only=True)
class YOLOv3Row(AnchorRow):
    """Section 2.

    Attributes:
        scales: from the coarsest; the first has no ``lateral``.
        layers: a stack in the place of Darknet-53.
        ignore_iou: 0.5 in the paper, 0.7 in Darknet.
    """

    scales: tuple[Scale, ...] = (
        Scale("stages.4", (512, 1024, 512, 1024, 512), 1024),
        Scale("stages.3", (256, 512, 256, 512, 256), 512, 256),
        Scale("stages.2", (128, 256, 128, 256, 128), 256, 128),
    )
    layers: Layers | None = None
    num_classes: int = 80
    ignore_iou: float = 0.5
    preprocess: Preprocess = SQUARE_416

    def __post_init__(self) -> None:
        super().__post_init__()
        laterals = [bool(scale.lateral) for scale in self.scales]
        if not laterals or laterals != [False] + [True] * (len(laterals) - 1):
            raise ValueError(f"scales must be one or more, all but the first with a lateral, got {self.scales!r}")
        if self.priors is not None and len(self.priors) % len(self.scales):
            raise ValueError(f"priors must be as many for each of {len(self.scales)} scales, got {len(self.priors)}")


class YOLOv3Head(nn.Module):
    """A scale's part of the network: keys ``lateral``, ``body.N``, ``out``, ``predictor``.

    Takes the backbone's map (N, C, H, W) and, but for the first, the coarser scale's (N, C', H / 2, W / 2); gives
    predictions (N, outputs, H, W) and what the finer scale takes.
    """

    def __init__(
        self,
        channels: int,
        coarser: int,
        scale: Scale,
        outputs: int,
        *,
        width_mult: float,
        negative_slope: float,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        options = {"negative_slope": negative_slope, **factory}
        if scale.lateral:
            lateral = scale_channels(scale.lateral, width_mult)
            self.lateral = DarknetConv(coarser, lateral, 1, **options)
            channels += lateral
        self.body = nn.Sequential()
        for number, out in enumerate(scale.body):
            out = scale_channels(out, width_mult)
            self.body.append(DarknetConv(channels, out, 3 if number % 2 else 1, **options))
            channels = out
        self.channels = channels
        out = scale_channels(scale.out, width_mult)
        self.out = DarknetConv(channels, out, 3, **options)
        self.predictor = nn.Conv2d(out, outputs, 1, **factory)

    def forward(self, input: Tensor, coarser: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if coarser is not None:
            larger = F.interpolate(self.lateral(coarser), scale_factor=2.0, mode="nearest")
            input = torch.cat([larger, input], 1)
        passed = self.body(input)
        return self.predictor(self.out(passed)), passed


class YOLOv3(AnchorYOLO):
    """Keys: ``backbone`` and ``heads.N``, from the coarsest scale. Features: the backbone's.

    Any input whose sides are multiples of 32 works with the same weights. The smallest priors belong to the finest
    scale. Classes are independent: a box may have several. The loss is the paper's (sections 2.1 and 2.2), with
    Darknet's weight of small boxes: binary cross-entropy of objectness, classes and x and y, whose gradient is truth
    minus prediction, and half squares of the errors of the sizes' logarithms, both times 2 - the object's share of
    the image.
    """

    head_names = ("heads",)

    def __init__(self, row: YOLOv3Row, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        options: dict[str, Any] = {"device": device, "dtype": dtype, "negative_slope": row.negative_slope}
        if row.layers is not None:
            scaled = {"batch_norm": True, "width_mult": row.width_mult, **options}
            stack = DarknetStack(row.in_channels, row.layers, path="backbone", **scaled)
            self.add_backbone(stack, stack.feature_chain)
        else:
            darknet53 = find_entry("darknet53").row
            assert isinstance(darknet53, Darknet53Row)
            stem = scale_channels(darknet53.stem_channels, row.width_mult)
            slope = options["negative_slope"]
            darknet53 = replace(darknet53, stem_channels=stem, in_channels=row.in_channels, negative_slope=slope)
            backbone = Darknet53(darknet53, device=device, dtype=dtype).keep_features(row.scales[0].feature)  # type: ignore[arg-type]
            self.add_backbone(backbone, backbone.feature_chain, "backbone.")
        found = {feature.name: feature for feature in self.feature_chain}
        for scale in row.scales:
            if scale.feature not in found:
                raise ValueError(f"the backbone has no feature {scale.feature!r}; it has {', '.join(found)}")
        features = [found[scale.feature] for scale in row.scales]
        self.strides = tuple(feature.stride for feature in features)
        self.stride = self.strides[0]
        if any(2 * finer != coarser for coarser, finer in zip(self.strides, self.strides[1:], strict=False)):
            raise ValueError(f"each scale must be twice as fine as the one before, got strides {self.strides}")
        sizes = row.priors or (priors.YOLOV3_TINY_COCO if row.layers is not None else priors.YOLOV3_COCO)
        count = len(sizes) // len(row.scales)
        self.priors = tuple(sizes[first : first + count] for first in range(0, len(sizes), count))[::-1]
        self.predictors = tuple(f"heads.{index}.predictor" for index in range(len(row.scales)))
        self.heads = nn.ModuleList()
        coarser = 0
        options["width_mult"] = row.width_mult
        for scale, feature, outputs in zip(row.scales, features, self.predictor_outputs(row), strict=True):
            head = YOLOv3Head(feature.channels, coarser, scale, outputs, **options)
            self.heads.append(head)
            coarser = head.channels
        self.init_weights(self)

    def head_outputs(self, batch: Tensor) -> tuple[Tensor, ...]:
        self.check_batch(batch)
        names = [scale.feature for scale in self._v3.scales]
        maps = self.forward_stages(batch, names)
        outputs, passed = [], None
        for head, name in zip(self.heads, names, strict=True):
            raw, passed = head(maps[name], passed)
            outputs.append(raw)
        return tuple(outputs)

    def probabilities(self, raw: Tensor) -> Tensor:
        return raw.sigmoid()

    def box_loss(self, raw: Tensor, place: Tensor, size: Tensor, area: Tensor) -> Tensor:
        errors = F.binary_cross_entropy_with_logits(raw[:, :2], place, reduction="none")
        errors = errors + (raw[:, 2:] - size).square() / 2
        return ((2 - area)[:, None] * errors).sum()

    def objectness_loss(self, raw: Tensor, iou: Tensor, without: Tensor) -> Tensor:
        return F.softplus(-raw).sum() + F.softplus(without).sum()

    def class_loss(self, raw: Tensor, labels: Tensor) -> Tensor:
        one_hot = F.one_hot(labels, self.num_classes).to(raw.dtype)
        return F.binary_cross_entropy_with_logits(raw, one_hot, reduction="sum")

    @property
    def _v3(self) -> YOLOv3Row:
        assert isinstance(self.row, YOLOv3Row)
        return self.row


_PAPER = "Redmon and Farhadi, YOLOv3: An Incremental Improvement, 2018"

register(
    {
        "yolov3": YOLOv3Row(source=f"{_PAPER}, section 2"),
        "yolov3_x0_25": YOLOv3Row(width_mult=0.25, source=f"{_PAPER}, a quarter as wide, for small machines"),
        "yolov3_tiny": YOLOv3Row(
            layers=TINY,
            scales=(Scale("conv7", (256,), 512), Scale("conv5", (), 256, 128)),
            source="Darknet's tiny network for COCO, after Redmon and Farhadi, YOLOv3, 2018",
        ),
    },
    YOLOv3,
)
