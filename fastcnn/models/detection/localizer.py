"""Classification and localisation: two heads on one network, a class and the one box of its object.

As Simonyan and Zisserman, VGG, ICLR 2015, appendix A, with one box for all classes and both heads trained at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcnn.models._backbones import BackboneRow, create_classifier
from fastcnn.models._net import ConvNet
from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import find_entry, register
from fastcnn.models.detection.backbones import init_normal
from fastcnn.models.detection.inputs import check_targets
from fastcnn.models.detection.single_map import region_head
from fastcnn.models.detection.transform import resize_boxes


@dataclass(frozen=True, kw_only=True)
class LocalizerRow(BackboneRow):
    """A classifier, which ends in hidden linear layers, with a second head.

    Attributes:
        box_weight: of the boxes' loss in the sum of both.
    """

    task: str = "localization"
    box_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.box_weight >= 0:
            raise ValueError(f"box_weight must not be negative, got {self.box_weight}")


class Localizer(ConvNet):
    """``model(input, targets=None)``, of images whose object is one.

    Attributes:
        features: of the classifier, up to its pooling.
        hidden: the linear layers that both heads share.
        cls_score, bbox_pred: hidden features to logits, and to corners in shares of the input's sides.
    """

    row: Any
    feature_chain = ()
    head_names = ()
    classifier_path = "cls_score"

    def __init__(self, row: LocalizerRow, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(row)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        net = create_classifier(row, **factory)
        self.hidden, width = region_head(net, "classifier")
        self.features, self.pool = net.get_submodule("features"), net.get_submodule("pool")
        self.cls_score = nn.Linear(width, row.num_classes, **factory)
        self.bbox_pred = nn.Linear(width, 4, **factory)
        self.init_weights(self.cls_score)
        self.init_weights(self.bbox_pred)

    def init_weights(self, module: nn.Module) -> None:
        init_normal(module, 0.01)

    def forward(  # type: ignore[override]
        self, input: Tensor, targets: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Losses in training mode, else classes and boxes; deterministic in eval mode.

        Args:
            input: (N, C, H, W).
            targets: of training, ``labels`` int64 (N), from 0, and ``boxes`` (N, 4), floating corners in pixels.

        Returns:
            In training mode ``loss_classifier``, the cross entropy, and ``loss_box_reg``, ``box_weight`` times the
            squared distance of the corners in shares of the sides; both means over images, and to be added. In eval
            mode ``logits`` (N, num_classes) and ``boxes`` (N, 4) in pixels.

        Raises:
            TypeError: targets of the wrong type.
            ValueError: an input of another shape, no targets in training mode, or bad ones.
        """
        if input.dim() != 4 or input.shape[1] != self.in_channels:
            raise ValueError(f"{type(self).__name__} takes (N, {self.in_channels}, H, W), got {tuple(input.shape)}")
        size = (input.size(2), input.size(3))
        if self.training:
            if targets is None:
                raise ValueError(f"{type(self).__name__} needs targets in training mode")
            check_targets([dict(targets)], [size], range(self.num_classes), False)
            if len(targets["boxes"]) != len(input):
                raise ValueError(f"targets must be one for each of {len(input)} images, got {len(targets['boxes'])}")
        logits, boxes = self.forward_layers(input).values()
        if not self.training or targets is None:
            return {"logits": logits, "boxes": resize_boxes(boxes, (1, 1), size)}
        wanted = resize_boxes(targets["boxes"].to(boxes), size, (1, 1))
        box_loss = F.mse_loss(boxes, wanted, reduction="sum") / max(1, len(input))
        return {
            "loss_classifier": F.cross_entropy(logits, targets["labels"]),
            "loss_box_reg": self.row.box_weight * box_loss,
        }

    def forward_layers(self, input: Tensor) -> dict[str, Tensor]:
        """``cls_logits`` (N, num_classes) and ``bbox_regression`` (N, 4), in shares of the sides."""
        hidden = self.hidden(self.pool(self.features(input)))
        return {"cls_logits": self.cls_score(hidden), "bbox_regression": self.bbox_pred(hidden)}


def _preprocess(backbone: str) -> Preprocess:
    return find_entry(backbone).row.preprocess


ROWS = {
    "localizer_alexnet": LocalizerRow(
        backbone="alexnet",
        preprocess=_preprocess("alexnet"),
        source="AlexNet, NIPS 2012, whose hidden layers have a second head of 4 outputs, trained by squared distances",
    ),
}

register(ROWS, Localizer)
