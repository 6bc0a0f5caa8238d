"""Sigmoid focal loss: cross-entropy that well-classified examples hardly enter (Lin et al. 2017, RetinaNet, eq. 5)."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcnn.ops import _checks, _library, _losses

_NAME = "sigmoid_focal_loss"
_TORCH_RULE = {"CUDA": "PyTorch's reference for float64"}


def sigmoid_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    reduction: str = "none",
    ignore_index: int = -100,
) -> Tensor:
    """``-alpha_t (1 - p_t)^gamma log(p_t)``, elementwise, as :func:`torchvision.ops.sigmoid_focal_loss`.

    With ``p = sigmoid(inputs)``, ``p_t`` is p at a target of 1 and 1 - p at 0, and ``alpha_t`` is alpha and 1 - alpha.
    Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, section 3, equations 4 and 5.

    Args:
        inputs: logits of any shape and strides; float64, float32, bfloat16 or float16 (16-bit types are computed and
            summed in float32).
        targets: either probabilities in [0, 1] of the shape of `inputs`, or, for `inputs` ``[..., K]``, integers of
            shape ``[...]``: a class in [0, K), which stands for its one-hot row, or a negative number, such as -1, for
            background, a row of zeros. No one-hot tensor is made.
        alpha: weight of targets of 1, in [0, 1]; -1 leaves out the weights.
        gamma: exponent of the factor that takes easy examples out, at least 0.
        reduction: "none", "mean" or "sum". "mean" divides by the number of elements, not counting ignored rows.
        ignore_index: rows of this class index have neither loss nor gradient. Class indices only.

    Returns:
        The losses in the shape and layout of `inputs`, or a scalar; of the dtype of `inputs`, promoted with that of
        `targets` that are probabilities.

    Raises:
        ValueError: shapes that do not fit, an alpha, gamma or reduction that is none, or two devices.
        TypeError: a tensor or number of the wrong type.
        IndexError: a class index that is K or more (CPU; on a GPU, where looking would mean waiting, it counts as
            background).

    Finite logits of any size give finite losses. Infinite ones give the limits, where torchvision gives NaN. Sums are
    taken in a fixed order: deterministic, whatever the number of threads. Under autocast it runs in float32, as
    PyTorch's losses do. Targets that require a gradient get it from plain PyTorch, and so do second derivatives.
    """
    _checks.floating(_NAME, inputs=inputs)
    if not isinstance(targets, Tensor):
        raise TypeError(f"{_NAME}: expected targets to be a tensor, got {type(targets).__name__}")
    _checks.same_device(_NAME, inputs=inputs, targets=targets)
    code = _losses.reduction_code(_NAME, reduction)
    _checks.number(_NAME, alpha=alpha)
    _checks.integer(_NAME, ignore_index=ignore_index)
    _losses.check_gamma(_NAME, gamma)
    if not (0 <= alpha <= 1 or alpha == -1):
        raise ValueError(f"{_NAME}: expected an alpha in [0, 1], or -1, got {alpha}")
    x: Tensor | None
    y: Tensor | None
    if targets.dim() == inputs.dim() - 1 and _losses.is_index(targets) and targets.shape == inputs.shape[:-1]:
        (x,), y = _library.autocast(inputs, dtype=torch.float32), targets.long()
    elif targets.shape == inputs.shape:
        dtype = torch.promote_types(inputs.dtype, targets.dtype)
        x, y = _library.autocast(inputs.to(dtype), targets.to(dtype), dtype=torch.float32)
    else:
        raise ValueError(
            f"{_NAME}: expected targets of the shape {tuple(inputs.shape)} of inputs, or integers of its first "
            f"{max(inputs.dim() - 1, 0)} dimension(s), got {targets.dtype} of shape {tuple(targets.shape)}"
        )
    args = (x, y, float(alpha), float(gamma), code, int(ignore_index))
    if targets.requires_grad and torch.is_grad_enabled():
        return _reference(*args)
    return _library.call(_op, *args)


def _prepare(inputs: Tensor, targets: Tensor, ignore_index: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits, targets as probabilities, and for class indices which rows count."""
    x = _losses.wide(inputs)
    if targets.is_floating_point():
        return x, targets.to(x.dtype), None
    classes = inputs.size(-1)
    _losses.check_indices(_NAME, targets, ignore_index, classes)
    valid = (targets != ignore_index).unsqueeze(-1)
    one_hot = targets.unsqueeze(-1) == torch.arange(classes, device=targets.device)
    return torch.where(valid, x, 0), one_hot.to(x.dtype), valid


def _weight(y: Tensor, alpha: float) -> Tensor | float:
    return (1 - alpha) + y * (2 * alpha - 1) if alpha >= 0 else 1.0


def _miss(x: Tensor, y: Tensor) -> Tensor:
    """1 - p_t, without a difference of nearly equal numbers; clamped, for a power below 1 has no slope at 0."""
    miss = torch.sigmoid(x) * (1 - y) + torch.sigmoid(-x) * y
    return miss.clamp(min=torch.finfo(x.dtype).tiny)


def _cross_entropy(x: Tensor, y: Tensor) -> Tensor:
    def part(y: Tensor, log_p: Tensor) -> Tensor:
        # 0 times an infinite logarithm is 0 here, and the product has a slope in both.
        return y * torch.where(y == 0, log_p.clamp(min=torch.finfo(x.dtype).min), log_p)

    log_p, log_q = torch.nn.functional.logsigmoid(x), torch.nn.functional.logsigmoid(-x)
    return -(part(y, log_p) + part(1 - y, log_q))


def _reference(inputs, targets, alpha, gamma, reduction, ignore_index):
    x, y, valid = _prepare(inputs, targets, ignore_index)
    loss = _weight(y, alpha) * _cross_entropy(x, y) * _miss(x, y) ** gamma
    if valid is not None:
        loss = torch.where(valid, loss, 0)
    if reduction == _losses.NONE:
        return torch.empty_like(inputs).copy_(loss)
    total = loss.sum()
    return (total / _count(x, valid) if reduction == _losses.MEAN else total).to(inputs.dtype)


def _count(x: Tensor, valid: Tensor | None) -> Tensor | int:
    return x.numel() if valid is None else valid.sum() * x.size(-1)


def _reference_backward(grad, inputs, targets, alpha, gamma, reduction, ignore_index):
    x, y, valid = _prepare(inputs, targets, ignore_index)
    grad = _losses.wide(grad)
    p, q = torch.sigmoid(x), torch.sigmoid(-x)
    miss = _miss(x, y)
    ratio = torch.where(y == 0, q, torch.where(y == 1, p, p * q / miss))
    entropy = _cross_entropy(x, y).clamp(max=torch.finfo(x.dtype).max)
    slope = p * (1 - y) - q * y + gamma * entropy * (1 - 2 * y) * ratio
    result = grad * _weight(y, alpha) * miss**gamma * slope
    if reduction == _losses.MEAN:
        result = result / _count(x, valid)
    if valid is not None:
        result = torch.where(valid, result, 0)
    return torch.empty_like(inputs).copy_(result)


_op = _library.define(
    "sigmoid_focal_loss(Tensor input, Tensor target, float alpha, float gamma, int reduction, int ignore_index) "
    "-> Tensor",
    reference=_reference,
    fake=lambda input, target, alpha, gamma, reduction, ignore_index: (
        torch.empty_like(input) if reduction == _losses.NONE else input.new_empty(())
    ),
    triton="sigmoid_focal_loss",
    torch_rule=_TORCH_RULE,
)
_backward_op = _library.define(
    "sigmoid_focal_loss_backward(Tensor grad, Tensor input, Tensor target, float alpha, float gamma, int reduction, "
    "int ignore_index) -> Tensor",
    reference=_reference_backward,
    fake=lambda grad, input, *_: torch.empty_like(input),
    triton="sigmoid_focal_loss",
    torch_rule=_TORCH_RULE,
)
_losses.differentiable(_op, _backward_op, _reference_backward, tensors=2)
