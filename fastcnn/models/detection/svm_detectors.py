"""R-CNN and SPP-net: a network makes features of regions given, SVMs and box regressors make detections of these.

R-CNN: Girshick, Donahue, Darrell and Malik, Rich feature hierarchies, CVPR 2014. SPP-net: He, Zhang, Ren and Sun,
Spatial Pyramid Pooling in Deep Convolutional Networks, ECCV 2014, section 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcnn.models._backbones import create_classifier
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register
from fastcnn.models.detection.backbones import Backbone, init_normal
from fastcnn.models.detection.coders import BoxCoder
from fastcnn.models.detection.detector import DetectorRow, Losses, square
from fastcnn.models.detection.fast_rcnn import ProposalDetector, resized_boxes
from fastcnn.models.detection.inputs import check_proposals
from fastcnn.models.detection.matchers import Matcher
from fastcnn.models.detection.postprocess import Detections
from fastcnn.models.detection.region_svms import (
    RULES,
    FitRules,
    FittedLinear,
    fit_regressors,
    fit_svms,
    region_features,
)
from fastcnn.models.detection.roi_heads import match_regions, region_detections
from fastcnn.models.detection.samplers import sample_regions
from fastcnn.models.detection.single_map import SingleMapPool, region_head
from fastcnn.models.detection.transform import DetectionTransform, Size, Target
from fastcnn.models.detection.windows import warp_crops
from fastcnn.nn.pooling import SpatialPyramidPool2d

SVMNet = TypeVar("SVMNet", bound="SVMDetector")
Sample = tuple[Tensor, Target, Tensor]
# The classifiers that these start from are trained on pixels from 0 to 255 without their mean.
_PIXELS = (1 / 255,) * 3
_500, _688 = square(500, std=_PIXELS), square(688, std=_PIXELS)
MATCHER = Matcher(0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class SVMRow(DetectorRow):
    """What both have.

    Attributes:
        feature: of the backbone, the map that is pooled.
        samples, positive_fraction: regions of a step of fine-tuning, of all its images, and how many are positives.
        counted: regions of an image that counts are for.
    """

    num_classes: int = 21
    feature: str
    nms_threshold: float = 0.3
    samples: int = 128
    positive_fraction: float = 0.25
    counted: int = 2000


@dataclass(frozen=True, kw_only=True)
class RCNNRow(SVMRow):
    """R-CNN cuts regions out of the image as it is: ``min_size``, ``max_size`` and ``size_divisible`` do nothing.

    Attributes:
        crop: side that a region is stretched to.
        context: of it, pixels at each side that are the region's surroundings.
        chunk: crops that run at once in inference, for the memory.
    """

    preprocess: Preprocess = _500
    crop: int = 227
    context: int = 16
    chunk: int = 128


@dataclass(frozen=True, kw_only=True)
class SPPNetRow(SVMRow):
    """SPP-net, whose backbone's classifier has a pyramid: its levels are those of regions."""

    preprocess: Preprocess = _688
    min_size: int | tuple[int, ...] = 688
    max_size: int = 1200
    size_divisible: int = 1


class SVMDetector(ProposalDetector):
    """Training has three steps. In training mode the call gives ``loss_classifier``, a softmax over classes and
    background: fine-tuning, on regions drawn from those of all images and of the ground truth, positives from an IoU of
    0.5. Then :meth:`fit` fits SVMs and box regressors to the features; ``state_dict`` has them too. In eval mode the
    margin of an SVM, through a sigmoid, is the score; the regressor moves the box; the softmax is not used.
    """

    class_paths = ("cls_score", "svms", "bbox_regressors")
    classifier_path = "cls_score"
    coder = BoxCoder()

    def __init__(self, row: SVMRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        net = create_classifier(row, **factory)
        self.box_head, width = region_head(net, "classifier")
        pooled = next(layer.in_features for layer in self.box_head.modules() if isinstance(layer, nn.Linear))
        pool = net.get_submodule("pool")
        self.backbone = Backbone(net.keep_features(row.feature), False)
        self.add_pool(pool)
        self.cls_score = nn.Linear(width, self.num_classes, **factory)
        init_normal(self.cls_score, 0.01)
        self.svms = FittedLinear(width, self.num_classes - 1, **factory)
        self.bbox_regressors = FittedLinear(pooled, (self.num_classes - 1) * 4, **factory)

    def add_pool(self, pool: nn.Module) -> None:
        """What :meth:`pool` needs; ``pool`` is that of the backbone's classifier."""
        raise NotImplementedError(f"{type(self).__name__} has no add_pool")

    def pool(self, batch: Tensor | Sequence[Tensor], boxes: list[Tensor], sizes: Sequence[Size]) -> Tensor:
        """Flat features (R, D) of all boxes, before the hidden layers."""
        raise NotImplementedError(f"{type(self).__name__} has no pool")

    def detect(
        self,
        batch: Tensor,
        boxes: list[Tensor],
        sizes: list[Size],
        resized: list[Target] | None,
        originals: list[Size],
    ) -> Losses | Detections:
        if resized is not None:
            boxes, labels = self.sample(boxes, resized)
            logits = self.cls_score(self._hidden(batch, boxes, sizes)[1])
            reduction = "mean" if len(labels) else "sum"
            return {"loss_classifier": F.cross_entropy(logits, labels, reduction=reduction)}
        pooled, hidden = self._hidden(batch, boxes, sizes)
        scores, codes = self.svms(hidden).sigmoid(), self.bbox_regressors(pooled)
        codes = codes.unflatten(1, (scores.size(1), 4))
        found = region_detections(scores, codes, boxes, sizes, self.coder, **self.thresholds)
        return self.transform.restore(found, sizes, originals)

    def sample(self, boxes: list[Tensor], targets: Sequence[Target]) -> tuple[list[Tensor], Tensor]:
        """Regions of each image to fine-tune on, and the classes of all of them: R-CNN, section 2.3."""
        boxes = [torch.cat((box, target["boxes"].to(box))) for box, target in zip(boxes, targets, strict=True)]
        labels = [match_regions(MATCHER, *each)[1] for each in zip(boxes, targets, strict=True)]
        row = self.row
        chosen = sample_regions(labels, row.samples, row.positive_fraction, generator=self.generator)
        taken = [label[index] for label, index in zip(labels, chosen, strict=True)]
        return [box[index] for box, index in zip(boxes, chosen, strict=True)], torch.cat(taken)

    @torch.no_grad()
    def fit(self: SVMNet, samples: Iterable[Sample], rules: FitRules = RULES) -> SVMNet:
        """Fits SVMs and box regressors to (image, target, proposals) after (...); returns the network.

        The features of every region are kept until the end: of 2,000 regions 32 MB. Deterministic.

        Raises:
            ImportError: without scikit-learn, of the extra ``detection``.
            ValueError: bad samples, as :meth:`forward`; or what :func:`fit_svms` says.
        """
        training = self.training
        self.eval()
        regions = []
        try:
            for image, target, proposals in samples:
                batch, sizes, _, originals = self.prepare([image], None)
                self.check_targets([target], originals)
                check_proposals([proposals], 1)
                both = torch.cat((target["boxes"].to(proposals), proposals))
                boxes = resized_boxes([both], batch, originals, sizes)
                pooled, hidden = self._hidden(batch, boxes, sizes)
                regions.append(region_features(hidden, pooled, both, target, self.num_classes - 1, rules))
        finally:
            self.train(training)
        fitted = (*fit_svms(regions, rules), *fit_regressors(regions, rules))
        places = (self.svms.weight, self.svms.bias, self.bbox_regressors.weight, self.bbox_regressors.bias)
        for place, values in zip(places, fitted, strict=True):
            place.copy_(values)
        return self

    def _hidden(self, batch: Any, boxes: list[Tensor], sizes: Sequence[Size]) -> tuple[Tensor, Tensor]:
        pooled = self.pool(batch, boxes, sizes)
        return pooled, self.box_head(pooled)

    def forward_layers(self, input: Tensor) -> dict[str, Tensor]:
        """A batch (N, C, H, W) through every layer, with the row's ``counted`` regions of each image."""
        boxes = [input.new_zeros(self.row.counted, 4)] * len(input)
        pooled, hidden = self._hidden(input, boxes, [(input.size(2), input.size(3))] * len(input))
        layers = {"cls_logits": self.cls_score(hidden), "svms": self.svms(hidden)}
        return layers | {"bbox_regression": self.bbox_regressors(pooled)}


@dataclass(frozen=True)
class Normalisation(DetectionTransform):
    """Images as they are, in a list, but normalised."""

    def resized(self, size: Size, training: bool = False, generator: torch.Generator | None = None) -> Size:
        return size

    def pad(self, images: list[Tensor]) -> Any:
        return images


class CropRCNN(SVMDetector):
    """R-CNN: every region is cut out, stretched and seen by the whole network by itself."""

    def add_pool(self, pool: nn.Module) -> None:
        row = self.row
        self.transform = Normalisation(1, 1, row.preprocess.mean, row.preprocess.std)
        self.map_pool = pool  # Of crops of the paper's side the identity.

    def pool(self, batch: Tensor | Sequence[Tensor], boxes: list[Tensor], sizes: Sequence[Size]) -> Tensor:
        row = self.row
        pieces = [
            self.map_pool(self.backbone(warp_crops(image, chunk, row.crop, row.context))["0"]).flatten(1)
            for image, box in zip(batch, boxes, strict=True)
            for chunk in box.split(row.chunk)
        ]
        return torch.cat(pieces)


class SPPNet(SVMDetector):
    """SPP-net: the convolutions run once over the image, and a spatial pyramid pools each region of their map."""

    def add_pool(self, pool: nn.Module) -> None:
        if not isinstance(pool, SpatialPyramidPool2d):
            raise ValueError(f"SPP-net needs a backbone with a spatial pyramid, {self.row.backbone!r} has {pool}")
        self.box_roi_pool = SingleMapPool(pool.levels, self.backbone.strides[0])

    def pool(self, batch: Tensor | Sequence[Tensor], boxes: list[Tensor], sizes: Sequence[Size]) -> Tensor:
        return self.box_roi_pool(self.backbone(batch), boxes, sizes)


ROWS: dict[str, SVMRow] = {
    "rcnn_alexnet": RCNNRow(
        backbone="alexnet",
        feature="pool5",
        source="Girshick et al., CVPR 2014, with AlexNet; regions are given, counts are for 2000",
    ),
    "sppnet_zf5": SPPNetRow(
        backbone="zfnet_spp",
        feature="conv5",
        frozen_stages=7,
        source="He et al., ECCV 2014, section 4, ZF-5, one scale; regions are given, counts are for 2000",
    ),
}


def build(row: SVMRow, **factory: Any) -> SVMDetector:
    """The network of a row of either kind."""
    return (CropRCNN if isinstance(row, RCNNRow) else SPPNet)(row, **factory)


register(ROWS, build)
