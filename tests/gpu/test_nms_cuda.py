"""Suppression on a GPU: against the CPU, against torchvision where it imports, and what only a GPU shows."""

import pytest
import torch

from fastcnn import ops
from fastcnn.testing.spec import random_boxes

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device that torch can use"),
]


@pytest.fixture
def torchvision_ops():
    return pytest.importorskip("torchvision", reason="torchvision does not import beside this torch").ops


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
def test_batched_nms_matches_the_cpu_and_waits_for_nothing(family, images, count, classes):
    g = torch.Generator().manual_seed(count + classes)
    # As above: coordinates with which both devices see the same IoUs.
    boxes = nms_boxes(family, images * count, g).mul(4).round().div(4).double().view(images, count, 4)
    scores = torch.rand(images, count, generator=g).mul(500).round().div(500)
    scores[:, ::101] = float("nan")
    idxs = torch.randint(classes, (images, count), generator=g) * 2**53
    args = [t.cuda() for t in (boxes, scores, idxs)]
    for size, score_threshold in ((300, None), (count, 0.25)):
        expected = ops.batched_nms_padded(boxes, scores, idxs, 0.4375, size, score_threshold)
        torch.cuda.set_sync_debug_mode("error")
        try:
            actual = ops.batched_nms_padded(*args, 0.4375, size, score_threshold)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert all(torch.equal(a.cpu(), e) for a, e in zip(actual, expected, strict=True))
    one = ops.batched_nms(*(t[0] for t in args), 0.4375)
    assert torch.equal(one.cpu(), ops.batched_nms(boxes[0], scores[0], idxs[0], 0.4375))


def test_batched_nms_padded_in_a_cuda_graph():
    def scene(seed):
        g = torch.Generator().manual_seed(seed)
        scores, idxs = torch.rand(2, 9000, generator=g), torch.randint(20, (2, 9000), generator=g)
        return [t.cuda() for t in (nms_boxes("dense", 18000, g).view(2, 9000, 4), scores, idxs)]

    held = scene(0)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        ops.batched_nms_padded(*held, 0.5, 100, 0.05)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = ops.batched_nms_padded(*held, 0.5, 100, 0.05)
    for seed in (1, 2, 3):
        for to, x in zip(held, scene(seed), strict=True):
            to.copy_(x)
        graph.replay()
        assert all(map(torch.equal, result, ops.batched_nms_padded(*held, 0.5, 100, 0.05)))


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


def test_nms_is_deterministic_under_load():
    g = torch.Generator().manual_seed(0)
    boxes, scores = nms_boxes("dense", 200_000, g).cuda(), torch.rand(200_000, generator=g).cuda()
    first = ops.nms(boxes, scores, 0.5)
    streams = [torch.cuda.Stream() for _ in range(2)]
    for i in range(20):
        with torch.cuda.stream(streams[i % 2]):
            assert torch.equal(ops.nms(boxes, scores, 0.5), first)


def test_no_boxes():
    none = [torch.zeros(0, 4, device="cuda"), torch.zeros(0, device="cuda"), torch.zeros(0, device="cuda")]
    assert ops.nms(*none[:2], 0.5).tolist() == [] and ops.batched_nms(*none, 0.5).tolist() == []
    indices, count = ops.batched_nms_padded(*none, 0.5, 3)
    assert indices.tolist() == [-1] * 3 and count == 0
