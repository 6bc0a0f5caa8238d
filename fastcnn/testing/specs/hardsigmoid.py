"""The row of ``hardsigmoid``."""

from __future__ import annotations

import torch.nn.functional as F

from fastcnn.testing.specs._activations import activation

SPEC = activation(
    "hardsigmoid",
    F.hardsigmoid,
    {
        "mobilenet_v3 gate 16x960x1x1": (16, 960, 1, 1),
        "map 16x240x28x28": (16, 240, 28, 28),
        "map 16x16x112x112": (16, 16, 112, 112),
        "map 1x672x14x14": (1, 672, 14, 14),
    },
)
