"""Maps and kernels as pictures: uint8 (3, H, W)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcnn.models import ConvNet

GAP = 1  # Pixels between tiles.
PAPER = 255  # Their colour.


def colour_map(values: Tensor) -> Tensor:
    """(H, W), from its least value, blue, over green and yellow to its largest, red. uint8 (3, H, W).

    Raises:
        ValueError: another rank, nothing, or values that are not finite.
    """
    if values.dim() != 2 or not values.numel() or not values.isfinite().all():
        raise ValueError(f"a colour map is of finite values (H, W), got {tuple(values.shape)}")
    level = values.detach().float() - values.min()
    level = level / level.max().clamp(min=torch.finfo(level.dtype).tiny)
    centres = level.new_tensor([3, 2, 1])[:, None, None]  # Where red, green and blue are full, in quarters.
    return _bytes((1.5 - (4 * level - centres).abs()).clamp(0, 1))


def overlay(image: Tensor, heat: Tensor, opacity: float = 0.5) -> Tensor:
    """A heat map (h, w), stretched over an image, uint8 (3, H, W), in the colours of :func:`colour_map`.

    Raises:
        ValueError: an image of another dtype or shape, a heat map of another rank, or an opacity not in [0, 1].
    """
    if image.dtype != torch.uint8 or image.dim() != 3 or image.size(0) != 3:
        raise ValueError(f"image must be uint8 (3, H, W), got {image.dtype} {tuple(image.shape)}")
    if heat.dim() != 2 or not 0 <= opacity <= 1:
        raise ValueError(f"heat must be (h, w) and opacity in [0, 1], got {tuple(heat.shape)}, {opacity}")
    stretched = F.interpolate(
        heat.detach().float()[None, None], image.shape[1:], mode="bilinear", align_corners=False
    )
    colours = colour_map(stretched[0, 0]).float().to(image.device)
    return torch.lerp(image.float(), colours, opacity).round().to(torch.uint8)


def signed_picture(signal: Tensor) -> Tensor:
    """A kernel, gradient or reconstruction, (3, H, W) or (1, H, W): 0 is grey, the largest magnitude white or black.

    Raises:
        ValueError: another shape.
    """
    if signal.dim() != 3 or signal.size(0) not in (1, 3) or not signal.numel():
        raise ValueError(f"a picture is of 1 or 3 channels (C, H, W), got {tuple(signal.shape)}")
    signal = signal.detach().float()
    return _bytes(0.5 + signal / (2 * signal.abs().max().clamp(min=torch.finfo(signal.dtype).tiny))).expand(3, -1, -1)


def grid(tiles: Sequence[Tensor], columns: int, *, scale: int = 1) -> Tensor:
    """Pictures in rows of ``columns``, each in the upper left of a cell as large as the largest of them, its pixels
    squares of ``scale``.

    Raises:
        ValueError: no tile, one that is not uint8 (3, H, W), or ``columns`` or ``scale`` below 1.
    """
    if not len(tiles) or columns < 1 or scale < 1:
        raise ValueError(f"a grid needs tiles, columns and a scale, got {len(tiles)}, {columns}, {scale}")
    for tile in tiles:
        if tile.dtype != torch.uint8 or tile.dim() != 3 or tile.size(0) != 3:
            raise ValueError(f"tiles must be uint8 (3, H, W), got {tile.dtype} {tuple(tile.shape)}")
    high, wide = (max(tile.size(dim) for tile in tiles) * scale + GAP for dim in (1, 2))
    columns = min(columns, len(tiles))
    picture = torch.full((3, -(-len(tiles) // columns) * high + GAP, columns * wide + GAP), PAPER, dtype=torch.uint8)
    for index, tile in enumerate(tiles):
        large = tile.cpu().repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        top, left = index // columns * high + GAP, index % columns * wide + GAP
        picture[:, top : top + large.size(1), left : left + large.size(2)] = large
    return picture


def first_layer_kernels(net: ConvNet, *, columns: int = 16, scale: int = 4) -> Tensor:
    """The kernels of a network's first convolution, each by :func:`signed_picture`, in a :func:`grid`.

    Where the second convolution has groups, as AlexNet's two GPUs, its groups see kernels that come one group after the
    other, with a wider gap between them: the 96 of AlexNet are 3 rows of 16 of the first GPU over 3 of the second.

    Raises:
        ValueError: a first convolution of other than 1 or 3 channels.

    Source: Krizhevsky et al., NIPS 2012, figure 3.
    """
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    if not convolutions or convolutions[0].weight.size(1) not in (1, 3):
        shapes = [tuple(conv.weight.shape) for conv in convolutions[:1]]
        raise ValueError(f"kernels are shown of a first convolution of 1 or 3 channels, got {shapes}")
    tiles = [signed_picture(kernel) for kernel in convolutions[0].weight]
    groups = convolutions[1].groups if len(convolutions) > 1 else 1
    if len(tiles) % groups or groups == len(tiles):  # A depthwise convolution shares nothing out.
        groups = 1
    share = len(tiles) // groups
    halves = [grid(tiles[start : start + share], columns, scale=scale) for start in range(0, len(tiles), share)]
    return halves[0] if groups == 1 else grid(halves, 1)


def _bytes(values: Tensor) -> Tensor:
    return (values * 255).round().to(torch.uint8)
