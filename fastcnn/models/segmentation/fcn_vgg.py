"""FCN: Long et al., Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, figure 3: VGG-16 with skips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.models._backbones import create_classifier
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register
from fastcnn.models.segmentation.segmenter import Segmenter, SegmenterRow
from fastcnn.nn.blocks import ConvSequence
from fastcnn.nn.convolutional import to_fully_convolutional
from fastcnn.nn.upsampling import BilinearConvTranspose2d

_500 = Preprocess(500, crop_pct=1.0)


@dataclass(frozen=True, kw_only=True)
class FCNVGGRow(SegmenterRow):
    """A row of figure 3.

    Attributes:
        backbone: a VGG; ``backbone_weights`` are of the whole classifier, whose fully connected layers it takes too.
        features: the maps that are scored, from the finest to the coarsest: of stride 8, 16 and 32, the last always.
        learnable: whether the kernels that upsample, bilinear at first, are learned.
        hidden_norm: whether batch norms follow the hidden layers, which then learn from random weights too.
    """

    backbone: str = "vgg16"
    preprocess: Preprocess = _500
    features: tuple[str, ...] = ("pool5",)
    learnable: bool = True
    hidden_norm: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output_stride is not None or self.aux_classifier:
            raise ValueError("an FCN on a VGG has no output_stride and no aux_classifier")


class FCNVGG(Segmenter):
    """FCN-32s, FCN-16s and FCN-8s.

    ``fc`` is VGG's hidden layers as convolutions of 7x7 and 1x1; ``scores.0`` scores it, ``scores.1``, ... the finer
    maps; ``upscores.0`` doubles the first scores, to which the second are added, and so on; the last one makes the
    image's pixels. Scores begin at zero; upsampling is bilinear at first, by class.

    What differs from the authors' code: the first 7x7 convolution is padded by 3 and poolings round up, as Caffe's,
    so that maps cover the image and scores of all strides lie on one grid from its corner, which cuts what is more.
    They pad the image by 100 pixels and crop by offsets instead. The scores of skips are not scaled, as in their nets
    that are trained in stages; their "at once" nets take pool4 times 0.01 and pool3 times 0.0001. Kernels of
    upsampling have a weight for each class and none between classes. The paper learns those that double and fixes
    the last; here ``learnable`` says for all. Its FCN-32s-fixed also trains nothing but the scores.
    """

    head_names = ("fc", "scores", "upscores")
    classifier_path = "scores.0"

    def __init__(self, row: FCNVGGRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        dense = to_fully_convolutional(create_classifier(row, **factory))
        self.backbone = dense.features.features
        for layer in self.backbone.modules():
            if isinstance(layer, nn.MaxPool2d):
                layer.ceil_mode = True
        self.feature_chain = tuple(
            each._replace(modules=tuple(path.replace("features", "backbone") for path in each.modules))
            for each in dense.features.feature_chain
        )
        if row.features[-1] != self.feature_chain[-1].name:
            raise ValueError(f"features must end with {self.feature_chain[-1].name!r}, got {row.features!r}")
        head: Any = dense.head
        hidden = [layer for layer in head[:-1] if isinstance(layer, nn.Conv2d)]
        norms = {conv: nn.BatchNorm2d(conv.out_channels, **factory) for conv in hidden if row.hidden_norm}
        self.fc = ConvSequence(*(each for layer in head[:-1] for each in (layer, norms.get(layer)) if each is not None))
        hidden[0].padding = tuple(side // 2 for side in hidden[0].kernel_size)
        scored = [self.feature(name) for name in reversed(row.features)]
        channels = [hidden[-1].out_channels, *(each.channels for each in scored[1:])]
        self.scores = nn.ModuleList(nn.Conv2d(each, row.num_classes, 1, **factory) for each in channels)
        self.upscores = nn.ModuleList(
            BilinearConvTranspose2d(row.num_classes, before // after, row.learnable, **factory)
            for before, after in pairwise([*(each.stride for each in scored), 1])
        )
        self.class_paths = tuple(f"{name}.{i}" for name in ("scores", "upscores") for i in range(len(self.scores)))
        self.init_weights(self.scores)

    def decode(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        *finer, last = maps
        logits = self.scores[0](self.fc(last))
        for upscore, score, map_ in zip(self.upscores, self.scores[1:], reversed(finer), strict=False):
            logits = crop(upscore(logits), map_.shape[-2:]) + score(map_)
        return crop(self.upscores[-1](logits), size)

    def init_weights(self, module: nn.Module) -> None:
        """Scores at zero: section 4.1. The rest is VGG's."""
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.zeros_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


def crop(map_: Tensor, size: Sequence[int]) -> Tensor:
    """The first rows and columns."""
    return map_[..., : size[0], : size[1]]


_PAPER = "Long et al., CVPR 2015, figure 3: VGG-16, {}"
_8S = ("pool3", "pool4", "pool5")
# A sixteenth of VGG-11's multiply-adds.
_NARROW = (("width_mult", 0.25), ("hidden", 192), ("dropout", 0.0))

ROWS = {
    "fcn32s_fixed_vgg16": FCNVGGRow(learnable=False, source=_PAPER.format("32x upsampling, bilinear and fixed")),
    "fcn32s_vgg16": FCNVGGRow(source=_PAPER.format("32x upsampling, learned")),
    "fcn16s_vgg16": FCNVGGRow(features=_8S[1:], source=_PAPER.format("pool4 scored too")),
    "fcn8s_vgg16": FCNVGGRow(features=_8S, source=_PAPER.format("pool4 and pool3 scored too")),
    "fcn8s_vgg11_bn_x0_25": FCNVGGRow(
        backbone="vgg11_bn",
        backbone_options=_NARROW,
        preprocess=Preprocess(128, crop_pct=1.0),
        features=_8S,
        hidden_norm=True,
        source="FCN-8s of a quarter of the width, on VGG-11 with norms in hidden layers too, for small machines",
    ),
}

register(ROWS, FCNVGG)
