"""The contract of networks from an image to a map of classes of its size, on a classifier without its head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from fastcnn.models._backbones import BackboneRow, create_body, replace_class_layers
from fastcnn.models._net import ConvNet, Feature
from fastcnn.models._output_stride import set_output_stride
from fastcnn.models._preprocess import Preprocess
from fastcnn.nn.blocks import ConvNormAct, ConvSequence

SegmenterNet = TypeVar("SegmenterNet", bound="Segmenter")


_520 = Preprocess(520, crop_pct=1.0)


@dataclass(frozen=True, kw_only=True)
class SegmenterRow(BackboneRow):
    """What the rows of networks for segmentation have.

    Attributes:
        num_classes: with the background, which is class 0.
        preprocess: its input size is that of the counts; images may have any size.
        features: of the backbone, whose maps the head is given, from the finest to the coarsest.
        output_stride: pixels of the input per pixel of the coarsest map; None is the backbone's own. See
            :func:`fastcnn.models.set_output_stride`.
        dilate_strided: of the same function.
        aux_classifier: whether training has a head of torchvision's FCN on the map ``aux_feature`` too.
    """

    task: str = "segmentation"
    num_classes: int = 21
    preprocess: Preprocess = _520
    features: tuple[str, ...]
    output_stride: int | None = None
    dilate_strided: bool = False
    aux_classifier: bool = False
    aux_feature: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.features:
            raise ValueError(f"features must be names, one or more, got {self.features!r}")
        if self.aux_classifier and not self.aux_feature:
            raise ValueError("aux_classifier needs an aux_feature")


class Segmenter(ConvNet):
    """``net(x)``: an image (N, C, H, W), H and W any, to logits (N, num_classes, H, W).

    In training mode and with auxiliary classifiers, (logits, first auxiliary logits, ...), all of that size. Features
    are those of the backbone, and so are keys, behind ``backbone.``. A family adds its ``classifier``, a module that is
    given a map of each of the row's ``features``, or implements :meth:`decode`.

    Attributes:
        class_paths: the layers whose shapes depend on the number of classes.
    """

    row: Any
    head_names: tuple[str, ...] = ("classifier", "aux_classifier")
    class_paths: tuple[str, ...]
    auxiliary_classifier = "4"

    def add_backbone(self, **factory: Any) -> None:
        """The row's, ``backbone``, and the features that lead to the maps."""
        row = self.row
        wanted = (*row.features, row.aux_feature) if row.aux_classifier else row.features
        body = create_body(row, wanted, **factory)
        if row.output_stride is not None:
            set_output_stride(body, row.output_stride, dilate_strided=row.dilate_strided)
        is_list = all(path.startswith("features.") for each in body.feature_chain for path in each.modules)
        self.backbone = body.get_submodule("features") if is_list else body
        self.feature_chain = tuple(
            each._replace(modules=tuple(f"backbone.{path.removeprefix('features.')}" for path in each.modules))
            for each in body.feature_chain
        )

    def feature(self, name: str) -> Feature:
        return next(each for each in self.feature_chain if each.name == name)

    def add_aux_classifier(self, **factory: Any) -> None:
        """Where the row wants it, after the layers of the head."""
        if self.row.aux_classifier:
            self.aux_classifier = fcn_head(self.feature(self.row.aux_feature).channels, self.num_classes, **factory)
            self.auxiliary = ((self.row.aux_feature, "aux_classifier"),)

    def _run(self, input: Tensor) -> Tensor | tuple[Tensor, ...] | dict[str, Tensor]:
        if self.feature_names:
            return self.forward_stages(input, self.feature_names)
        auxiliary = self.auxiliary if self.training else ()
        maps = self.forward_stages(input, (*self.row.features, *(name for name, _ in auxiliary)))
        size = input.shape[-2:]
        logits = self.decode([maps[name] for name in self.row.features], size)
        others = tuple(resize(self.get_submodule(head)(maps[name]), size) for name, head in auxiliary)
        return (logits, *others) if others else logits

    def decode(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """The row's maps to logits (N, num_classes, *size)."""
        classifier: Any = self.classifier
        return resize(classifier(*maps), size)

    def init_weights(self, module: nn.Module) -> None:
        """As PyTorch does, and torchvision with it: the backbone has its own."""
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
                layer.reset_parameters()

    def replace_head(self: SegmenterNet, num_classes: int) -> SegmenterNet:
        """Gives the layers of classes ``num_classes`` fresh outputs, initialised as when built; returns the network.

        For fine-tuning: load published weights first, then replace the head.

        Raises:
            ValueError: a ``features_only`` network, which has no head, or ``num_classes`` below 1.
        """
        if self.features_only:
            raise ValueError(f"this {type(self).__name__} was built with features_only and has no head")
        heads = (f"{head}.{self.auxiliary_classifier}" for _, head in self.auxiliary)
        return replace_class_layers(self, (*self.class_paths, *heads), num_classes)


def resize(map_: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, corners not aligned: (N, C, h, w) to (N, C, *size)."""
    return F.interpolate(map_, size=tuple(size), mode="bilinear", align_corners=False)


def fcn_head(channels: int, num_classes: int, **factory: Any) -> ConvSequence:
    """Torchvision's: a 3x3 convolution to a quarter of the channels, dropout, and a 1x1 convolution to classes."""
    hidden = channels // 4
    return ConvSequence(
        *ConvNormAct(channels, hidden, 3, **factory), nn.Dropout(0.1), nn.Conv2d(hidden, num_classes, 1, **factory)
    )
