"""What the contract suite does not say of suppression of fixed size. Its values are in test_batched_nms.py as well."""

import math

import numpy as np
import pytest
import torch

from fastcnn import _backend, ops, reference_mode
from fastcnn.ops import _library
from fastcnn.testing.spec import random_boxes

MODES = [_library.kernel_mode, reference_mode]
SQUARE = [0.0, 0.0, 10.0, 10.0]


def scene(images, count, seed=0):
    g = torch.Generator().manual_seed(seed)
    boxes = random_boxes(images * count, g, image=150.0).view(images, count, 4)
    return boxes, torch.rand(images, count, generator=g), torch.randint(4, (images, count), generator=g)


@pytest.mark.parametrize("mode", MODES)
def test_one_image_has_a_result_without_the_dimension_of_images(mode):
    with mode():
        boxes, scores, idxs = scene(3, 50)
        indices, counts = ops.batched_nms_padded(boxes, scores, idxs, 0.3, 40)
        assert indices.shape == (3, 40) and counts.shape == (3,)
        for i in range(3):
            alone, count = ops.batched_nms_padded(boxes[i], scores[i], idxs[i], 0.3, 40)
            assert torch.equal(alone, indices[i]) and torch.equal(count, counts[i]) and count.dim() == 0


@pytest.mark.parametrize("mode", MODES)
def test_score_threshold_is_strict_and_drops_nan(mode):
    scores = torch.tensor([0.5, math.nan, 0.25, 0.75])
    idxs = torch.arange(4)
    with mode():
        indices, count = ops.batched_nms_padded(torch.tensor([SQUARE] * 4), scores, idxs, 0.5, 4, 0.25)
        assert indices.tolist() == [3, 0, -1, -1] and count == 2
        # What takes no part suppresses nothing: here the first box, whose score is NaN.
        _, count = ops.batched_nms_padded(torch.tensor([SQUARE] * 2), scores[[1, 0]], idxs[:2] * 0, 0.5, 4, 0.25)
        assert count == 1
        # In float32 a score of float32(0.1) is not above 0.1.
        tenth = torch.tensor([0.1, 0.1000001])
        _, count = ops.batched_nms_padded(torch.tensor([SQUARE] * 2), tenth, idxs[:2], 0.5, 4, 0.1)
        assert count == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5])
def test_score_threshold_of_other_dtypes(dtype, threshold):
    boxes, scores, idxs = scene(2, 400)
    args = (boxes, scores.to(dtype), idxs, 0.5, 300, threshold)
    with reference_mode():
        expected = ops.batched_nms_padded(*args)
    assert all(map(torch.equal, ops.batched_nms_padded(*args), expected))


class _Detect(torch.nn.Module):
    def forward(self, boxes, scores, idxs):
        indices, count = ops.batched_nms_padded(boxes, scores, idxs, 0.5, 25, 0.1)
        return boxes[indices.clamp(min=0)], count


def test_compile_and_export_need_no_dynamic_output_shapes():
    args = [t[0] for t in scene(1, 60)]
    wanted = _Detect()(*args)
    compiled = torch.compile(_Detect(), fullgraph=True, backend="aot_eager")
    exported = torch.export.export(_Detect(), tuple(args)).module()
    for run in (compiled, exported):
        assert all(map(torch.equal, run(*args), wanted))


def test_numbers_of_numpy():
    args = [t[0] for t in scene(1, 30)]
    ours = ops.batched_nms_padded(*args, np.float32(0.5), np.int64(8), np.float64(0.25))
    assert all(map(torch.equal, ours, ops.batched_nms_padded(*args, 0.5, 8, 0.25)))


@pytest.mark.skipif(not _backend.cpu.available, reason="the compiled kernels' own checks")
@pytest.mark.parametrize(
    "boxes, scores, idxs, size",
    [
        ((3, 4), (3,), (3,), 2),
        ((1, 3, 5), (1, 3), (1, 3), 2),
        ((1, 3, 4), (1, 2), (1, 3), 2),
        ((1, 3, 4), (1, 3), (2, 3), 2),
        ((1, 3, 4), (1, 3), (1, 3), -1),
    ],
)
def test_the_kernel_checks_what_it_is_called_with(boxes, scores, idxs, size):
    with pytest.raises(RuntimeError):
        torch.ops.fastcnn.batched_nms_padded(
            torch.zeros(boxes), torch.zeros(scores), torch.zeros(idxs).long(), 0.5, size, None
        )


BOXES, SCORES, IDXS = torch.zeros(2, 3, 4), torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.long)
BAD = {
    "boxes rank": ((BOXES[None], SCORES, IDXS, 0.5, 2), ValueError, r"\[N, 4\] or \[B, N, 4\], got \[1, 2, 3, 4\]"),
    "5 wide": ((torch.zeros(3, 5), SCORES, IDXS, 0.5, 2), ValueError, r"\[B, N, 4\], got \[3, 5\]"),
    "scores": ((BOXES, SCORES[0], IDXS, 0.5, 2), ValueError, r"scores of shape \[2, 3\] .* got \[3\]"),
    "idxs": ((BOXES, SCORES, IDXS[:, :1], 0.5, 2), ValueError, r"idxs of shape \[2, 3\] .* got \[2, 1\]"),
    "negative size": ((BOXES, SCORES, IDXS, 0.5, -2), ValueError, "max_output_size of 0 or more, got -2"),
    "size": ((BOXES, SCORES, IDXS, 0.5, 2.0), TypeError, "max_output_size to be an int, got float 2.0"),
    "threshold": ((BOXES, SCORES, IDXS, None, 2), TypeError, "iou_threshold to be a number, got NoneType None"),
    "score threshold": ((BOXES, SCORES, IDXS, 0.5, 2, "1"), TypeError, "score_threshold to be a number, got str '1'"),
    "int boxes": ((BOXES.int(), SCORES, IDXS, 0.5, 2), TypeError, "boxes of a floating-point dtype, got torch.int32"),
    "devices": ((BOXES, SCORES.to("meta"), IDXS, 0.5, 2), ValueError, "boxes on cpu, scores on meta, idxs on cpu"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    args, error, message = BAD[name]
    with pytest.raises(error, match=f"batched_nms_padded: .*{message}") as caught:
        ops.batched_nms_padded(*args)
    assert "\n" not in str(caught.value)
