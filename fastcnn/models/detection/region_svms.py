"""What R-CNN and SPP-net fit after their network is trained: a linear SVM and a box regressor for each class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcnn.models._extras import extra
from fastcnn.models.detection.boxes import box_iou
from fastcnn.models.detection.coders import BoxCoder
from fastcnn.models.detection.transform import Target

NORM = 20.0  # What the mean norm of features is made for the fit, by the authors' code: C and lambda depend on it.


class FittedLinear(nn.Module):
    """A linear layer (R, inputs) to (R, outputs) whose weight and bias are fitted, not trained: buffers."""

    weight: Tensor
    bias: Tensor

    def __init__(self, inputs: int, outputs: int, **factory: Any) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(outputs, inputs, **factory).normal_(std=0.01))
        self.register_buffer("bias", torch.zeros(outputs, **factory))

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.weight.size(1)}, out_features={self.weight.size(0)}"


@dataclass(frozen=True)
class FitRules:
    """The numbers of R-CNN, section 2.3 and appendices B and C; of the SVMs what only the authors' code gives.

    Attributes:
        negative: a region with a smaller IoU with every object of a class is a negative of it; objects are positives.
        c, positive_weight, intercept: of the SVM: its C, times what it is for positives, and the value of the feature
            that the bias is the weight of.
        hard: a margin above this makes a negative hard: it joins the negatives that the SVM is fitted to.
        easy: of a margin below this it leaves them.
        limit: new hard negatives that make another fit due.
        near: a proposal of a larger IoU with an object is one to learn its box from.
        ridge: lambda of the regressors.
    """

    negative: float = 0.3
    c: float = 1e-3
    positive_weight: float = 2.0
    intercept: float = 10.0
    hard: float = -1.0001
    easy: float = -1.2
    limit: int = 2000
    near: float = 0.6
    ridge: float = 1000.0


RULES = FitRules()


class RegionFeatures(NamedTuple):
    """Of the regions of an image, its G objects first, what is fitted to.

    hidden (R, F) for the SVMs; overlaps (R, C) with the nearest object of each class; labels (G), from 1. And of the N
    proposals near an object: pooled (N, D) for the regressors, codes (N, 4) from them to it, near_labels (N).
    """

    hidden: Tensor
    overlaps: Tensor
    labels: Tensor
    pooled: Tensor
    codes: Tensor
    near_labels: Tensor


def region_features(
    hidden: Tensor, pooled: Tensor, boxes: Tensor, target: Target, classes: int, rules: FitRules = RULES
) -> RegionFeatures:
    """Of an image's features (R, F) and (R, D) and boxes (R, 4), of which the first are those of ``target``."""
    truth, labels = target["boxes"].to(boxes), target["labels"]
    overlaps = boxes.new_zeros(len(boxes), classes)
    if not len(truth):
        return RegionFeatures(hidden, overlaps, labels, pooled[:0], boxes[:0], labels)
    iou = box_iou(truth, boxes)
    for label in labels.unique().tolist():
        overlaps[:, label - 1] = iou[labels == label].amax(0)
    best, match = iou.max(0)
    best[: len(truth)] = 0
    near = (best > rules.near).nonzero()[:, 0]
    codes = BoxCoder().encode(truth[match[near]], boxes[near])
    return RegionFeatures(hidden, overlaps, labels, pooled[near], codes, labels[match[near]])


def fit_svms(regions: Sequence[RegionFeatures], rules: FitRules = RULES) -> tuple[Tensor, Tensor]:
    """A linear SVM (hinge loss, L2) of each class, by hard negative mining in one pass over the images.

    Positives are the objects of a class, negatives the regions of every image that overlap them little. The first
    ``limit`` negatives are taken as they come, then those that the SVM gets wrong or nearly so. Deterministic. Source:
    Girshick et al., Rich feature hierarchies, CVPR 2014, section 2.3 and appendix B.

    Returns:
        Weights (C, F) and biases (C), float64, on the CPU: margins are ``hidden @ weights.T + biases``.

    Raises:
        ImportError: without scikit-learn, of the extra ``detection``.
        ValueError: no image, or a class without positives or negatives.
    """
    if not regions:
        raise ValueError("SVMs need one image or more, got none")
    scale = _scale([each.hidden for each in regions])
    fitted = []
    for c in range(regions[0].overlaps.size(1)):
        positives = torch.cat([each.hidden[: len(each.labels)][each.labels == c + 1] for each in regions])
        negatives = (each.hidden[each.overlaps[:, c] < rules.negative] for each in regions)
        if not len(positives):
            raise ValueError(f"an SVM needs positives, got none of class {c + 1} in {len(regions)} images")
        try:
            weight, bias = fit_svm(_double(positives) * scale, (_double(each) * scale for each in negatives), rules)
        except ValueError as error:
            raise ValueError(f"{error} for class {c + 1} in {len(regions)} images") from None
        fitted.append((weight * scale, bias))
    weights, biases = zip(*fitted, strict=True) if fitted else ((), ())
    features = regions[0].hidden.size(1)
    return torch.cat([torch.zeros(0, features).double(), *(w[None] for w in weights)]), torch.tensor(biases).double()


def fit_svm(positives: Tensor, images: Iterable[Tensor], rules: FitRules = RULES) -> tuple[Tensor, float]:
    """The weight (F) and bias of :func:`fit_svms` for one class, from features as they are.

    Args:
        positives: float64 (P, F), on the CPU.
        images: negatives (Ni, F) of one image after another, each looked at once.

    Raises:
        ImportError: without scikit-learn, of the extra ``detection``.
        ValueError: no negatives.
    """
    classifier = extra("sklearn.svm", "an SVM", "scikit-learn").LinearSVC(
        C=rules.c,
        loss="hinge",
        class_weight={1: rules.positive_weight},
        intercept_scaling=rules.intercept,
        max_iter=10_000,
        random_state=0,
    )
    kept, new = positives[:0], [positives[:0]]
    weight, bias = None, 0.0

    def fit() -> tuple[Tensor, float]:
        rows = torch.cat((positives, kept))
        classifier.fit(rows.numpy(), [1] * len(positives) + [0] * len(kept))
        return torch.from_numpy(classifier.coef_[0]), float(classifier.intercept_[0])

    for negatives in images:
        new.append(negatives if weight is None else negatives[negatives @ weight + bias > rules.hard])
        if sum(map(len, new)) > rules.limit:
            kept, new = torch.cat((kept, *new)), []
            weight, bias = fit()
            kept = kept[kept @ weight + bias >= rules.easy]
    kept, left = torch.cat((kept, *new)), sum(map(len, new))
    if weight is None and not len(kept):
        raise ValueError("an SVM needs negatives, got none")
    if weight is None or left:
        weight, bias = fit()
    return weight, bias


def fit_regressors(regions: Sequence[RegionFeatures], rules: FitRules = RULES) -> tuple[Tensor, Tensor]:
    """The ridge regressors of each class, from pooled features to codes; zero, no change, for one without regions.

    Source: Girshick et al., CVPR 2014, appendix C. Deterministic.

    Returns:
        Weights (C * 4, D) and biases (C * 4), float64, on the CPU.

    Raises:
        ValueError: no image.
    """
    if not regions:
        raise ValueError("regressors need one image or more, got none")
    pooled, codes = (torch.cat([_double(getattr(each, name)) for each in regions]) for name in ("pooled", "codes"))
    labels = torch.cat([each.near_labels.cpu() for each in regions])
    scale = _scale([pooled])
    weights, biases = [pooled[:0]], [codes[:0].flatten()]
    for label in range(1, regions[0].overlaps.size(1) + 1):
        weight, bias = fit_ridge(pooled[labels == label] * scale, codes[labels == label], rules.ridge)
        weights.append(weight * scale)
        biases.append(bias)
    return torch.cat(weights), torch.cat(biases)


def fit_ridge(inputs: Tensor, outputs: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Weight (K, D) and bias (K) with the least squared error plus ``penalty`` times the squared weight.

    Args:
        inputs: float64 (N, D).
        outputs: float64 (N, K).
    """
    if not len(inputs):
        return inputs.new_zeros(outputs.size(1), inputs.size(1)), outputs.new_zeros(outputs.size(1))
    middle, mean = inputs.mean(0), outputs.mean(0)
    x, y = inputs - middle, outputs - mean
    # Of the two forms of the solution, the one with the smaller matrix: features are many more than regions or less.
    if len(x) < x.size(1):
        weight = torch.linalg.solve(x @ x.T + penalty * torch.eye(len(x)).double(), y).T @ x
    else:
        weight = torch.linalg.solve(x.T @ x + penalty * torch.eye(x.size(1)).double(), x.T @ y).T
    return weight, mean - weight @ middle


def _double(features: Tensor) -> Tensor:
    return features.detach().cpu().double()


def _scale(features: Sequence[Tensor]) -> float:
    norms = torch.cat([_double(each.norm(dim=1)) for each in features])
    return NORM / max(float(norms.mean()), 1e-12) if len(norms) else 1.0
