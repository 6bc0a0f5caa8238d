"""What benches take for an image."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcnn.data.images import PHOTOGRAPH, photograph, read_image

__all__ = ["PHOTOGRAPH", "noise", "photograph", "read_image"]


def noise() -> Tensor:
    """Seeded noise of the photograph's size, for machines without it: uint8 pixels ``[3, 300, 451]``."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (3, 300, 451), generator=generator, dtype=torch.uint8)
