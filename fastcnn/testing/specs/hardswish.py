"""The row of ``hardswish``."""

from __future__ import annotations

import torch.nn.functional as F

from fastcnn.testing.specs._activations import activation

SPEC = activation(
    "hardswish",
    F.hardswish,
    {
        "mobilenet_v3 16x240x28x28": (16, 240, 28, 28),
        "mobilenet_v3 16x16x112x112": (16, 16, 112, 112),
        "mobilenet_v3 1x672x14x14": (1, 672, 14, 14),
    },
)
