"""Grouped 1x1 convolutions for inference: weights turned once, a residual taken along."""

from __future__ import annotations

from torch import Tensor

from fastcnn.nn.fused import Packs, bias_of, call, is_map, runs_eagerly, takes
from fastcnn.nn.layers import GroupedConv2dShuffle
from fastcnn.ops._convolutions import ACTIVATIONS
from fastcnn.ops._grouped_pointwise import op, turn

_LEAST = 16  # Channels of a group, as kPixelChannels.


class FusedGroupedConv2d(Packs, GroupedConv2dShuffle):
    """:class:`GroupedConv2dShuffle` of a 1x1 kernel: what ``fuse()`` makes of it.

    On a CPU, in float32 and where gradients are off, groups of 16 or more channels on both sides run our kernel:
    channels_last whatever the layout of the input, with a second copy of the weights, turned at the first call and
    again after a change of them. Else it is what it was. Deterministic.
    """

    def forward(self, input: Tensor) -> Tensor:
        if runs_eagerly() and takes(input, 4, self.in_channels):
            return self.run(input, None)
        return super().forward(input)

    def run(self, input: Tensor, residual: Tensor | None) -> Tensor:
        """``forward(input)``, plus a residual, for an input that this layer takes, without gradients."""
        groups = self.groups
        turned = self.packed(lambda weight: turn(weight, groups), f"{groups} groups") if self._fits() else None
        if turned is not None:
            kind = ACTIVATIONS.index(self.activation)
            shuffle = groups if self.shuffle_groups is None else self.shuffle_groups
            size = input.size(0), self.weight.size(0), input.size(2), input.size(3)
            added = residual if shuffle == 1 and kind == 0 and is_map(residual, size) else None
            result = call(op, input, self.weight, turned, bias_of(self), groups, shuffle, kind, added)
            return result if residual is added else result + residual
        result = super().forward(input)
        return result if residual is None else result + residual

    def _fits(self) -> bool:
        flat = self.kernel_size == self.stride == (1, 1) and self.padding == (0, 0) and self.padding_mode == "zeros"
        weight, groups = self.weight, self.groups
        return (
            flat
            and weight.size(1) * groups == self.in_channels
            and weight.size(0) % groups == 0
            and min(weight.size(1), weight.size(0) // groups) >= _LEAST
        )
