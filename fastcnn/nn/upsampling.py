"""Ways to more pixels: bed of nails, bilinear kernels, transposed and sub-pixel convolutions, and their sizes.

What PyTorch has is not here: nearest neighbours are :class:`torch.nn.UpsamplingNearest2d`, max unpooling with
remembered indices is :class:`torch.nn.MaxUnpool2d` after ``MaxPool2d(..., return_indices=True)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._prims_common import suggest_memory_format

from fastcnn.nn.fused import runs_as_told


def conv_output_size(size: int, kernel_size: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """Pixels along an axis that a convolution makes of ``size``.

    Source: Dumoulin and Visin, A Guide to Convolution Arithmetic for Deep Learning, 2016, relationship 6.

    Raises:
        ValueError: no pixel would be left.
    """
    left = size + 2 * padding - dilation * (kernel_size - 1) - 1
    if left < 0:
        raise ValueError(
            f"a kernel of {kernel_size} (dilation {dilation}, padding {padding}) does not fit {size} pixels"
        )
    return left // stride + 1


def conv_transpose_output_size(
    size: int, kernel_size: int, stride: int = 1, padding: int = 0, output_padding: int = 0, dilation: int = 1
) -> int:
    """Pixels along an axis that a transposed convolution makes of ``size``.

    Source: Dumoulin and Visin, 2016, relationship 14.

    Raises:
        ValueError: no pixel would be left, or ``output_padding`` is not below the stride or the dilation.
    """
    if not 0 <= output_padding < max(stride, dilation):
        raise ValueError(f"output_padding must be below stride {stride} or dilation {dilation}, got {output_padding}")
    result = (size - 1) * stride - 2 * padding + dilation * (kernel_size - 1) + output_padding + 1
    if result < 1:
        raise ValueError(f"padding {padding} leaves nothing of {size} pixels and a kernel of {kernel_size}")
    return result


def conv_transpose_output_padding(
    size: int, output_size: int, kernel_size: int, stride: int = 1, padding: int = 0, dilation: int = 1
) -> int:
    """The ``output_padding`` that makes ``output_size`` pixels of ``size``; a strided convolution undoes several sizes.

    Raises:
        ValueError: none does.
    """
    least = conv_transpose_output_size(size, kernel_size, stride, padding, 0, dilation)
    most = least + max(stride, dilation) - 1
    if not least <= output_size <= most:
        raise ValueError(f"a transposed convolution makes {least} to {most} pixels of {size}, not {output_size}")
    return output_size - least


def bed_of_nails(input: Tensor, stride: int = 2) -> Tensor:
    """(..., H, W) to (..., H * stride, W * stride): each pixel in the upper left of its square, zeros elsewhere.

    Deterministic. Source: max unpooling as of Zeiler et al., ICCV 2011, without the remembered places.

    Raises:
        ValueError: fewer than two dimensions, or a ``stride`` below 1.
    """
    if input.dim() < 2 or stride < 1:
        raise ValueError(
            f"bed_of_nails takes (..., H, W) and a stride of 1 or more, got {tuple(input.shape)}, {stride}"
        )
    height, width = input.shape[-2:]
    spread = F.pad(input[..., :, None, :, None], (0, stride - 1, 0, 0, 0, stride - 1))
    return spread.reshape(*input.shape[:-2], height * stride, width * stride)


def bilinear_kernel(kernel_size: int, *, device: Any = None, dtype: torch.dtype | None = None) -> Tensor:
    """(kernel_size, kernel_size): bilinear weights around the middle.

    As the weight of a transposed convolution of stride ``(kernel_size + 1) // 2`` it interpolates bilinearly. Source:
    Long et al., Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, section 3.3, as the authors' code.

    Raises:
        ValueError: a ``kernel_size`` below 1.
    """
    if kernel_size < 1:
        raise ValueError(f"kernel_size must be at least 1, got {kernel_size}")
    factor = (kernel_size + 1) // 2
    distance = torch.arange(kernel_size, device=device, dtype=torch.float64) - (kernel_size - 1) / 2
    tent = 1 - distance.abs() / factor
    return torch.outer(tent, tent).to(torch.get_default_dtype() if dtype is None else dtype)


@torch.no_grad()
def init_bilinear(conv: nn.ConvTranspose2d) -> None:
    """Makes a transposed convolution interpolate each channel by itself: :func:`bilinear_kernel`, no bias.

    Deterministic. In place; the convolution keeps its gradients.

    Raises:
        ValueError: a kernel that is not square, or other channels out than in, or groups other than 1 or the channels.
    """
    inputs, outputs, groups = conv.in_channels, conv.out_channels, conv.groups
    height, width = conv.kernel_size
    if inputs != outputs or groups not in (1, inputs) or height != width:
        raise ValueError(
            f"init_bilinear takes a square kernel, as many channels out as in and 1 or as many groups, "
            f"got {tuple(conv.weight.shape)} in {groups} groups"
        )
    conv.weight.zero_()
    index = torch.arange(inputs, device=conv.weight.device)
    conv.weight[index, 0 if groups > 1 else index] = bilinear_kernel(height).to(conv.weight)
    if conv.bias is not None:
        conv.bias.zero_()


class BilinearConvTranspose2d(nn.ConvTranspose2d):
    """A depthwise transposed convolution that begins as bilinear interpolation: (N, C, H, W) to (N, C, f * H, f * W).

    Except at the border, where it takes zeros beyond the image, it is ``F.interpolate(mode="bilinear",
    align_corners=False)``. Its one parameter, ``weight``, is learned unless ``learnable`` is False. It is PyTorch's
    transposed convolution; to learn on a CPU by a factor of 8 or more, a matrix product for each channel, whose
    gradients are faster. Deterministic on a CPU. Source: Long et al., CVPR 2015, section 3.3.

    Raises:
        ValueError: a ``scale_factor`` below 1.
    """

    def __init__(
        self,
        channels: int,
        scale_factor: int,
        learnable: bool = True,
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if scale_factor < 1:
            raise ValueError(f"scale_factor must be at least 1, got {scale_factor}")
        kernel_size = 2 * scale_factor - scale_factor % 2
        options: dict[str, Any] = {"padding": scale_factor // 2, "groups": channels, "bias": False}
        super().__init__(channels, channels, kernel_size, scale_factor, **options, device=device, dtype=dtype)
        self.weight.requires_grad_(learnable)

    def reset_parameters(self) -> None:
        init_bilinear(self)

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        learns = torch.is_grad_enabled() and (input.requires_grad or self.weight.requires_grad)
        fits = input.device.type == "cpu" and input.dim() == 4 and input.size(1) == self.in_channels
        if self.stride[0] < 8 or not (learns and fits and runs_as_told()) or output_size is not None:
            return super().forward(input, output_size)
        factor = self.stride[0]
        images, channels, height, width = input.shape
        # A square of factor x factor pixels takes the pixel that it comes from and the eight around it; these, which
        # of a kernel of twice the factor reach half of it, as by a kernel of thrice the factor with zeros.
        before = factor - factor // 2
        after = 3 * factor - before - self.kernel_size[0]
        kernel = F.pad(self.weight, (before, after, before, after)).view(channels, 3, factor, 3, factor).flip(1, 3)
        near = F.pad(input, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)
        squares = torch.bmm(
            near.transpose(0, 1).reshape(channels, images * height * width, 9),
            kernel.transpose(2, 3).reshape(channels, 9, factor**2),
        ).view(channels, images, height, width, factor, factor)
        size = images, height * factor, width * factor, channels
        if suggest_memory_format(input) == torch.channels_last:
            return squares.permute(1, 2, 4, 3, 5, 0).reshape(size).permute(0, 3, 1, 2)
        return squares.permute(1, 0, 2, 4, 3, 5).reshape(images, channels, *size[1:3])


@torch.no_grad()
def init_icnr(weight: Tensor, upscale_factor: int, init: Callable[[Tensor], Any] = nn.init.kaiming_normal_) -> Tensor:
    """Initialises, in place, the weight (C * upscale_factor ** 2, ...) of a convolution before a ``PixelShuffle``.

    The channels that become one square get the same weights, drawn by ``init`` for C outputs: what comes out first is
    nearest-neighbour upsampling, without a checkerboard. Source: Aitken et al., Checkerboard Artifact Free Sub-Pixel
    Convolution, 2017, section 3.

    Raises:
        ValueError: channels that are no multiple of ``upscale_factor ** 2``.
    """
    square = upscale_factor**2
    if upscale_factor < 1 or weight.shape[0] % square:
        raise ValueError(
            f"a weight for factor {upscale_factor} has a multiple of {square} outputs, got {weight.shape[0]}"
        )
    small = torch.empty_like(weight[::square])
    init(small)
    return weight.copy_(small.repeat_interleave(square, 0))


class SubPixelConv2d(nn.Sequential):
    """A convolution to ``upscale_factor ** 2`` times the channels (child 0), then :class:`torch.nn.PixelShuffle`.

    (N, in_channels, H, W) to (N, out_channels, H * upscale_factor, W * upscale_factor); ``kernel_size`` is odd. The
    weight begins as :func:`init_icnr`'s, the bias as 0. Deterministic as the convolution. Source: Shi et al., Real-Time
    Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network, CVPR 2016.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        upscale_factor: int,
        kernel_size: int = 3,
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        wide = out_channels * upscale_factor**2
        conv = nn.Conv2d(in_channels, wide, kernel_size, padding=kernel_size // 2, device=device, dtype=dtype)
        super().__init__(conv, nn.PixelShuffle(upscale_factor))
        init_icnr(conv.weight, upscale_factor)
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)


class ResizeConv2d(nn.Sequential):
    """Nearest-neighbour upsampling, then a convolution (child 1), which therefore makes no checkerboard.

    (N, in_channels, H, W) to (N, out_channels, H * scale_factor, W * scale_factor); ``kernel_size`` is odd.
    Deterministic as the convolution. Source: Odena et al., Deconvolution and Checkerboard Artifacts, Distill 2016.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        scale_factor: int,
        kernel_size: int = 3,
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, device=device, dtype=dtype)
        super().__init__(nn.UpsamplingNearest2d(scale_factor=scale_factor), conv)
