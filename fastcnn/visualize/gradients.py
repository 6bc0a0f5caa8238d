"""Heat maps from gradients: Grad-CAM and guided backpropagation."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcnn.models import ConvNet
from fastcnn.visualize._layers import check, path_of, watch


def grad_cam(
    net: ConvNet,
    input: Tensor,
    layer: str | None = None,
    target: int | Tensor | None = None,
    *,
    pixels: Tensor | None = None,
    upsample: bool = False,
) -> Tensor:
    """Where a layer holds what speaks for a class: ``relu(sum_c(weight_c * map_c))``, ``weight_c`` the mean over the
    map of the score's gradient. Under global average pooling and a linear layer it is CAM (Zhou et al., CVPR 2016) up
    to the map's area. Frozen and fused networks too; the network's own gradients are left alone.

    Args:
        net: a classifier, or of segmentation logits, in eval mode.
        input: preprocessed (N, C, H, W).
        layer: a feature's name or a module's path; None is the last feature.
        target: a label, or one for each image (N,); None is the one with the highest score.
        pixels: of segmentation, bool (H, W) or (N, H, W), those of the logits whose mean is the score; None is all.
        upsample: to the input's height and width, bilinear, rather than the size of the layer's map.

    Returns:
        (N, h, w) in the map's dtype, at least 0, not scaled. Deterministic.

    Raises:
        ValueError: training mode, a bad input, an unknown layer, label or no logits, or a layer that they do not need.

    Source: Selvaraju et al., Grad-CAM, ICCV 2017, equations 1 and 2; pixels: Vinogradova et al., AAAI 2020.
    """
    check(net, input)
    path = path_of(net, layer)
    maps: list[Tensor] = []

    def cut(output: Tensor) -> Tensor:
        # A leaf, so that frozen layers below do not matter; a copy goes on, which layers in place may change.
        maps.append(output.detach().clone().requires_grad_())
        return maps[-1].clone()

    with torch.enable_grad(), watch(net.get_submodule(path), cut):
        score = _score(net(input), target, pixels)
        found = torch.autograd.grad(score, maps[-1:], allow_unused=True)[0] if maps and score.requires_grad else None
    if found is None:
        raise ValueError(f"the scores of this {type(net).__name__} do not depend on {path}")
    weights = found.mean((2, 3), keepdim=True)
    heat = (weights * maps[-1].detach()).sum(1, keepdim=True).relu()
    if upsample:
        heat = F.interpolate(heat, input.shape[2:], mode="bilinear", align_corners=False)
    return heat[:, 0]


def guided_backprop(
    net: ConvNet, input: Tensor, target: int | Tensor | None = None, *, pixels: Tensor | None = None
) -> Tensor:
    """The gradient of a class's score in the pixels, of which each ReLU lets pass only what is positive.

    Args, errors: as of :func:`grad_cam`; also a ValueError for a network without ``nn.ReLU``.

    Returns:
        (N, C, H, W), signed. Deterministic.

    Source: Springenberg et al., Striving for Simplicity, ICLR 2015 workshop, section 3.4.
    """
    check(net, input)
    rectifiers = [module for module in net.modules() if isinstance(module, nn.ReLU)]
    if not rectifiers:
        raise ValueError(f"{type(net).__name__} has no nn.ReLU to guide the gradient through")
    pixel = input.detach().clone().requires_grad_()
    with torch.enable_grad(), contextlib.ExitStack() as hooks:
        for module in rectifiers:
            hooks.callback(module.register_forward_hook(_guide).remove)
        return torch.autograd.grad(_score(net(pixel), target, pixels), pixel)[0]


def _guide(layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return _PositiveGradient.apply(output)


class _PositiveGradient(torch.autograd.Function):
    """The identity, whose backward pass lets through what is positive."""

    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        return input.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.relu()


def _score(logits: Any, target: int | Tensor | None, pixels: Tensor | None) -> Tensor:
    """The sum over images, which eval mode keeps apart, of each one's score."""
    if not isinstance(logits, Tensor) or logits.dim() not in (2, 4):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"a heat map is of logits (N, classes) or (N, classes, H, W), got {found}")
    if pixels is not None:
        if logits.dim() != 4 or pixels.dtype != torch.bool or pixels.shape[-2:] != logits.shape[2:]:
            wanted = f"bool (H, W) of the logits {tuple(logits.shape)}"
            raise ValueError(f"pixels must be {wanted}, got {pixels.dtype} {tuple(pixels.shape)}")
        chosen = pixels.to(logits.device).expand(len(logits), *logits.shape[2:])[:, None]
        if not chosen.flatten(1).any(1).all():
            raise ValueError("pixels must choose one or more of each image")
        scores = (logits * chosen).sum((2, 3)) / chosen.sum((2, 3))
    else:
        scores = logits.flatten(2).mean(2) if logits.dim() == 4 else logits
    count, classes = scores.shape
    labels = scores.argmax(1) if target is None else torch.as_tensor(target, device=scores.device).expand(count)
    if labels.is_floating_point() or bool(((labels < 0) | (labels >= classes)).any()):
        raise ValueError(f"target must be labels from 0 to {classes - 1}, got {target}")
    return scores.gather(1, labels.long()[:, None]).sum()
