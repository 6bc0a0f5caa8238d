"""The CUDA kernels of maps, compiled for the CPU under cuda_emulator.h, against the references."""

import ctypes

import pytest
import torch
from emulation import DTYPES, compiled

from fastcnn import ops, reference_mode
from fastcnn.testing.spec import random_rois

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12, torch.float16: 2e-3, torch.bfloat16: 1e-2}


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    return compiled("emulated_kernels.cpp", tmp_path_factory.mktemp("emulator"))


class RoiAlignArguments(ctypes.Structure):
    _fields_ = [
        ("sizes", ctypes.c_int64 * 4),
        ("n_rois", ctypes.c_int64),
        ("pooled_height", ctypes.c_int),
        ("pooled_width", ctypes.c_int),
        ("sampling_ratio", ctypes.c_int),
        ("aligned", ctypes.c_int),
        ("spatial_scale", ctypes.c_double),
        ("channels_last", ctypes.c_int),
        ("vectorized", ctypes.c_int),
    ]


def guarded(size, dtype, layout):
    """A tensor full of NaN inside a larger one, whose other elements must stay NaN."""
    numel = 1
    for n in size:
        numel *= n
    memory = torch.full((numel + 128,), float("nan"), dtype=dtype)
    strides = torch.empty(size, device="meta", memory_format=layout).stride()
    return memory, memory[64 : 64 + numel].as_strided(size, strides, 64)


def run_roi_align(kernels, adjoint, source, rois, out_size, input_size, args, layout, vectorized):
    scale, ratio, aligned = args
    pooled = source.shape[2:] if adjoint else out_size[2:]
    source = source.contiguous(memory_format=layout)
    memory, out = guarded(out_size, source.dtype, layout)
    boxes = rois.to(torch.float64 if source.dtype == torch.float64 else torch.float32).contiguous()
    last = layout is torch.channels_last
    arguments = RoiAlignArguments(
        tuple(input_size), len(boxes), *pooled, ratio, aligned, scale, last, last and vectorized
    )
    pointers = [ctypes.c_void_p(t.data_ptr()) for t in (source, boxes, out)]
    kernels.emulated_roi_align(DTYPES[source.dtype], adjoint, *pointers, ctypes.byref(arguments))
    assert memory[:64].isnan().all() and memory[-64:].isnan().all(), "written outside the result"
    return out


ROI_CASES = [
    # shape, RoIs, bins, scale, ratio, aligned
    ((2, 8, 13, 17), 9, (7, 7), 0.5, 2, False),
    ((2, 40, 9, 40), 5, (7, 7), 0.25, -1, True),
    ((1, 5, 30, 21), 6, (3, 5), 1.0, -1, False),
    ((3, 16, 8, 8), 4, (14, 14), 1.0, 1, True),
    ((1, 3, 6, 50), 3, (2, 19), 2.0, 5, False),
    ((1, 136, 5, 6), 2, (1, 1), 1.0, -1, True),
]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def edge_rois(height, width):
    """Beyond the map on every side, on its border, huge, of one pixel, empty, inverted."""
    return torch.tensor(
        [
            [0, -2 * width, -2 * height, 3 * width, 3 * height],
            [0, width + 5, 0, width + 9, 4],
            [0, -1, -1, 0, 0],
            [0, width - 1, height - 1, width, height],
            [0, 3.6, 3.6, 4, 4],
            [0, 2, 2, 2, 2],
            [0, 4, 4, 1, 1],
            [0, -100, -100, 100, 100],
        ],
        dtype=torch.float32,
    )


@pytest.mark.parametrize("vectorized", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", ROI_CASES)
def test_roi_align_matches_the_reference(kernels, case, dtype, layout, vectorized):
    shape, count, bins, *args = case
    if layout is torch.channels_last and vectorized and shape[1] % (16 // dtype.itemsize):
        vectorized = False
    g = torch.Generator().manual_seed(3)
    rois = torch.cat([random_rois(count, shape[0], shape[2] / args[0], shape[3] / args[0], g), edge_rois(*shape[2:])])
    x = torch.randn(shape, generator=g, dtype=torch.float64).to(dtype).contiguous(memory_format=layout)
    grad = torch.randn(len(rois), shape[1], *bins, generator=g, dtype=torch.float64).to(dtype)
    out = run_roi_align(kernels, 0, x, rois, grad.shape, shape, args, layout, vectorized)
    back = run_roi_align(kernels, 1, grad, rois, shape, shape, args, layout, vectorized)
    # Not float64: samples on the very edge of the map are in or out by the rounding of their coordinates.
    wide = torch.promote_types(dtype, torch.float32)
    like = x.to(wide).requires_grad_()
    with reference_mode():
        expected = ops.roi_align(like, rois, bins, *args)
        (expected_back,) = torch.autograd.grad(expected, like, grad.to(wide))
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(out.to(wide), expected.detach(), rtol=tolerance, atol=10 * tolerance)
    torch.testing.assert_close(back.to(wide), expected_back, rtol=tolerance, atol=20 * tolerance)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_roi_align_of_a_box_it_cannot_use_is_zero(kernels, layout):
    nan, inf = float("nan"), float("inf")
    rows = [[2, 0, 0, 4, 4], [-1, 0, 0, 4, 4], [nan, 0, 0, 4, 4], [1e30, 0, 0, 4, 4], [0, nan, 0, 4, 4]]
    rows += [[0, 0, nan, nan, 4], [0, inf, inf, inf, inf], [0, -inf, -inf, inf, inf]]
    rois = torch.tensor(rows)
    shape = (2, 4, 8, 8)
    for args in ((1.0, 2, True), (1.0, -1, True), (1.0, 2, False), (1.0, -1, False)):
        x = torch.ones(shape)
        out = run_roi_align(kernels, 0, x, rois, (len(rois), 4, 2, 2), shape, args, layout, True)
        back = run_roi_align(kernels, 1, torch.ones(len(rois), 4, 2, 2), rois, shape, shape, args, layout, True)
        assert (out == 0).all(), args
        assert (back == 0).all(), args


@pytest.mark.parametrize("layout", LAYOUTS)
def test_roi_align_reads_nothing_it_does_not_sample(kernels, layout):
    x = torch.full((1, 4, 20, 20), float("nan"))
    x[:, :, 2:12, 2:12] = 1
    rois = torch.tensor([[0, 3.0, 3.0, 10.0, 10.0]])
    for ratio in (-1, 1, 2, 9):
        out = run_roi_align(kernels, 0, x, rois, (1, 4, 3, 3), x.shape, (1.0, ratio, True), layout, True)
        torch.testing.assert_close(out, torch.ones_like(out))
    grad = torch.full((1, 4, 3, 3), float("inf"))
    back = run_roi_align(kernels, 1, grad, rois, x.shape, x.shape, (1.0, 2, True), layout, True)
    assert back[:, :, 12:].eq(0).all() and back[..., :2].eq(0).all()


def test_backward_takes_many_rois_in_order(kernels):
    shape, g = (1, 4, 9, 9), torch.Generator().manual_seed(0)
    rois = random_rois(600, 1, 9, 9, g)
    grad = torch.randn(600, 4, 2, 2, generator=g)
    results = [run_roi_align(kernels, 1, grad, rois, shape, shape, (1.0, 2, True), layout, True) for layout in LAYOUTS]
    exact = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    with reference_mode():
        (expected,) = torch.autograd.grad(ops.roi_align(exact, rois, 2, 1.0, 2, True), exact, grad.double())
    for result in results:
        torch.testing.assert_close(result.double(), expected, rtol=1e-4, atol=1e-4)
