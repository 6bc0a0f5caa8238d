"""The channels of two maps in turn, ``torch.cat`` and a channel shuffle of two groups in one copy: for inference.

Both ``[N, C, H, W]`` in float32, the result ``[N, 2 C, H, W]`` in channels_last: exact. Not public:
:func:`fastcnn.nn.fused.shuffled_pair` calls it. Source: Ma et al., ShuffleNet V2, ECCV 2018, figure 3 c and d.
"""

import torch

from fastcnn.ops import _library


def _reference(first, second):
    return torch.stack((first, second), 2).flatten(1, 2).contiguous(memory_format=torch.channels_last)


def _fake(first, second):
    images, channels, height, width = first.shape
    return first.new_empty((images, height, width, 2 * channels)).permute(0, 3, 1, 2)


op = _library.define("shuffle_pair(Tensor first, Tensor second) -> Tensor", reference=_reference, fake=_fake)
