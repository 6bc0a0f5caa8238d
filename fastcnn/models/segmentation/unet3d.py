"""3D U-Net: Çiçek et al., 3D U-Net: Learning Dense Volumetric Segmentation from Sparse Annotation, MICCAI 2016."""

from __future__ import annotations

from dataclasses import dataclass

from fastcnn.models._preprocess import Preprocess
from fastcnn.models._registry import register
from fastcnn.models.segmentation.unet import UNet, UNetRow


@dataclass(frozen=True, kw_only=True)
class UNet3DRow(UNetRow):
    """Figure 2. The paper counts 19,069,955 parameters, which are those without ``batch_norm`` and ``up_bias``.

    Attributes:
        preprocess: of the values of a voxel; not to be called, as it resizes images.
        sides: depth, height and width that the counts are for.
    """

    num_classes: int = 3
    in_channels: int = 3
    preprocess: Preprocess = Preprocess(132, crop_pct=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    sides: tuple[int, int, int] = (116, 132, 132)
    width: int = 32
    depth: int = 3
    batch_norm: bool = True
    norm_bias: bool = True
    early_doubling: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.sides) != 3:
            raise ValueError(f"sides must be depth, height and width, got {self.sides!r}")


class UNet3D(UNet):
    """:class:`UNet` of volumes: (N, C, D, H, W) to logits (N, num_classes, D', H', W'), which have 88 voxels less
    along each axis for a depth of 3, or as many with padding.

    Features are those of the :class:`UNet`. Keys are ours.
    """

    dims = 3

    @property
    def input_sides(self) -> tuple[int, ...]:
        return self.row.sides  # type: ignore[no-any-return]


_PAPER = "Çiçek et al., MICCAI 2016, figure 2"

ROWS = {
    "unet3d": UNet3DRow(source=f"{_PAPER}, with batch norms and biases everywhere"),
    "unet3d_x0_25": UNet3DRow(
        padding=1,
        up_bias=False,
        norm_bias=False,
        width=8,
        sides=(64, 64, 64),
        preprocess=Preprocess(64, crop_pct=1.0, mean=(0.0,), std=(1.0,)),
        in_channels=1,
        num_classes=2,
        source=f"{_PAPER}, with padding 1, a quarter as wide, for small machines",
    ),
}

register(ROWS, UNet3D)
