"""Softmax focal loss: the focal factor on the cross-entropy of one class among many (Lin et al. 2017, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcnn.ops import _checks, _library, _losses

_NAME = "softmax_focal_loss"
_TORCH_RULE = {"CUDA": "PyTorch's reference for float64"}


def softmax_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: float | Tensor | None = None,
    gamma: float = 2.0,
    reduction: str = "none",
    ignore_index: int = -100,
) -> Tensor:
    """``-alpha_t (1 - p_t)^gamma log(p_t)`` with ``p = softmax(inputs)`` over the classes and t the target.

    Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, section 3, equation 5, for a softmax. With a gamma
    of 0 and no alpha it is :func:`torch.nn.functional.cross_entropy`.

    Args:
        inputs: logits ``[N, C, d1, ...]``, or ``[C]`` for one example; float64, float32, bfloat16 or float16 (16-bit
            types are computed and summed in float32). Classes may lie last in memory, as in channels_last.
        targets: classes in [0, C), integers of shape ``[N, d1, ...]``, or ``[]``.
        alpha: weight ``[C]`` of each class, a number for all of them, or None for 1.
        gamma: exponent of the factor that takes easy examples out, at least 0.
        reduction: "none", "mean" or "sum". "mean" divides by the number of targets that are not ignored, whatever their
            weights (where cross_entropy divides by the sum of their weights).
        ignore_index: targets of this value have neither loss nor gradient.

    Returns:
        The losses in the shape of `targets`, or a scalar; of the dtype of `inputs`.

    Raises:
        ValueError: shapes that do not fit, a gamma or reduction that is none, or two devices.
        TypeError: a tensor or number of the wrong type.
        IndexError: a target that is no class (CPU; on a GPU its loss and gradient are NaN, or
            PyTorch's indexing asserts).

    A class of logit -inf has a probability of exactly 0; as a target its loss is infinite. Sums are taken in a fixed
    order: deterministic, whatever the number of threads. Under autocast it runs in float32, as PyTorch's losses do. A
    weight that requires a gradient gets it from plain PyTorch, and so do second derivatives.
    """
    _checks.floating(_NAME, inputs=inputs)
    if not isinstance(targets, Tensor) or not _losses.is_index(targets):
        got = targets.dtype if isinstance(targets, Tensor) else type(targets).__name__
        raise TypeError(f"{_NAME}: expected targets to be a tensor of integers, got {got}")
    _checks.same_device(_NAME, inputs=inputs, targets=targets)
    code = _losses.reduction_code(_NAME, reduction)
    _losses.check_gamma(_NAME, gamma)
    _checks.integer(_NAME, ignore_index=ignore_index)
    batched = inputs.dim() != 1
    shape = (inputs.shape[0], *inputs.shape[2:]) if inputs.dim() > 1 else ()
    if inputs.dim() == 0 or targets.shape != shape:
        raise ValueError(
            f"{_NAME}: expected inputs [N, C, ...] and targets [N, ...], got {tuple(inputs.shape)} and "
            f"{tuple(targets.shape)}"
        )
    if not batched:
        inputs, targets = inputs[None], targets[None]
    if inputs.size(1) == 0:
        raise ValueError(f"{_NAME}: expected inputs with at least one class, got shape {tuple(inputs.shape)}")
    weights = _class_weights(alpha, inputs)
    (scores,) = _library.autocast(inputs, dtype=torch.float32)
    args = (scores, targets.long(), weights, float(gamma), code, int(ignore_index))
    if weights is not None and weights.requires_grad and torch.is_grad_enabled():
        loss = _reference(*args)
    else:
        loss = _library.call(_op, *args)
    return loss if batched or code != _losses.NONE else loss[0]


def _class_weights(alpha: float | Tensor | None, inputs: Tensor) -> Tensor | None:
    classes, dtype = inputs.size(1), torch.float64 if inputs.dtype == torch.float64 else torch.float32
    if alpha is None:
        return None
    if not isinstance(alpha, Tensor):
        _checks.number(_NAME, alpha=alpha)
        return torch.full((classes,), float(alpha), dtype=dtype, device=inputs.device)
    _checks.floating(_NAME, alpha=alpha)
    _checks.same_device(_NAME, inputs=inputs, alpha=alpha)
    if alpha.shape != (classes,):
        raise ValueError(f"{_NAME}: expected an alpha for each of {classes} classes, got shape {tuple(alpha.shape)}")
    return alpha.to(dtype)


def _prepare(inputs, targets, alpha, ignore_index):
    """Of every position: its target's log-probability, 1 - p_t, weight, whether it counts, and its target."""
    _losses.check_indices(_NAME, targets, ignore_index, inputs.size(1), lowest=0)
    valid = targets != ignore_index
    x = torch.where(valid.unsqueeze(1), _losses.wide(inputs), 0)
    index = torch.where(valid, targets, 0)
    log_p = torch.log_softmax(x, 1).gather(1, index.unsqueeze(1)).squeeze(1)
    # Clamped, for a power below 1 has no slope at 0; and a constant where the logarithm it multiplies is infinite.
    miss = (-torch.expm1(log_p)).clamp(min=torch.finfo(x.dtype).tiny)
    miss = torch.where(log_p >= torch.finfo(x.dtype).min, miss, 1)
    return log_p, miss, 1.0 if alpha is None else alpha.to(x.dtype)[index], valid, index


def _reference(inputs, targets, alpha, gamma, reduction, ignore_index):
    log_p, miss, weight, valid, _ = _prepare(inputs, targets, alpha, ignore_index)
    loss = torch.where(valid, weight * miss**gamma * -log_p, 0)
    if reduction != _losses.NONE:
        loss = loss.sum() / valid.sum() if reduction == _losses.MEAN else loss.sum()
    return loss.to(inputs.dtype)


def _reference_backward(grad, inputs, targets, alpha, gamma, reduction, ignore_index):
    log_p, miss, weight, valid, index = _prepare(inputs, targets, alpha, ignore_index)
    grad = _losses.wide(grad)
    if reduction == _losses.MEAN:
        grad = grad / valid.sum()
    # p log(p) is 0 at 0.
    ratio = log_p.exp() * log_p.clamp(min=torch.finfo(log_p.dtype).min) / miss
    slope = (grad * weight * miss**gamma * (1 - gamma * ratio)).unsqueeze(1)
    classes = torch.arange(inputs.size(1), device=inputs.device).view(-1, *[1] * (inputs.dim() - 2))
    mine = index.unsqueeze(1) == classes
    result = slope * torch.where(mine, -miss.unsqueeze(1), torch.softmax(_losses.wide(inputs), 1))
    return torch.empty_like(inputs).copy_(torch.where(valid.unsqueeze(1), result, 0))


_op = _library.define(
    "softmax_focal_loss(Tensor input, Tensor target, Tensor? alpha, float gamma, int reduction, int ignore_index) "
    "-> Tensor",
    reference=_reference,
    fake=lambda input, target, alpha, gamma, reduction, ignore_index: input.new_empty(
        target.shape if reduction == _losses.NONE else ()
    ),
    triton="softmax_focal_loss",
    torch_rule=_TORCH_RULE,
)
_backward_op = _library.define(
    "softmax_focal_loss_backward(Tensor grad, Tensor input, Tensor target, Tensor? alpha, float gamma, int reduction, "
    "int ignore_index) -> Tensor",
    reference=_reference_backward,
    fake=lambda grad, input, *_: torch.empty_like(input),
    triton="softmax_focal_loss",
    torch_rule=_TORCH_RULE,
)
_losses.differentiable(_op, _backward_op, _reference_backward, tensors=3)
