"""Networks whose published weights want images of mean and deviation 0.5, and may be given ImageNet's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import Tensor

from fastcnn.models._pooled import PooledNet
from fastcnn.models._preprocess import IMAGENET, Preprocess


class TransformInputNet(PooledNet):
    """A :class:`PooledNet` that sets ``transform_input``, its row's option: torchvision's way to take such images."""

    transform_input: bool

    @property
    def preprocess(self) -> Preprocess:
        own = self.row.preprocess
        return dataclasses.replace(own, mean=IMAGENET.mean, std=IMAGENET.std) if self.transform_input else own

    def forward_stages(self, input: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        if self.transform_input:
            mean, std = (input.new_tensor(values).reshape(3, 1, 1) for values in (IMAGENET.mean, IMAGENET.std))
            input = (input * std + mean - 0.5) / 0.5
        return super().forward_stages(input, names)
