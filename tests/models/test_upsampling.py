"""Ways to more pixels, held against the lectures' worked examples, PyTorch and one another."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastcnn.nn import (
    BilinearConvTranspose2d,
    ResizeConv2d,
    SubPixelConv2d,
    bed_of_nails,
    bilinear_kernel,
    conv_output_size,
    conv_transpose_output_padding,
    conv_transpose_output_size,
    init_bilinear,
    init_icnr,
)

SMALL = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]], dtype=torch.float64)


def draw(*shape):
    return torch.randn(shape, dtype=torch.float64)


def test_nearest_neighbours():
    wanted = [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    assert nn.UpsamplingNearest2d(scale_factor=2)(SMALL)[0, 0].tolist() == wanted


def test_bed_of_nails():
    wanted = [[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]]
    assert bed_of_nails(SMALL)[0, 0].tolist() == wanted
    x = draw(2, 3, 4, 5).requires_grad_()
    spread = bed_of_nails(x, 3)
    assert spread.shape == (2, 3, 12, 15) and torch.equal(spread[..., ::3, ::3], x)
    assert spread.count_nonzero() == x.numel()
    assert torch.autograd.gradcheck(bed_of_nails, x)
    with pytest.raises(ValueError, match=r"takes \(\.\.\., H, W\) and a stride of 1 or more, got \(4,\), 2"):
        bed_of_nails(torch.zeros(4))


def test_max_unpooling_remembers_where():
    x = torch.tensor([[[[1.0, 2, 6, 3], [3, 5, 2, 1], [1, 2, 2, 1], [7, 3, 4, 8]]]])
    pooled, indices = nn.MaxPool2d(2, return_indices=True)(x)
    assert pooled[0, 0].tolist() == [[5, 6], [7, 8]]
    wanted = [[0, 0, 2, 0], [0, 1, 0, 0], [0, 0, 0, 0], [3, 0, 0, 4]]
    assert nn.MaxUnpool2d(2)(SMALL.float(), indices)[0, 0].tolist() == wanted


def test_sizes_of_the_lectures():
    assert (conv_output_size(4, 3, 1, 1), conv_output_size(4, 3, 2, 1)) == (4, 2)
    assert conv_transpose_output_size(2, 3, 2, 1) == 3
    assert conv_transpose_output_padding(2, 4, 3, 2, 1) == 1
    assert conv_transpose_output_size(2, 3, 2, 1, output_padding=1) == 4
    assert conv_transpose_output_size(2, 3, 2) == 5


def test_sizes_are_those_of_the_layers():
    for size, kernel, stride, padding, dilation in itertools.product((5, 8), (1, 2, 3), (1, 2, 3), (0, 1), (1, 2)):
        options = (stride, padding)
        conv = nn.Conv1d(1, 1, kernel, *options, dilation, device="meta")
        found = conv_output_size(size, kernel, *options, dilation)
        assert conv(torch.empty(1, 1, size, device="meta")).shape[-1] == found
        extra = conv_transpose_output_padding(found, size, kernel, *options, dilation)
        up = nn.ConvTranspose1d(1, 1, kernel, *options, extra, dilation=dilation, device="meta")
        assert up(torch.empty(1, 1, found, device="meta")).shape[-1] == size
        assert conv_transpose_output_size(found, kernel, *options, extra, dilation) == size


def test_sizes_that_are_none():
    with pytest.raises(ValueError, match=r"kernel of 5 \(dilation 1, padding 0\) does not fit 4 pixels"):
        conv_output_size(4, 5)
    with pytest.raises(ValueError, match="makes 3 to 4 pixels of 2, not 5"):
        conv_transpose_output_padding(2, 5, 3, 2, 1)
    with pytest.raises(ValueError, match="output_padding must be below stride 2 or dilation 1, got 2"):
        conv_transpose_output_size(2, 3, 2, 1, 2)
    with pytest.raises(ValueError, match="padding 2 leaves nothing of 1 pixels and a kernel of 3"):
        conv_transpose_output_size(1, 3, 1, 2)


def test_a_transposed_convolution_adds_where_copies_overlap():
    """Stride 2, three weights: the copies of two inputs overlap in one output."""
    a, b = 2.0, 5.0
    x, y, z = 1.0, 10.0, 100.0
    weight = torch.tensor([[[x, y, z]]], dtype=torch.float64)
    found = F.conv_transpose1d(torch.tensor([[[a, b]]], dtype=torch.float64), weight, stride=2)
    assert found[0, 0].tolist() == [a * x, a * y, a * z + b * x, b * y, b * z]


def test_a_transposed_convolution_is_the_gradient_of_the_convolution():
    weight, above = draw(3, 2, 3, 3), draw(1, 3, 2, 2)
    image = draw(1, 2, 4, 4).requires_grad_()
    (wanted,) = torch.autograd.grad(F.conv2d(image, weight, stride=2, padding=1), image, above)
    found = F.conv_transpose2d(above, weight, stride=2, padding=1, output_padding=1)
    added = torch.zeros(1, 2, 6, 6, dtype=torch.float64)
    for row, column in itertools.product(range(2), range(2)):
        copies = torch.einsum("c,cdij->dij", above[0, :, row, column], weight)
        added[0, :, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3] += copies
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(added[..., 1:5, 1:5], wanted)


def test_bilinear_kernels():
    assert bilinear_kernel(4)[0].tolist() == [0.0625, 0.1875, 0.1875, 0.0625]
    assert bilinear_kernel(3, dtype=torch.float64).tolist() == [[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]]
    with pytest.raises(ValueError, match="kernel_size must be at least 1, got 0"):
        bilinear_kernel(0)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
def test_bilinear_transposed_convolution_interpolates(factor):
    up = BilinearConvTranspose2d(3, factor, dtype=torch.float64)
    x = draw(2, 3, 5, 4)
    wanted = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    found = up(x)
    assert found.shape == wanted.shape
    inner = (..., slice(factor, -factor), slice(factor, -factor))
    torch.testing.assert_close(found[inner], wanted[inner])
    # With the border repeated, everywhere.
    torch.testing.assert_close(up(F.pad(x, (1, 1, 1, 1), mode="replicate"))[inner], wanted)


@pytest.mark.parametrize("learnable", [True, False])
@pytest.mark.parametrize("factor", [2, 8, 9, 16])
def test_gradients_of_bilinear_convolutions_are_those_of_transposed_ones(factor, learnable):
    up = BilinearConvTranspose2d(3, factor, learnable, dtype=torch.float64)
    nn.init.normal_(up.weight)
    x = draw(2, 3, 4, 5).requires_grad_()
    inputs = (x, up.weight) if learnable else (x,)
    found, wanted = up(x), nn.ConvTranspose2d.forward(up, x)
    torch.testing.assert_close(found, wanted)
    with torch.no_grad():
        torch.testing.assert_close(up(x), wanted)
    grad = draw(*wanted.shape)
    for each, other in zip(*(torch.autograd.grad(y, inputs, grad) for y in (found, wanted)), strict=True):
        torch.testing.assert_close(each, other)


def test_bilinear_convolutions_that_learn_are_as_pytorchs():
    up, x = BilinearConvTranspose2d(3, 8), draw(2, 3, 4, 5).float()
    for each in (x, x.contiguous(memory_format=torch.channels_last), x[:, :, ::2]):
        found, wanted = up(each), nn.ConvTranspose2d.forward(up, each)
        assert found.is_contiguous() == wanted.is_contiguous()
        torch.testing.assert_close(found, wanted)
    empty = x[:0].requires_grad_()
    up(empty).sum().backward()
    assert empty.grad.shape == empty.shape
    with pytest.raises(RuntimeError, match="to have 3 channels, but got 4 channels"):
        up(torch.zeros(1, 4, 5, 5))
    torch.testing.assert_close(torch.jit.trace(up, x)(x), up(x))
    compiled = torch.compile(up, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), up(x))


def test_bilinear_convolutions_learn_in_bfloat16():
    up, x = BilinearConvTranspose2d(3, 8), draw(2, 3, 4, 5).float()
    with torch.autocast("cpu", torch.bfloat16):
        found = up(x)
    found.float().square().sum().backward()
    assert found.dtype == torch.bfloat16
    gradient, up.weight.grad = up.weight.grad, None
    up(x).square().sum().backward()
    torch.testing.assert_close(gradient, up.weight.grad, rtol=0.05, atol=0.1)


def test_bilinear_convolutions_are_learned_or_not():
    assert BilinearConvTranspose2d(2, 2).weight.requires_grad
    assert not list(filter(lambda p: p.requires_grad, BilinearConvTranspose2d(2, 2, learnable=False).parameters()))
    x = draw(1, 3, 4, 4)
    dense = nn.ConvTranspose2d(3, 3, 4, 2, 1, dtype=torch.float64)
    init_bilinear(dense)
    torch.testing.assert_close(dense(x), BilinearConvTranspose2d(3, 2, dtype=torch.float64)(x))
    with pytest.raises(ValueError, match=r"got \(4, 2, 4, 4\) in 1 groups"):
        init_bilinear(nn.ConvTranspose2d(4, 2, 4))
    with pytest.raises(ValueError, match="scale_factor must be at least 1, got 0"):
        BilinearConvTranspose2d(1, 0)


@pytest.mark.parametrize("factor", [2, 3])
def test_sub_pixel_convolution_is_a_transposed_one_rearranged(factor):
    """Shi et al., 2016: tap k of the one has the weights of the square's pixel and shift that k falls to."""
    channels, outputs, size = 3, 2, 3
    up = SubPixelConv2d(channels, outputs, factor, size, dtype=torch.float64)
    nn.init.normal_(up[0].weight)
    weight = up[0].weight.detach().reshape(outputs, factor, factor, channels, size, size)
    wide = weight.flip(-2, -1).permute(3, 0, 4, 1, 5, 2).reshape(channels, outputs, size * factor, size * factor)
    x = draw(2, channels, 4, 5)
    found = F.conv_transpose2d(x, wide, stride=factor, padding=factor * (size // 2))
    torch.testing.assert_close(up(x), found)


def test_icnr_begins_as_nearest_neighbours():
    up = SubPixelConv2d(3, 2, 2)
    found = up(torch.randn(1, 3, 5, 5))
    assert torch.equal(found, nn.UpsamplingNearest2d(scale_factor=2)(found[..., ::2, ::2]))
    assert found.std() > 0
    with pytest.raises(ValueError, match="a weight for factor 3 has a multiple of 9 outputs, got 8"):
        init_icnr(up[0].weight, 3)


def test_resize_convolution():
    up = ResizeConv2d(3, 2, 2, dtype=torch.float64)
    x = draw(1, 3, 4, 5)
    wanted = F.conv2d(F.interpolate(x, scale_factor=2), up[1].weight, up[1].bias, padding=1)
    torch.testing.assert_close(up(x), wanted)


@pytest.mark.parametrize("layer", [SubPixelConv2d, ResizeConv2d])
def test_layers_build_on_meta(layer):
    found = layer(3, 2, 3, device="meta", dtype=torch.bfloat16)(
        torch.empty(1, 3, 4, 5, device="meta", dtype=torch.bfloat16)
    )
    assert found.shape == (1, 2, 12, 15) and found.dtype == torch.bfloat16
