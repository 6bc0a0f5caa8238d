"""The functions of emulated_rois.cpp, on tensors."""

import ctypes

import torch
from emulation import DTYPES, Guarded, pointer

MAX_LEVELS = 16


class RoiAlignArguments(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("images", "channels", "n_rois")),
        *((name, ctypes.c_int) for name in ("pooled_height", "pooled_width", "sampling_ratio", "aligned")),
        *((name, ctypes.c_int) for name in ("channels_last", "vectorized", "n_levels")),
        ("level_of", ctypes.c_void_p),
        ("maps", ctypes.c_void_p * MAX_LEVELS),
        ("heights", ctypes.c_int * MAX_LEVELS),
        ("widths", ctypes.c_int * MAX_LEVELS),
        ("scales", ctypes.c_double * MAX_LEVELS),
    ]


class RoiPoolArguments(ctypes.Structure):
    _fields_ = [
        ("sizes", ctypes.c_int64 * 4),
        ("n_rois", ctypes.c_int64),
        *((name, ctypes.c_int) for name in ("pooled_height", "pooled_width", "channels_last", "vectorized")),
        ("spatial_scale", ctypes.c_double),
    ]


def rows_for(rois, dtype):
    return rois.to(torch.float64 if dtype == torch.float64 else torch.float32).contiguous()


def _align(kernels, adjoint, pooled, maps, rois, levels, scales, args, layout, vectorized):
    ratio, aligned = args
    last = layout is torch.channels_last
    arguments = RoiAlignArguments(
        *(*maps[0].shape[:2], len(rois), *pooled.shape[2:], ratio, aligned, last, last and vectorized, len(maps)),
        None if levels is None else levels.data_ptr(),
        (ctypes.c_void_p * MAX_LEVELS)(*(x.data_ptr() for x in maps)),
        (ctypes.c_int * MAX_LEVELS)(*(x.size(2) for x in maps)),
        (ctypes.c_int * MAX_LEVELS)(*(x.size(3) for x in maps)),
        (ctypes.c_double * MAX_LEVELS)(*scales),
    )
    rows = rows_for(rois, pooled.dtype)
    kernels.emulated_roi_align(DTYPES[pooled.dtype], adjoint, pointer(pooled), pointer(rows), ctypes.byref(arguments))


def align(kernels, maps, rois, levels, scales, bins, args, layout, vectorized):
    """What is pooled from `maps`; without levels by the kernels for one map. `args` are sampling_ratio and aligned."""
    maps = [x.contiguous(memory_format=layout) for x in maps]
    out = Guarded((len(rois), maps[0].size(1), *bins), maps[0].dtype, layout)
    _align(kernels, 0, out.tensor, maps, rois, levels, scales, args, layout, vectorized)
    return out.checked()


def align_backward(kernels, grad, sizes, rois, levels, scales, args, layout, vectorized):
    """The gradients of maps of these sizes."""
    grad = grad.contiguous(memory_format=layout)
    outs = [Guarded(size, grad.dtype, layout) for size in sizes]
    _align(kernels, 1, grad, [out.tensor for out in outs], rois, levels, scales, args, layout, vectorized)
    return [out.checked() for out in outs]


def _pool(kernels, grad, x, rois, bins, scale, places, out, layout, vectorized):
    last = layout is torch.channels_last
    arguments = RoiPoolArguments(tuple(x.shape), len(rois), *bins, last, last and vectorized, scale)
    rows = rows_for(rois, x.dtype)
    pointers = [None if t is None else pointer(t) for t in (grad, x, rows, places, out)]
    kernels.emulated_roi_pool(DTYPES[x.dtype], *pointers, ctypes.byref(arguments))


def pool(kernels, x, rois, bins, scale, layout, vectorized):
    x = x.contiguous(memory_format=layout)
    out = Guarded((len(rois), x.size(1), *bins), x.dtype, layout)
    _pool(kernels, None, x, rois, bins, scale, None, out.tensor, layout, vectorized)
    return out.checked()


def pool_backward(kernels, grad, x, rois, scale, layout, vectorized):
    """The gradient, and ``[K, height, width, C]`` places as the kernels number them."""
    x = x.contiguous(memory_format=layout)
    grad = grad.permute(0, 2, 3, 1).contiguous()
    places, out = Guarded(grad.shape, torch.int32), Guarded(x.shape, x.dtype, layout)
    _pool(kernels, grad, x, rois, grad.shape[1:3], scale, places.tensor, out.tensor, layout, vectorized)
    return out.checked(), places.checked()
