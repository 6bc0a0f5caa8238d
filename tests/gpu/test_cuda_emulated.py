"""The CUDA kernels, compiled for the CPU under cuda_emulator.h, against the references: their logic, without a GPU."""

import ctypes

import pytest
import torch
from emulation import DTYPES, compiled, pointer

from fastcnn import ops, reference_mode
from fastcnn.testing.spec import random_boxes


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    return compiled("emulated_kernels.cpp", tmp_path_factory.mktemp("emulator"))


def boxes_of(family, count, g):
    if family == "uniform":
        return random_boxes(count, g)
    if family == "dense":
        return random_boxes(count, g, image=100.0)
    if family == "same":
        return random_boxes(1, g).repeat(count, 1)
    if family == "chain":  # Each suppresses only its neighbours.
        x = torch.arange(count, dtype=torch.float32)[:, None] * 3
        return torch.cat([x, torch.zeros_like(x), x + 10, torch.full_like(x, 10)], 1)
    centres = random_boxes(20, g)
    return centres[torch.randint(20, (count,), generator=g)] + torch.randn(count, 4, generator=g) * 4


@pytest.mark.parametrize("threshold", [0.5, 0.0, 0.9, -0.5])
@pytest.mark.parametrize("count", [1, 255, 256, 257, 1500])
@pytest.mark.parametrize("family", ["uniform", "dense", "clustered", "same", "chain"])
def test_nms_matches_the_reference(kernels, family, count, threshold):
    g = torch.Generator().manual_seed(count)
    boxes = boxes_of(family, count, g)
    boxes[::17] = float("nan")
    boxes[5::31, 2:] = boxes[5::31, :2]
    boxes[7::29] = boxes[7::29].flip(1)
    scores = torch.rand(count, generator=g).mul(50).round()
    for dtype in (torch.float32, torch.float64):
        order = scores.sort(descending=True, stable=True).indices
        keep = torch.full((count + 64,), -7)
        wide = boxes.to(dtype).contiguous()
        pointers = [pointer(t) for t in (wide, order, keep)]
        kept = kernels.emulated_nms(DTYPES[dtype], *pointers[:2], count, ctypes.c_float(threshold), pointers[2])
        with reference_mode():
            expected = ops.nms(boxes.to(dtype), scores, threshold)
        assert keep[:kept].tolist() == expected.tolist()
        assert (keep[count:] == -7).all()
