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


def on_pyramid(x, rois):
    maps = [x, x[..., ::2, ::2]]
    return ops.multi_scale_roi_align(maps, rois, 7, [0.25, 0.125], 2, canonical_scale=64, canonical_level=3)


ROI_OPS = {
    "roi_align": lambda x, rois: ops.roi_align(x, rois, 7, 0.25, 2, True),
    "roi_pool": lambda x, rois: ops.roi_pool(x, rois, 7, 0.25),
    "multi_scale_roi_align": on_pyramid,
}
every_roi_op = pytest.mark.parametrize("op", ROI_OPS.values(), ids=ROI_OPS)


def forward_backward(x, rois, op):
    x = x.detach().requires_grad_()
    out = op(x, rois)
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


@every_roi_op
@pytest.mark.parametrize("layout", LAYOUTS)
def test_boxes_that_cannot_be_used_give_zeros(layout, op):
    nan = float("nan")
    x, _ = roi_case(torch.float32, layout)
    rows = [[2, 0, 0, 99, 99], [-1, 0, 0, 99, 99], [nan, 0, 0, 9, 9], [1e30, 0, 0, 9, 9], [0, nan, nan, nan, nan]]
    out, back = forward_backward(x.cuda(), torch.tensor(rows, device="cuda"), op)
    assert not out.any() and not back.any()
    torch.cuda.synchronize()


def test_raw_calls_over_rois_are_checked():
    raw, x = torch.ops.fastcnn, torch.ones(1, 4, 8, 8, device="cuda")
    rois, grad = torch.zeros(3, 5, device="cuda"), torch.ones(3, 4, 2, 2, device="cuda")
    levels = torch.zeros(3, dtype=torch.int64, device="cuda")
    for args in ((x[0], rois), (x, rois[:, :4]), (x, rois.cpu())):
        for call in (
            lambda x, rois: raw.roi_align(x, rois, 1.0, 2, 2, 2, True),
            lambda x, rois: raw.roi_pool(x, rois, 1.0, 2, 2),
            lambda x, rois: raw.roi_pool_backward(grad, x, rois, 1.0),
            lambda x, rois: raw.multi_scale_roi_align([x], rois, levels, [1.0], 2, 2, 2, True),
        ):
            with pytest.raises(RuntimeError, match="expected"):
                call(*args)
    for bad in (levels[:2], levels.int(), levels.cpu()):
        with pytest.raises(RuntimeError, match="int64 levels"):
            raw.multi_scale_roi_align([x], rois, bad, [1.0], 2, 2, 2, True)
        with pytest.raises(RuntimeError, match="int64 levels"):
            raw.multi_scale_roi_align_backward(grad, rois, bad, [1.0], 2, True, [1, 4, 8, 8], False)
    for call in (
        lambda: raw.roi_align_backward(grad[:2], rois, 1.0, 2, True, [1, 4, 8, 8], False),
        lambda: raw.roi_align_backward(grad, rois, 1.0, 2, True, [1, 4, 8], False),
        lambda: raw.roi_pool_backward(grad[:, :2], x, rois, 1.0),
        lambda: raw.roi_pool(x, rois, 1.0, 0, 2),
    ):
        with pytest.raises(RuntimeError, match="expected"):
            call()


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


@pytest.mark.parametrize("classes", [1, 80, 5000])
@pytest.mark.parametrize("images, count", [(1, 256), (3, 5000), (1, 60000)])
@pytest.mark.parametrize("family", ["uniform", "dense", "clustered"])
def test_batched_nms_matches_the_cpu(family, images, count, classes):
    g = torch.Generator().manual_seed(count + classes)
    # As above: coordinates with which both devices see the same IoUs.
    boxes = nms_boxes(family, images * count, g).mul(4).round().div(4).double().view(images, count, 4)
    scores = torch.rand(images, count, generator=g).mul(500).round().div(500)
    scores[:, ::101] = float("nan")
    idxs = torch.randint(classes, (images, count), generator=g) * 2**50
    args = [t.cuda() for t in (boxes, scores, idxs)]
    for size, score_threshold in ((300, None), (count, 0.25)):
        expected = ops.batched_nms_padded(boxes, scores, idxs, 0.4375, size, score_threshold)
        actual = ops.batched_nms_padded(*args, 0.4375, size, score_threshold)
        assert all(torch.equal(a.cpu(), e) for a, e in zip(actual, expected, strict=True))
    one = ops.batched_nms(*(t[0] for t in args), 0.4375)
    assert torch.equal(one.cpu(), ops.batched_nms(boxes[0], scores[0], idxs[0], 0.4375))


@pytest.mark.parametrize(
    "boxes, scores, idxs, device",
    [
        ((3, 5), 3, 3, "cuda"),
        ((3, 4), 2, 3, "cuda"),
        ((3, 4), 3, 4, "cuda"),
        ((12,), 3, 3, "cuda"),
        ((3, 4), 3, 3, "cpu"),
    ],
)
def test_suppression_checks_what_it_is_called_with(boxes, scores, idxs, device):
    b, s, i = torch.zeros(boxes).cuda(), torch.zeros(scores, device=device), torch.zeros(idxs).long().cuda()
    with pytest.raises(RuntimeError):
        torch.ops.fastcnn.batched_nms(b, s, i, 0.5)
    with pytest.raises(RuntimeError):
        torch.ops.fastcnn.batched_nms_padded(b[None], s[None], i[None], 0.5, 2, None)
    if idxs == 3:
        with pytest.raises(RuntimeError):
            torch.ops.fastcnn.nms(b, s, 0.5)


def test_suppression_is_deterministic_under_load():
    """All is queued before anything is waited for, so that two streams share the GPU."""
    g = torch.Generator().manual_seed(0)
    boxes, scores = nms_boxes("dense", 200_000, g).cuda()[None], torch.rand(1, 200_000, generator=g).cuda()
    idxs = torch.randint(3, (1, 200_000), generator=g).cuda()

    def run():
        return ops.batched_nms_padded(boxes, scores, idxs, 0.5, 200_000)

    first, others = run(), []
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in range(2)]
    for i in range(20):
        with torch.cuda.stream(streams[i % 2]):
            others.append(run())
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for other in others for a, b in zip(other, first, strict=True))
