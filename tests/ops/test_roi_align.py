"""What the contract suite does not say of RoI align: its edge rules by hand, invariances, bad input."""

import math

import numpy as np
import pytest
import torch

from fastcnn import _backend, ops, reference_mode
from fastcnn.ops import _library

MODES = [_library.kernel_mode, reference_mode]
RAMP = torch.arange(16.0).view(1, 1, 4, 4)


def rois(*boxes):
    return torch.tensor([[0.0, *box] for box in boxes])


@pytest.mark.parametrize("mode", MODES)
class TestEdges:
    def test_a_box_at_the_corner(self, mode):
        """Not aligned, its sides count as 1: samples at 3.85 and 4.35, of which 4.35 is off the map (torchvision's)."""
        with mode():
            out = ops.roi_align(RAMP, rois((3.6, 3.6, 4.0, 4.0)), 2)
        torch.testing.assert_close(out.flatten(), torch.tensor([15.0, 0.0, 0.0, 0.0]))

    @pytest.mark.parametrize("at, counts", [(-1.0, True), (-1.01, False), (4.0, True), (4.01, False)])
    def test_samples_count_up_to_one_pixel_outside(self, mode, at, counts):
        with mode():
            out = ops.roi_align(torch.ones(1, 1, 4, 4), rois((at - 0.5, 1.0, at + 0.5, 2.0)), 1, sampling_ratio=1)
        assert out.item() == float(counts)

    def test_a_linear_map_gives_the_centres_of_the_bins(self, mode):
        x = torch.arange(20.0).expand(1, 1, 20, 20)
        with mode():
            out = ops.roi_align(x, rois((2.0, 3.0, 16.0, 17.0)), 7, aligned=True)
        torch.testing.assert_close(out[0, 0], (torch.arange(7) * 2 + 2.5).expand(7, 7))

    @pytest.mark.parametrize("box", [(math.nan,) * 4, (1.0, 1.0, math.inf, 2.0), (-math.inf, 0.0, math.inf, 2.0)])
    def test_nan_and_infinite_boxes_with_a_fixed_grid_give_zeros(self, mode, box):
        with mode():
            assert torch.equal(ops.roi_align(RAMP, rois(box), 2, sampling_ratio=2), torch.zeros(1, 1, 2, 2))

    @pytest.mark.parametrize(
        "box", [(3.0, 1.0, 1.0, 3.0), (math.nan,) * 4, (1.0, 1.0, math.inf, 2.0), (9.0, 9.0, 12.0, 12.0)]
    )
    def test_inverted_nan_infinite_and_far_boxes_give_zeros(self, mode, box):
        x = RAMP.clone().requires_grad_()
        with mode():
            out = ops.roi_align(x, rois(box), 2, aligned=True)
            out.sum().backward()
        assert torch.equal(out, torch.zeros(1, 1, 2, 2))
        assert torch.equal(x.grad, torch.zeros_like(x))

    def test_inverted_box_with_a_fixed_grid_runs_backwards(self, mode):
        with mode():
            forwards = ops.roi_align(RAMP, rois((0.5, 0.5, 3.5, 3.5)), 3, sampling_ratio=2, aligned=True)
            backwards = ops.roi_align(RAMP, rois((3.5, 3.5, 0.5, 0.5)), 3, sampling_ratio=2, aligned=True)
        torch.testing.assert_close(backwards, forwards.flip(2, 3))

    def test_huge_boxes_are_pooled_in_bounded_time(self, mode):
        big = rois((-1e5, -1e5, 1e5, 1e5), (-1e30, -1e30, 1e30, 1e30))
        with mode():
            assert torch.isfinite(ops.roi_align(RAMP, big, 7)).all()

    def test_pixels_no_sample_touches_go_nowhere(self, mode):
        x = torch.randn(1, 3, 12, 12)
        boxes = rois((2.0, 2.0, 6.0, 6.0))
        clean = ops.roi_align(x, boxes, 2, sampling_ratio=1, aligned=True)
        # Samples lie at 2.5 and 4.5, in pixels 2, 3, 4 and 5.
        for at in [(slice(None), slice(6, None)), (slice(6, None), slice(None)), (slice(0, 2), slice(None))]:
            dirty = x.clone()
            dirty[:, :, at[0], at[1]] = math.nan
            for layout in (torch.contiguous_format, torch.channels_last):
                with mode():
                    out = ops.roi_align(
                        dirty.contiguous(memory_format=layout), boxes, 2, sampling_ratio=1, aligned=True
                    )
                torch.testing.assert_close(out, clean, check_stride=False)
        # A NaN stays in the bins that sample it.
        dirty = x.clone()
        dirty[:, :, 2, 2] = math.nan
        with mode():
            out = ops.roi_align(dirty, boxes, 2, sampling_ratio=1, aligned=True)
        assert out.isnan()[0, 0].tolist() == [[True, False], [False, False]]


def test_batch_index_is_truncated_towards_zero():
    x = torch.randn(2, 3, 5, 5)
    boxes = torch.tensor([[0.9, 0, 0, 4, 4], [1.9, 0, 0, 4, 4], [-0.9, 0, 0, 4, 4]])
    whole = torch.tensor([[0.0, 0, 0, 4, 4], [1.0, 0, 0, 4, 4], [0.0, 0, 0, 4, 4]])
    for mode in MODES:
        with mode():
            torch.testing.assert_close(ops.roi_align(x, boxes, 2), ops.roi_align(x, whole, 2))


def test_one_tensor_per_image():
    x = torch.randn(3, 4, 10, 10)
    boxes = [torch.tensor([[1.0, 1, 5, 5]]), torch.zeros(0, 4), torch.tensor([[0.0, 2, 7, 9], [3, 3, 4, 4]])]
    joined = torch.tensor([[0, 1.0, 1, 5, 5], [2, 0, 2, 7, 9], [2, 3, 3, 4, 4]])
    assert torch.equal(ops.roi_align(x, boxes, 3), ops.roi_align(x, joined, 3))
    assert ops.roi_align(x, [], 3).shape == (0, 4, 3, 3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_boxes_of_another_dtype(dtype):
    x = torch.randn(1, 3, 9, 9)
    boxes = rois((1.0, 2.0, 7.5, 6.25))
    assert torch.equal(ops.roi_align(x, boxes.to(dtype), 3), ops.roi_align(x, boxes, 3))
    assert torch.equal(ops.roi_align(x.to(dtype), boxes, 3), ops.roi_align(x.to(dtype), boxes.to(dtype), 3))


def test_shifting_map_and_boxes_together_changes_nothing():
    x = torch.randn(1, 5, 24, 24)
    shifted = torch.zeros(1, 5, 30, 31)
    shifted[:, :, 4:28, 5:29] = x
    box = torch.tensor([[0.0, 3.25, 4.5, 15.0, 17.75]])
    moved = box + torch.tensor([0.0, 5, 4, 5, 4])
    torch.testing.assert_close(ops.roi_align(x, box, 5), ops.roi_align(shifted, moved, 5))


def test_boxes_get_no_gradient():
    x, boxes = torch.randn(1, 2, 6, 6, requires_grad=True), rois((1.0, 1.0, 4.0, 4.0)).requires_grad_()
    ops.roi_align(x, boxes, 2).sum().backward()
    assert x.grad is not None and boxes.grad is None


@pytest.mark.parametrize("ratio", [0, -1, -(2**32) + 5, -(2**70)])
@pytest.mark.parametrize("mode", MODES)
def test_any_ratio_below_one_is_adaptive(mode, ratio):
    box = rois((0.2, 0.7, 3.4, 3.9))
    with mode():
        assert torch.equal(ops.roi_align(RAMP, box, 2, sampling_ratio=ratio), ops.roi_align(RAMP, box, 2))
    if ratio >= -(2**63):
        raw = torch.ops.fastcnn.roi_align(RAMP, box, 1.0, 2, 2, ratio, False)
        assert torch.equal(raw, ops.roi_align(RAMP, box, 2))


def test_numbers_of_numpy():
    box = rois((0.2, 0.7, 3.4, 3.9))
    ours = ops.roi_align(RAMP, box, (np.int64(2), np.int32(3)), np.float32(0.5), np.int64(2))
    assert torch.equal(ours, ops.roi_align(RAMP, box, (2, 3), 0.5, 2))


@pytest.mark.skipif(not _backend.cpu.available, reason="the compiled kernels' own checks")
@pytest.mark.parametrize("width", [0, 4, 6])
def test_the_kernel_checks_what_it_is_called_with(width):
    with pytest.raises(RuntimeError, match="5"):
        torch.ops.fastcnn.roi_align(RAMP, torch.zeros(3, width), 1.0, 2, 2, 2, False)
    with pytest.raises(RuntimeError, match="5"):
        torch.ops.fastcnn.roi_align_backward(
            torch.zeros(3, 1, 2, 2), torch.zeros(3, width), 1.0, 2, False, [1, 1, 4, 4], False
        )


@pytest.mark.skipif(not _backend.cpu.available, reason="the compiled kernels' own checks")
@pytest.mark.parametrize(
    "grad, size",
    [
        ((3, 1, 2, 2), [1, 1, 4]),
        ((3, 1, 2), [1, 1, 4, 4]),
        ((2, 1, 2, 2), [1, 1, 4, 4]),
        ((3, 2, 2, 2), [1, 1, 4, 4]),
        ((3, 1, 2, 2), [1, 1, 0, 4]),
        ((3, 1, 2, 2), [1, 1, -4, 4]),
        ((3, 1, 2, 2), [1, 1, 2**62, 4]),
    ],
)
def test_the_kernel_checks_the_sizes_it_is_called_with(grad, size):
    boxes = torch.zeros(3, 5)
    with pytest.raises(RuntimeError, match="roi_align_backward: expected"):
        torch.ops.fastcnn.roi_align_backward(torch.zeros(grad), boxes, 1.0, 2, False, size, False)
    for x, bins in ((RAMP[0], 2), (RAMP[:, :, :0], 2), (RAMP, -1), (RAMP, 2**32 + 1)):
        with pytest.raises(RuntimeError, match="roi_align: expected"):
            torch.ops.fastcnn.roi_align(x, boxes, 1.0, bins, 2, 2, False)


X, BOXES = torch.zeros(2, 3, 8, 8), torch.tensor([[0.0, 1, 1, 4, 4]])
BAD = {
    "rank": ((X[0], BOXES, 2), {}, ValueError, r"expected input with 4 dimensions, got shape \(3, 8, 8\)"),
    "4 wide": ((X, BOXES[:, 1:], 2), {}, ValueError, r"shape \[K, 5\] .* got a tensor of shape \[1, 4\]"),
    "list 5 wide": ((X, [BOXES], 2), {}, ValueError, r"boxes\[0\] of shape \[L, 4\], got \[1, 5\]"),
    "too many images": (
        (X, [BOXES[:, 1:]] * 3, 2),
        {},
        ValueError,
        "boxes for 3 images, but the input holds 2",
    ),
    "boxes rank": ((X, BOXES[0], 2), {}, ValueError, r"got a tensor of shape \[5\]"),
    "boxes type": ((X, "boxes", 2), {}, TypeError, "got str"),
    "int input": ((X.int(), BOXES, 2), {}, TypeError, r"input of a floating-point dtype, got torch\.int32"),
    "int boxes": ((X, BOXES.int(), 2), {}, TypeError, r"boxes of a floating-point dtype, got torch\.int32"),
    "not a tensor": ((None, BOXES, 2), {}, TypeError, "expected input to be a tensor, got NoneType"),
    "devices": ((X, BOXES.to("meta"), 2), {}, ValueError, "input on cpu, boxes on meta"),
    "devices of a list": (
        (X, [BOXES[:, 1:], BOXES[:, 1:].to("meta")], 2),
        {},
        ValueError,
        r"input on cpu, boxes\[1\] on meta",
    ),
    "index too high": (
        (X, BOXES + 2, 2),
        {},
        ValueError,
        "box 0 has batch index 2, but the input holds 2 image",
    ),
    "index too low": (
        (X, BOXES - 1, 2),
        {},
        ValueError,
        "box 0 has batch index -1, but the input holds 2 image",
    ),
    "nan index": ((X, BOXES * math.nan, 2), {}, ValueError, "box 0 has batch index"),
    "size 0": ((X, BOXES, 0), {}, ValueError, "positive output_size, got 0"),
    "size too large": ((X, BOXES, 2000), {}, ValueError, r"at most 2\*\*20 bins, got output_size 2000"),
    "size of 3": ((X, BOXES, (1, 2, 3)), {}, ValueError, r"one or two numbers, got \(1, 2, 3\)"),
    "size none": ((X, BOXES, None), {}, TypeError, "output_height to be an int, got NoneType None"),
    "size one float": ((X, BOXES, 7.0), {}, TypeError, "output_height to be an int, got float 7.0"),
    "size float": ((X, BOXES, (2.0, 2)), {}, TypeError, "output_height to be an int, got float 2.0"),
    "ratio": (
        (X, BOXES, 2),
        {"sampling_ratio": 1.5},
        TypeError,
        "sampling_ratio to be an int, got float 1.5",
    ),
    "large ratio": (
        (X, BOXES, 2),
        {"sampling_ratio": 2**70},
        ValueError,
        r"at most 2\*\*20, got 1180591620717411303424",
    ),
    "scale": ((X, BOXES, 2), {"spatial_scale": "1"}, TypeError, "spatial_scale to be a number, got str '1'"),
    "aligned": ((X, BOXES, 2), {"aligned": 1}, TypeError, "aligned to be a bool, got int 1"),
    "empty map": ((X[:, :, :0], BOXES, 2), {}, ValueError, r"with pixels, got shape \(2, 3, 0, 8\)"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", BAD)
def test_bad_input(name, mode):
    args, kwargs, error, message = BAD[name]
    with mode(), pytest.raises(error, match=message) as caught:
        ops.roi_align(*args, **kwargs)
    assert "\n" not in str(caught.value)
