"""More elements than 32 bits count: the last ones are computed like the first.

A tensor is many copies of a small one, so that what is right is known from the small one; where results are not one for
one, boxes lie in the last image of a map that is empty elsewhere.
"""

import pytest
import torch

from fastcnn import ops
from fastcnn.ops import _library

DEVICE, LIMIT = "cuda", 1 << 31
NEEDED = 40 << 30  # Bytes: input and result, their gradients, and what comparing them takes.
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device that torch can use"),
]
LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "NHWC"])
HALF = torch.bfloat16  # Gradients of weights add up all copies, too much for float16.


@pytest.fixture(autouse=True)
def _room():
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
        if torch.cuda.mem_get_info()[0] < NEEDED:
            pytest.skip(f"needs {NEEDED >> 30} GiB of free GPU memory")
    with _library.kernel_mode():
        yield


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).to(DEVICE, HALF)


def repeated(x, count, layout=torch.contiguous_format):
    """`count` copies of the images (or rows) of `x`, one after the other."""
    copies = x.expand(count, *x.shape).flatten(0, 1)
    return copies.contiguous(memory_format=layout) if x.dim() == 4 else copies.contiguous()


def assert_repeats(large, small, what):
    """In place, to need no more memory: `large` is lost."""
    apart = large.view(-1, *small.shape).sub_(small).abs_().max().item()
    assert apart <= 0.01 * small.abs().max().item(), f"{what}: copies differ by {apart}"


def check_copies(function, per_image, shared=(), layout=torch.contiguous_format, index=()):
    """`function(*per_image, *index, *shared)` over many copies of the images is as many copies of its result.

    Gradients of the images are copies too; those of what is shared add up.
    """
    count = LIMIT // per_image[0].numel() + 1
    runs = []
    for n in (1, count):
        images = [repeated(x, n, layout).requires_grad_() for x in per_image]
        indices = [repeated(x, n) for x in index]
        weights = [w.detach().clone().requires_grad_() for w in shared]
        out = function(*images, *indices, *weights)
        cotangent = repeated(random(*runs[0][0].shape) if runs else random(*out.shape), n, layout)
        grads = torch.autograd.grad(out, [*images, *weights], cotangent.reshape(out.shape))
        runs.append((out.detach(), *grads))
        del images, indices, weights, out, grads, cotangent
    assert runs[1][1].numel() > LIMIT
    small, large = runs
    for i, (a, b) in enumerate(zip(small, large, strict=True)):
        if i <= len(per_image):
            assert_repeats(b, a, f"result {i}")
        else:
            torch.testing.assert_close(
                b.float(), a.float() * count, rtol=0.02, atol=0.02 * count * a.abs().max().item()
            )


@LAYOUTS
@pytest.mark.parametrize(
    "function",
    [
        ops.hardswish,
        ops.hardsigmoid,
        lambda x: ops.channel_shuffle(x, 4),
        lambda x: ops.local_response_norm(x, 5, 1e-2, 0.75, 1.0),
    ],
    ids=["hardswish", "hardsigmoid", "channel_shuffle", "local_response_norm"],
)
def test_maps(function, layout):
    check_copies(function, [random(2, 64, 96, 80)], layout=layout)


@LAYOUTS
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_conv2d(stride, layout):
    def function(x, weight, bias):
        return ops.depthwise_conv2d(x, weight, bias, stride=stride, padding=1)

    check_copies(function, [random(2, 64, 96, 80)], [random(64, 1, 3, 3), random(64)], layout)


@LAYOUTS
@pytest.mark.parametrize("size", [1, 3])
def test_grouped_conv2d_shuffle(size, layout):
    def function(x, weight):
        return ops.grouped_conv2d_shuffle(x, weight, None, padding=size // 2, groups=4)

    check_copies(function, [random(2, 64, 96, 80)], [random(64, 16, size, size) / (4 * size)], layout)


@LAYOUTS
def test_squeeze_excite(layout):
    weights = [random(16, 64) / 8, random(16), random(64, 16) / 4, random(64)]
    check_copies(ops.squeeze_excite, [random(2, 64, 96, 80)], weights, layout)


def test_sigmoid_focal_loss():
    check_copies(ops.sigmoid_focal_loss, [random(40_000, 80)], index=[(random(40_000, 80) > 1).to(HALF)])
    check_copies(ops.sigmoid_focal_loss, [random(40_000, 80)], index=[torch.arange(40_000, device=DEVICE) % 81 - 1])


@pytest.mark.parametrize("shape", [(30_000, 91), (2, 19, 200, 256)], ids=["rows", "maps"])
def test_softmax_focal_loss(shape):
    targets = (random(shape[0], *shape[2:]).float().abs() * 7).long() % shape[1]
    check_copies(ops.softmax_focal_loss, [random(*shape)], index=[targets])


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_sums(reduction):
    x, y = random(40_000, 80), (random(40_000, 80) > 1).to(HALF)
    count = LIMIT // x.numel() + 1
    small = ops.sigmoid_focal_loss(x.float(), y.float(), reduction=reduction)
    large = ops.sigmoid_focal_loss(repeated(x, count), repeated(y, count), reduction=reduction)
    assert large.item() == pytest.approx(small.item() * (count if reduction == "sum" else 1), rel=0.01)


POOLS = {
    "roi_align": lambda x, rois: ops.roi_align(x, rois, 7, 1.0, 2),
    "roi_pool": lambda x, rois: ops.roi_pool(x, rois, 7, 1.0),
    "multi_scale_roi_align": lambda x, rois: ops.multi_scale_roi_align([x], rois, 7, [1.0], 2),
}


@LAYOUTS
@pytest.mark.parametrize("name", POOLS)
def test_boxes_of_the_last_image(name, layout):
    side = 512 if LIMIT > 1 << 30 else 64
    images = LIMIT // (256 * side * side) + 1
    x = torch.zeros(images, 256, side, side, device=DEVICE, dtype=HALF).contiguous(memory_format=layout)
    x[-1] = 3
    x.requires_grad_()
    box = [10.0, 10, side - 12, side - 12]
    out = POOLS[name](x, torch.tensor([[images - 1, *box], [0, *box]], device=DEVICE))
    assert (out[0] == 3).all() and (out[1] == 0).all()
    (grad,) = torch.autograd.grad(out, x, torch.ones_like(out))
    # Every bin hands on what it was given, all of it to pixels of its own image.
    for image, pooled in ((-1, 1), (0, 1), (1, 0), (images // 2, 0)):
        assert grad[image].float().sum().item() == pytest.approx(pooled * 256 * 49, rel=0.01)


@LAYOUTS
@pytest.mark.parametrize("name", POOLS)
def test_many_boxes(name, layout):
    """The result is the tensor that is large."""
    x = torch.ones(1, 1024, 8, 8, device=DEVICE, dtype=HALF).contiguous(memory_format=layout)
    count = LIMIT // (1024 * 49) + 1
    out = POOLS[name](x, torch.tensor([[0, 1.0, 1, 6, 6]], device=DEVICE).repeat(count, 1))
    assert out.numel() > LIMIT and (out == 1).all()
