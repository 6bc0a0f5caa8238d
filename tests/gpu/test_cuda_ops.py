"""What the contract does not say of ops on a GPU: special values, and suppression on many kinds of boxes."""

import pytest
import torch

import fastcnn
from fastcnn import ops
from fastcnn.ops import _library
from fastcnn.testing.compare import assert_close_to
from fastcnn.testing.spec import random_boxes, random_rois

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device that torch can use"),
]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture
def torchvision_ops():
    return pytest.importorskip("torchvision", reason="torchvision does not import beside this torch").ops


def roi_case(dtype, layout, channels=64, count=200, images=2, size=(50, 68), seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(images, channels, *size, generator=g, dtype=torch.float64).to(dtype)
    rois = random_rois(count, images, size[0] * 4, size[1] * 4, g)
    return x.contiguous(memory_format=layout), rois


def forward_backward(x, rois, args):
    x = x.detach().requires_grad_()
    out = ops.roi_align(x, rois, 7, *args)
    weights = (torch.arange(out.numel()) % 7 - 3).view(out.shape).to(out)  # Exact in every dtype.
    (back,) = torch.autograd.grad(out, x, weights)
    return out.detach(), back


def test_kernels_and_not_references_run():
    parts = fastcnn.report().parts
    assert parts["cuda"].available, parts["cuda"].detail
    assert parts["triton"].available, parts["triton"].detail


@pytest.mark.parametrize("dtype", DTYPES)
def test_hardswish_of_what_is_not_finite(dtype):
    x = torch.tensor([-3.0, 3, float("nan"), float("inf"), float("-inf")], dtype=dtype)
    results = []
    for leaf in (x.double(), x.cuda()):
        leaf.requires_grad_()
        with _library.kernel_mode():
            out = ops.hardswish(leaf)
        (back,) = torch.autograd.grad(out, leaf, torch.ones_like(leaf))
        results.append((out.detach().cpu(), back.cpu()))
    for exact, actual in zip(*results, strict=True):
        assert_close_to(actual, exact)


@pytest.mark.parametrize("args", [(0.25, 2, True), (0.25, -1, False)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_roi_align_matches_torchvision(torchvision_ops, dtype, args):
    """On a larger map than the contract's."""
    x, rois = roi_case(dtype, torch.contiguous_format)
    x, rois = x.cuda(), rois.to("cuda", dtype)
    expected = torchvision_ops.roi_align(x, rois, 7, *args).double()
    # Coordinates of float32 are rounded by up to 8e-6 there, in an order that the compiler chooses.
    assert_close_to(ops.roi_align(x, rois, 7, *args), expected, reduction=100)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_boxes_that_cannot_be_used_give_zeros(layout):
    nan = float("nan")
    x, _ = roi_case(torch.float32, layout)
    rows = [[2, 0, 0, 99, 99], [-1, 0, 0, 99, 99], [nan, 0, 0, 9, 9], [1e30, 0, 0, 9, 9], [0, nan, nan, nan, nan]]
    out, back = forward_backward(x.cuda(), torch.tensor(rows, device="cuda"), (0.25, 2, True))
    assert not out.any() and not back.any()
    torch.cuda.synchronize()


def nms_boxes(family, count, g):
    if family == "clustered":
        boxes = random_boxes(50, g)[torch.randint(50, (count,), generator=g)]
        return boxes + torch.randn(count, 4, generator=g) * 3
    if family == "chain":
        x = torch.arange(count, dtype=torch.float32)[:, None] * 3
        return torch.cat([x, torch.zeros_like(x), x + 10, torch.full_like(x, 10)], 1)
    if family == "same":
        return random_boxes(1, g).repeat(count, 1)
    return random_boxes(count, g, image=100.0 if family == "dense" else 5000.0)


@pytest.mark.parametrize("threshold", [0.4375, 0.0, -0.5])
@pytest.mark.parametrize("count", [1, 256, 257, 5000])
@pytest.mark.parametrize("family", ["uniform", "dense", "clustered", "chain", "same"])
def test_nms_matches_the_cpu_and_itself(family, count, threshold):
    g = torch.Generator().manual_seed(count)
    boxes, scores = nms_boxes(family, count, g), torch.rand(count, generator=g).mul(500).round()
    boxes[::97] = float("nan")
    # With such coordinates in float64, fused multiply-adds round nothing away, so both devices see the same IoUs.
    boxes = boxes.mul(4).round().div(4)
    expected = ops.nms(boxes.double(), scores, threshold)
    for _ in range(3):
        assert torch.equal(ops.nms(boxes.cuda().double(), scores.cuda(), threshold).cpu(), expected)


@pytest.mark.parametrize("count", [1000, 20000, 100000])
@pytest.mark.parametrize("family", ["uniform", "dense", "clustered"])
def test_nms_matches_torchvision_to_the_bit(torchvision_ops, family, count):
    g = torch.Generator().manual_seed(count)
    boxes, scores = nms_boxes(family, count, g).cuda(), torch.rand(count, generator=g).cuda()
    for threshold in (0.3, 0.5, 0.7):
        assert torch.equal(ops.nms(boxes, scores, threshold), torchvision_ops.nms(boxes, scores, threshold))


def test_nms_is_deterministic_under_load():
    g = torch.Generator().manual_seed(0)
    boxes, scores = nms_boxes("dense", 200_000, g).cuda(), torch.rand(200_000, generator=g).cuda()
    first = ops.nms(boxes, scores, 0.5)
    streams = [torch.cuda.Stream() for _ in range(2)]
    for i in range(20):
        with torch.cuda.stream(streams[i % 2]):
            assert torch.equal(ops.nms(boxes, scores, 0.5), first)
