"""Darknet's ``.weights`` files, for YOLO v2, YOLO9000, v3 and the classifiers under them.

A file is little-endian and has no names. First the header: int32 ``major``, ``minor`` and ``revision``, then how many
images training has seen: int64 where ``10 * major + minor`` is 2 or more, as in v3's files, int32 before, as in v2's.
Then float32 numbers, convolution by convolution in the order of computation; where there are branches, as Darknet's
configurations have them: in YOLOv2 the passthrough's after the two 3x3 ones, in YOLOv3 scale by scale from the
coarsest. Of each: its biases; where it has a batch norm, whose shifts these are, also scales, means and variances; and
its weights (out, in, height, width). Darknet's batch norms divide by the deviation plus 1e-6; those here, as PyTorch's,
by the root of the variance plus 1e-5, which differs where variances are tiny.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from fastcnn.models._net import ConvNet
from fastcnn.models.classification.darknet import Darknet, DarknetConv
from fastcnn.models.detection.yolov1 import YOLOv1

N = TypeVar("N", bound=ConvNet)
_VERSION = struct.Struct("<3i")


class DarknetHeader(NamedTuple):
    """Version and number of images seen in training; ``size`` is the header's in bytes."""

    major: int
    minor: int
    revision: int
    seen: int
    size: int


def read_darknet_header(path: str | PathLike[str]) -> DarknetHeader:
    """The header of a ``.weights`` file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: too short for one, or no version that Darknet has had.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no weights file {str(path)!r}")
    if not path.is_file():
        raise ValueError(f"{str(path)!r} is a directory, not a weights file")
    with path.open("rb") as file:
        start = file.read(20)
    if len(start) < _VERSION.size:
        raise ValueError(f"{path.name} is no Darknet weights file: {len(start)} bytes are less than its header")
    major, minor, revision = _VERSION.unpack_from(start)
    if not (0 <= major < 1000 and 0 <= minor < 1000 and 0 <= revision < 1000):
        raise ValueError(f"{path.name} is no Darknet weights file: its version is {major}.{minor}.{revision}")
    seen = struct.Struct("<q" if 10 * major + minor >= 2 else "<i")
    size = _VERSION.size + seen.size
    if len(start) < size:
        raise ValueError(f"{path.name} is no Darknet weights file: {len(start)} bytes are less than its header")
    (images,) = seen.unpack_from(start, _VERSION.size)
    return DarknetHeader(major, minor, revision, images, size)


def load_darknet_weights(net: N, path: str | PathLike[str]) -> N:
    """Copies a ``.weights`` file, in the format of this module, into ``net``, cast to its dtype and device.

    For ``darknet19``, ``darknet53`` and the convolutional YOLOs, whose ``backbone`` takes the files of a pretrained
    backbone (``darknet19_448.conv.23``, ``darknet53.conv.74``). Nothing in the file is run. When it raises, ``net`` is
    unchanged. Returns ``net``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another number of weights than the network has, negative or not finite variances, no such file at
            all, or a network on the meta device or fused.
        TypeError: a network of another family.
    """
    path = Path(path)
    layers = list(_layers(net))
    tensors = [tensor for layer in layers for tensor in layer]
    if any(tensor.is_meta for tensor in tensors):
        raise ValueError("weights cannot be loaded into a network on the meta device; build it on a real one")
    header = read_darknet_header(path)
    wanted, found = sum(tensor.numel() for tensor in tensors), path.stat().st_size - header.size
    if found != 4 * wanted:
        state = "is cut short or of another network" if found < 4 * wanted else "is of another network"
        raise ValueError(f"{path.name} {state}: it has {found / 4:,.10g} weights, {type(net).__name__} {wanted:,}")
    numbers = torch.from_numpy(np.fromfile(path, "<f4", offset=header.size).astype(np.float32, copy=False))
    parts = numbers.split([tensor.numel() for tensor in tensors])
    each = iter(parts)
    read = [[next(each) for _ in layer] for layer in layers]
    if not all(bool((layer[3] >= 0).all() and layer[3].isfinite().all()) for layer in read if len(layer) == 5):
        raise ValueError(f"{path.name} is of another network: what should be variances is negative or not finite")
    with torch.no_grad():
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.reshape(tensor.shape))
    return net


def save_darknet_weights(net: ConvNet, path: str | PathLike[str], *, seen: int = 0) -> None:
    """Writes what :func:`load_darknet_weights` reads: version 0.2.0, in float32.

    Raises:
        ValueError: a network on the meta device or fused, or ``seen`` below 0.
        TypeError: a network of another family.
    """
    tensors = [tensor for layer in _layers(net) for tensor in layer]
    if any(tensor.is_meta for tensor in tensors):
        raise ValueError("a network on the meta device has no weights to save")
    if seen < 0:
        raise ValueError(f"seen must be 0 or more, got {seen}")
    with Path(path).open("wb") as file:
        file.write(_VERSION.pack(0, 2, 0) + struct.pack("<q", seen))
        for tensor in tensors:
            file.write(tensor.detach().cpu().float().contiguous().numpy().astype("<f4", copy=False).tobytes())


def _layers(net: nn.Module) -> Iterator[list[Tensor]]:
    """The tensors of each convolution in the file's order, which is that of the modules."""
    if not isinstance(net, Darknet) or isinstance(net, YOLOv1):
        raise TypeError(f"Darknet's weights are of darknet19, darknet53, YOLO v2 and v3, not {type(net).__name__}")
    within = {child for module in net.modules() if isinstance(module, DarknetConv) for child in module.children()}
    for module in net.modules():
        if isinstance(module, DarknetConv):
            conv: Any = module.conv
            norm: Any = getattr(module, "bn", None)
            if isinstance(norm, nn.BatchNorm2d):
                yield [norm.bias, norm.weight, norm.running_mean, norm.running_var, conv.weight]  # type: ignore[list-item]
            elif norm is None:
                yield [conv.bias, conv.weight]
            else:
                raise ValueError("Darknet's weights have batch norms, and those of this network are fused")
        elif isinstance(module, nn.Conv2d | nn.Linear) and module not in within:
            assert module.bias is not None
            yield [module.bias, module.weight]
