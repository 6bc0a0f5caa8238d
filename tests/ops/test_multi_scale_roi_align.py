"""What the contract suite does not say of RoI align over a pyramid: the levels by hand, zeros, layouts, bad input."""

import copy
import math
from collections import OrderedDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcnn import _backend, nn, ops, reference_mode
from fastcnn.ops import _library
from fastcnn.ops.multi_scale_roi_align import levels_of
from fastcnn.testing.spec import random_rois

MODES = [_library.kernel_mode, reference_mode]
SCALES = [1 / 4, 1 / 8, 1 / 16, 1 / 32]


def squares(*sides):
    return torch.tensor([[0.0, 0, 0, side, side] for side in sides])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_levels_of_the_paper(dtype):
    """224 pixels are level 4, half as many level 3; levels 2 to 5 hold those beyond."""
    rois = squares(0, 1, 56, 111, 112, 223, 224, 447, 448, 2000).to(dtype)
    assert levels_of(rois, SCALES, 224, 4).tolist()[:7] == [0, 0, 0, 0, 1, 1, 2]
    assert levels_of(squares(448, 2000), SCALES, 224, 4).tolist() == [3, 3]


def test_levels_of_other_pyramids():
    assert levels_of(squares(15, 16, 31, 32), [1 / 2, 1 / 4], 32, 2).tolist() == [0, 0, 0, 1]
    assert levels_of(squares(1, 1e4), [1 / 4], 224, 4).tolist() == [0, 0]


def test_areas_that_are_none_have_no_level():
    rois = torch.tensor(
        [[0, 5.0, 0, 0, 5], [0, math.nan, 0, 5, 5], [0, 5, 5, 0, 0], [0, 3, 3, 3, 9], [0, 0, 0, math.inf, 5]]
    )
    assert levels_of(rois, SCALES, 224, 4).tolist() == [-1, -1, 0, 0, 3]


def pyramid(n=2, channels=5, side=32, levels=3, layout=torch.contiguous_format):
    g = torch.Generator().manual_seed(side)
    maps = [torch.randn(n, channels, side >> i, side >> i, generator=g) for i in range(levels)]
    return [m.contiguous(memory_format=layout).requires_grad_() for m in maps]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("mode", MODES)
def test_each_box_is_pooled_from_its_level(mode, layout):
    maps, scales = pyramid(layout=layout), SCALES[:3]
    rois = random_rois(25, 2, 128, 128, torch.Generator().manual_seed(1))
    args = (3, scales, 2, 16, 3, True)
    with mode():
        out = ops.multi_scale_roi_align(maps, rois, *args)
        grads = torch.autograd.grad(out.square().sum(), maps)
    wanted = torch.zeros_like(out)
    levels = levels_of(rois, scales, 16, 3)
    assert levels.unique().tolist() == [0, 1, 2]
    for i, x in enumerate(maps):
        wanted[levels == i] = ops.roi_align(x, rois[levels == i], 3, scales[i], 2, True)
    torch.testing.assert_close(out, wanted, check_stride=False)
    exact = torch.autograd.grad(wanted.square().sum(), maps)
    for grad, expected in zip(grads, exact, strict=True):
        torch.testing.assert_close(grad, expected, check_stride=False)
    kept = (out, *grads) if mode is _library.kernel_mode else (out,)
    assert all(t.is_contiguous(memory_format=layout) for t in kept)


@pytest.mark.parametrize("mode", MODES)
def test_maps_without_boxes_get_zeros(mode):
    maps = pyramid()
    with mode():
        ops.multi_scale_roi_align(maps, squares(20), 2, SCALES[:3]).sum().backward()
    assert maps[0].grad.abs().sum() > 0
    assert all(torch.equal(m.grad, torch.zeros_like(m)) for m in maps[1:])


@pytest.mark.parametrize("mode", MODES)
def test_boxes_of_a_level_left_out_give_zeros(mode):
    maps = [torch.ones(1, 3, 32, 32), torch.ones(1, 3, 8, 8)]
    rois = torch.tensor([[0, 0, 0, 50.0, 50], [0, 0, 0, 120, 120], [0, 0, 0, 1000, 1000], [0, 9, 9, 5, 20]])
    with mode():
        out = ops.multi_scale_roi_align(maps, rois, 2, [1 / 4, 1 / 16], 2)
    assert out.amax((1, 2, 3)).tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("mode", MODES)
def test_mixed_dtypes_and_layouts(mode):
    maps = [m.detach() for m in pyramid()]
    rois = random_rois(9, 2, 128, 128, torch.Generator().manual_seed(1))
    with mode():
        usual = ops.multi_scale_roi_align(maps, rois, 2, SCALES[:3])
        mixed = [maps[0], maps[1].double(), maps[2].contiguous(memory_format=torch.channels_last)]
        assert torch.equal(ops.multi_scale_roi_align(mixed, rois, 2, SCALES[:3]), usual)
        listed = ops.multi_scale_roi_align(tuple(maps), list_of(rois, 2), 2, SCALES[:3])
        assert torch.equal(listed, usual[rois[:, 0].argsort(stable=True)])


def list_of(rois, images):
    return [rois[rois[:, 0] == i, 1:] for i in range(images)]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(1, 3), st.integers(0, 9), st.integers(1, 3), st.sampled_from([-1, 2]), st.booleans(), st.integers(0, 99)
)
def test_random_pyramids_agree_with_the_reference(levels, count, size, ratio, aligned, seed):
    maps = [m.detach() for m in pyramid(channels=3, side=20, levels=levels)]
    rois = random_rois(count, 2, 90, 100, torch.Generator().manual_seed(seed))
    args = (maps, rois, size, SCALES[:levels], ratio, 40, 3, aligned)
    with reference_mode():
        expected = ops.multi_scale_roi_align(*args)
    torch.testing.assert_close(ops.multi_scale_roi_align(*args), expected)


def test_module():
    maps = OrderedDict((name, m) for name, m in zip("abcd", pyramid(levels=4), strict=True))
    boxes = list_of(random_rois(9, 2, 128, 128, torch.Generator().manual_seed(1)), 2)
    module = copy.deepcopy(nn.MultiScaleRoIAlign(["a", "b", "c"], 3, 2, canonical_scale=32, canonical_level=3))
    out, used = module(maps, boxes, [(128, 120), (100, 128)]), list(maps.values())[:3]
    assert torch.equal(out, ops.multi_scale_roi_align(used, boxes, 3, SCALES[:3], 2, 32, 3))
    # Of another size another scale.
    half = module(maps, boxes, [(64, 64)])
    assert torch.equal(
        half, ops.multi_scale_roi_align(list(maps.values())[:3], boxes, 3, [1 / 2, *SCALES[:2]], 2, 32, 3)
    )
    out.sum().backward()
    assert all(m.grad is not None for m in list(maps.values())[:3]) and maps["d"].grad is None
    wanted = "MultiScaleRoIAlign(featmap_names=['a', 'b', 'c'], output_size=(3, 3), sampling_ratio=2)"
    assert repr(module) == wanted and not module.state_dict()
    with pytest.raises(ValueError, match="image_shapes"):
        module(maps, boxes, [])


@pytest.mark.skipif(not _backend.cpu.available, reason="the compiled kernels' own checks")
def test_the_kernel_checks_what_it_is_called_with():
    op, backward = torch.ops.fastcnn.multi_scale_roi_align, torch.ops.fastcnn.multi_scale_roi_align_backward
    maps, rois = [m.detach() for m in pyramid(levels=2)], squares(9, 9)
    level, scales, rest = torch.zeros(2, dtype=torch.long), SCALES[:2], (2, 2, 2, False)
    bad = [
        ([], rois, level, []),
        (maps, rois, level, scales[:1]),
        (maps, rois, level[:1], scales),
        (maps, rois, level.int(), scales),
        (maps, rois[:, :4], level, scales),
        ([maps[0], maps[1][:1]], rois, level, scales),
        ([maps[0], maps[1].double()], rois, level, scales),
        ([maps[0], maps[1][0]], rois, level, scales),
    ]
    for args in bad:
        with pytest.raises(RuntimeError):
            op(*args, *rest)
    grad, sizes = torch.zeros(2, 5, 2, 2), [2, 5, 32, 32, 16, 16]
    huge = [2, 5, 32, 2**62, 16, 16]
    for args in [
        (grad[:1], sizes),
        (grad[:, :4], sizes),
        (grad, sizes[:4]),
        (grad, huge),
        (grad, [2, 5, 0, 0, 16, 16]),
    ]:
        with pytest.raises(RuntimeError):
            backward(args[0], rois, level, scales, 2, False, args[1], False)


MAPS, ROIS = [torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 4, 4)], squares(3)
BAD = {
    "a tensor": ((MAPS[0], ROIS, 2, SCALES[:2]), {}, TypeError, "features to be a list of tensors, got Tensor"),
    "no maps": (([], ROIS, 2, []), {}, ValueError, "a scale for each feature map, got 0 for 0"),
    "scales": ((MAPS, ROIS, 2, SCALES), {}, ValueError, "a scale for each feature map, got 4 for 2"),
    "scale 0": ((MAPS, ROIS, 2, [1, 0]), {}, ValueError, r"positive scales, got \[1.0, 0.0\]"),
    "scale type": ((MAPS, ROIS, 2, [1, "1"]), {}, TypeError, r"scales\[1\] to be a number, got str '1'"),
    "channels": (
        ([MAPS[0], MAPS[1][:, :2]], ROIS, 2, SCALES[:2]),
        {},
        ValueError,
        r"one N and C, got shapes .*\(1, 2, 4",
    ),
    "rank": (([MAPS[0], MAPS[1][0]], ROIS, 2, SCALES[:2]), {}, ValueError, r"one N and C, got shapes .*\(3, 4, 4\)"),
    "int map": (([MAPS[0], MAPS[1].int()], ROIS, 2, SCALES[:2]), {}, TypeError, r"features\[1\] of a floating-point"),
    "devices": (([MAPS[0], MAPS[1].to("meta")], ROIS, 2, SCALES[:2]), {}, ValueError, r"features\[1\] on meta"),
    "boxes": ((MAPS, ROIS[:, 1:], 2, SCALES[:2]), {}, ValueError, r"shape \[K, 5\] .* of shape \[1, 4\]"),
    "index": ((MAPS, ROIS + 1, 2, SCALES[:2]), {}, ValueError, "box 0 has batch index 1, but the input holds 1"),
    "size": ((MAPS, ROIS, 0, SCALES[:2]), {}, ValueError, "positive output_size, got 0"),
    "empty": (([MAPS[0], MAPS[1][..., :0]], ROIS, 2, SCALES[:2]), {}, ValueError, "maps with pixels"),
    "level": ((MAPS, ROIS, 2, SCALES[:2]), {"canonical_level": 4.5}, TypeError, "canonical_level to be an int"),
    "canonical": ((MAPS, ROIS, 2, SCALES[:2]), {"canonical_scale": "2"}, TypeError, "canonical_scale to be a number"),
    "aligned": ((MAPS, ROIS, 2, SCALES[:2]), {"aligned": 1}, TypeError, "aligned to be a bool, got int 1"),
    "ratio": ((MAPS, ROIS, 2, SCALES[:2]), {"sampling_ratio": 2**21}, ValueError, r"at most 2\*\*20, got 2097152"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", BAD)
def test_bad_input(name, mode):
    args, kwargs, error, message = BAD[name]
    with mode(), pytest.raises(error, match=f"multi_scale_roi_align: .*{message}") as caught:
        ops.multi_scale_roi_align(*args, **kwargs)
    assert "\n" not in str(caught.value)
