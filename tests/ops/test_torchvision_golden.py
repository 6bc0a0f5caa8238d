"""Results of torchvision 0.26's CPU kernels, recorded, so that agreement is checked where torchvision does not import.

Beside torchvision, ``python tests/ops/test_torchvision_golden.py`` writes the record anew.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fastcnn import ops

RECORD = Path(__file__).parents[1] / "golden" / "torchvision_ops.json"
ROI_ALIGN = {
    "adaptive": {"spatial_scale": 0.25},
    "adaptive aligned": {"spatial_scale": 0.5, "aligned": True},
    "sampling 1": {"spatial_scale": 0.25, "sampling_ratio": 1},
    "sampling 2": {"spatial_scale": 0.25, "sampling_ratio": 2},
    "sampling 2 aligned": {"spatial_scale": 0.25, "sampling_ratio": 2, "aligned": True},
    "sampling 3, boxes beyond the map": {"sampling_ratio": 3},
}
ROI_POOL = {"scale 1/4": 0.25, "scale 0.3": 0.3, "scale 1": 1.0}
BATCHED_NMS = (240, 1400)
NMS = (-1.0, -0.0, 0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)


def uniform(*shape: int, salt: int) -> torch.Tensor:
    """In [0, 1), from arithmetic that no release changes."""
    n = np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(7919 * salt + 1)
    n = (n * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
    return torch.from_numpy((n / 2.0**24).astype(np.float32)).view(shape)


def roi_align_case():
    x = uniform(2, 3, 9, 11, salt=1) * 2 - 1
    corner, size = uniform(8, 2, salt=2) * 36 - 4, uniform(8, 2, salt=3) ** 2 * 40
    return x, torch.cat([torch.tensor([0.0, 1] * 4)[:, None], corner, corner + size], 1)


def nms_case():
    """Mixed sizes, a few of them wide, ties in the scores."""
    corner, size = uniform(240, 2, salt=4) * 300, uniform(240, 2, salt=5) * 60
    size[::24] *= 10
    return torch.cat([corner, corner + size], 1), (uniform(240, salt=6) * 32).floor() / 32


def batched_nms_case(count):
    """Beyond 1,000 boxes torchvision compares classes, below it moves them apart, here by whole numbers below 2**24."""
    corner, size = (uniform(count, 2, salt=8) * 300).round(), (uniform(count, 2, salt=9) * 60).round()
    idxs = (uniform(count, salt=11) * 5).long()
    return torch.cat([corner, corner + size], 1), (uniform(count, salt=10) * count).floor() / count, idxs


def distinct(scores):
    """torchvision does not sort stably: of equal scores only one is left."""
    return scores - torch.arange(len(scores)) * 1e-6


def compute(ops):
    (x, rois), record = roi_align_case(), {"roi_align": {}, "roi_pool": {}, "nms": {}, "batched_nms": {}}
    roi_align, nms = ops.roi_align, ops.nms
    for name, kwargs in ROI_ALIGN.items():
        leaf = x.clone().requires_grad_()
        out = roi_align(leaf, rois, (2, 3), **kwargs)
        (grad,) = torch.autograd.grad(out, leaf, uniform(*out.shape, salt=7))
        record["roi_align"][name] = {"output": out.flatten().tolist(), "grad": grad.flatten().tolist()}
    for name, scale in ROI_POOL.items():
        leaf = x.clone().requires_grad_()
        out = ops.roi_pool(leaf, rois, (2, 3), scale)
        (grad,) = torch.autograd.grad(out, leaf, uniform(*out.shape, salt=7))
        record["roi_pool"][name] = {"output": out.flatten().tolist(), "grad": grad.flatten().tolist()}
    for count in BATCHED_NMS:
        boxes, scores, idxs = batched_nms_case(count)
        record["batched_nms"][str(count)] = ops.batched_nms(boxes, distinct(scores), idxs, 0.4).tolist()
    for threshold in NMS:
        record["nms"][str(threshold)] = nms(*nms_case(), threshold).tolist()
    return record


@pytest.fixture(scope="module")
def results():
    return compute(ops), json.loads(RECORD.read_text())


@pytest.mark.parametrize("name", ROI_ALIGN)
def test_roi_align(name, results):
    ours, theirs = (r["roi_align"][name] for r in results)
    for part in ("output", "grad"):
        torch.testing.assert_close(torch.tensor(ours[part]), torch.tensor(theirs[part]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ROI_POOL)
def test_roi_pool(name, results):
    ours, theirs = (r["roi_pool"][name] for r in results)
    for part in ("output", "grad"):
        torch.testing.assert_close(torch.tensor(ours[part]), torch.tensor(theirs[part]), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("count", BATCHED_NMS)
def test_batched_nms(count, results):
    ours, theirs = (r["batched_nms"][str(count)] for r in results)
    assert ours == theirs


@pytest.mark.parametrize("threshold", NMS, ids=str)
def test_nms(threshold, results):
    ours, theirs = (r["nms"][str(threshold)] for r in results)
    assert ours == theirs


if __name__ == "__main__":
    import torchvision

    record = compute(torchvision.ops)
    for part in (*record["roi_align"].values(), *record["roi_pool"].values()):
        for key, values in part.items():
            part[key] = [float(f"{v:.7g}") for v in values]
    RECORD.write_text(json.dumps({"source": f"torchvision {torchvision.__version__}", **record}) + "\n")
