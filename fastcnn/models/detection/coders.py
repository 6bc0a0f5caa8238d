"""Boxes as numbers that a network can learn: offsets from the boxes it starts from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BoxCoder:
    """Offsets of the centre in sides of the anchor, and logarithms of the ratios of sides, times weights.

    Girshick et al., R-CNN, CVPR 2014, appendix C; with weights as in Fast R-CNN's code (10, 10, 5, 5, the inverses of
    deviations) and SSD's (of variances 0.1 and 0.2). Decoding clamps the logarithms, as torchvision does.

    Attributes:
        weights: of x, y, width and height.
        clamp: the largest logarithm that is decoded.
    """

    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    clamp: float = math.log(1000 / 16)

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Codes (..., 4) of boxes (..., 4), corners, from anchors (..., 4)."""
        centre, sides = _centre(boxes)
        anchor_centre, anchor_sides = _centre(anchors)
        weights = boxes.new_tensor(self.weights)
        offsets = weights[:2] * (centre - anchor_centre) / anchor_sides
        return torch.cat((offsets, weights[2:] * (sides / anchor_sides).log()), -1)

    def decode(self, codes: Tensor, anchors: Tensor) -> Tensor:
        """Boxes (..., 4) of codes (..., 4) from anchors (..., 4), in the wider dtype of the two."""
        anchor_centre, anchor_sides = _centre(anchors)
        codes = codes.to(torch.promote_types(codes.dtype, anchors.dtype))
        codes = codes / codes.new_tensor(self.weights)
        centre = codes[..., :2] * anchor_sides + anchor_centre
        half = 0.5 * (codes[..., 2:].clamp(max=self.clamp).exp() * anchor_sides)
        return torch.cat((centre - half, centre + half), -1)


@dataclass(frozen=True)
class PointCoder:
    """Points as offsets from the centre of an anchor in its sides: Deng et al., RetinaFace, CVPR 2020, section 3.1."""

    def encode(self, points: Tensor, anchors: Tensor) -> Tensor:
        """Codes (..., P, 2) of points (..., P, 2), x and y, from anchors (..., 4)."""
        centre, sides = _centre(anchors)
        return (points - centre[..., None, :]) / sides[..., None, :]

    def decode(self, codes: Tensor, anchors: Tensor) -> Tensor:
        """Points (..., P, 2) of codes (..., P, 2) from anchors (..., 4), in the wider dtype of the two."""
        centre, sides = _centre(anchors)
        return codes * sides[..., None, :] + centre[..., None, :]


def _centre(boxes: Tensor) -> tuple[Tensor, Tensor]:
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * sides, sides
