"""Squeeze-and-excitation: each channel scaled by a gate made of all channels' means (Hu et al. 2018, section 3)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._prims_common import suggest_memory_format

from fastcnn.ops import _checks, _library

_ACTIVATIONS = {"relu": False, "silu": True}
_GATES = {"sigmoid": False, "hardsigmoid": True}


def squeeze_excite(
    input: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
    activation: str = "relu",
    gate: str = "sigmoid",
) -> Tensor:
    """Scales channels by ``gate(weight2 @ activation(weight1 @ mean + bias1) + bias2)``, from their means over pixels.

    Args:
        input: ``[N, C, H, W]``; float64, float32, bfloat16 or float16, summed in float32 (float64 for float64). NCHW
            and channels_last are taken as they lie, and kept.
        weight1: ``[R, C]``, or ``[R, C, 1, 1]`` as of a 1x1 convolution, of the dtype of `input`.
        bias1: ``[R]`` or None.
        weight2: ``[C, R]`` or ``[C, R, 1, 1]``.
        bias2: ``[C]`` or None.
        activation: of the hidden layer: "relu" (Hu et al.) or "silu" (EfficientNet, Tan and Le 2019).
        gate: "sigmoid" or "hardsigmoid" (MobileNetV3, Howard et al. 2019, section 5.3).

    Returns:
        A tensor of the shape, dtype and memory format of `input`.

    Raises:
        ValueError: shapes that do not fit, a map without pixels, an unknown activation or gate, or two devices.
        TypeError: a tensor that is not floating-point, or of another dtype than `input`.

    Differentiable in `input`, weights and biases, once. Means, both layers and the gate are computed in float32 for
    16-bit types too, and rounded once, in the result. Deterministic, and each image's result is the same in any batch
    (on a GPU, from memory that is aligned alike) and for any number of threads. Under autocast all tensors are cast as
    those of a convolution.
    """
    tensors = (input, weight1, bias1, weight2, bias2)
    if not _fit(*tensors):
        tensors = _checked(*tensors)
    silu, hard = _choice("activation", activation, _ACTIVATIONS), _choice("gate", gate, _GATES)
    return _library.call(_op, *tensors, silu, hard)[0]


def _fit(input: Any, weight1: Any, bias1: Any, weight2: Any, bias2: Any) -> bool:
    """Whether there is nothing to say or to cast: in one expression, since small maps take but microseconds."""
    if not (isinstance(input, Tensor) and isinstance(weight1, Tensor) and isinstance(weight2, Tensor)):
        return False
    if not ((bias1 is None or isinstance(bias1, Tensor)) and (bias2 is None or isinstance(bias2, Tensor))):
        return False
    dtype, device = input.dtype, input.device
    if not (dtype in _checks.FLOATING and input.dim() == 4 and weight1.dim() >= 2 and weight2.dim() >= 2):
        return False
    shape, shape1, shape2 = input.shape, weight1.shape, weight2.shape
    channels, hidden = shape[1], shape1[0]
    return (
        shape[2] * shape[3] > 0
        and weight1.dtype == weight2.dtype == dtype
        and weight1.device == weight2.device == device
        and (shape1 == (hidden, channels) or shape1 == (hidden, channels, 1, 1))
        and (shape2 == (channels, hidden) or shape2 == (channels, hidden, 1, 1))
        and (bias1 is None or (bias1.dtype == dtype and bias1.device == device and bias1.shape == (hidden,)))
        and (bias2 is None or (bias2.dtype == dtype and bias2.device == device and bias2.shape == (channels,)))
        and (device.type == "meta" or not torch.is_autocast_enabled(device.type))
    )


def _checked(
    input: Tensor, weight1: Tensor, bias1: Tensor | None, weight2: Tensor, bias2: Tensor | None
) -> tuple[Any, Any, Any, Any, Any]:
    """The tensors as the op takes them, or an error."""
    biases = {name: bias for name, bias in (("bias1", bias1), ("bias2", bias2)) if bias is not None}
    tensors = {"input": input, "weight1": weight1, "weight2": weight2, **biases}
    _checks.floating("squeeze_excite", **tensors)
    if input.dim() != 4:
        raise ValueError(f"squeeze_excite: expected input with 4 dimensions, got shape {tuple(input.shape)}")
    if input.size(2) == 0 or input.size(3) == 0:
        raise ValueError(f"squeeze_excite: expected a feature map with pixels, got shape {tuple(input.shape)}")
    channels, hidden = input.size(1), weight1.size(0) if weight1.dim() else 0
    for name, weight, shape in (("weight1", weight1, (hidden, channels)), ("weight2", weight2, (channels, hidden))):
        if weight.shape != shape and weight.shape != (*shape, 1, 1):
            raise ValueError(
                f"squeeze_excite: expected {name} of shape {list(shape)} or {[*shape, 1, 1]}, got {list(weight.shape)}"
            )
    for name, bias in biases.items():
        size = hidden if name == "bias1" else channels
        if bias.shape != (size,):
            raise ValueError(f"squeeze_excite: expected {name} of shape {[size]}, got {list(bias.shape)}")
    _checks.same_device("squeeze_excite", **tensors)
    cast = _library.autocast(input, weight1, bias1, weight2, bias2)
    for name, tensor in zip(("input", "weight1", "bias1", "weight2", "bias2"), cast, strict=True):
        if tensor is not None and tensor.dtype != cast[0].dtype:  # type: ignore[union-attr]
            dtype = cast[0].dtype  # type: ignore[union-attr]
            raise TypeError(f"squeeze_excite: expected {name} of the dtype of input, {dtype}, got {tensor.dtype}")
    return cast  # type: ignore[return-value]


def _choice(name: str, value: str, choices: dict[str, bool]) -> bool:
    if value not in choices:
        raise ValueError(f"squeeze_excite: expected {name} to be {' or '.join(map(repr, choices))}, got {value!r}")
    return choices[value]


def _like(input: Tensor) -> Tensor:
    return torch.empty_like(input, memory_format=suggest_memory_format(input))


def _accumulated(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _reference(input, weight1, bias1, weight2, bias2, silu, hard):
    wide = _accumulated(input.dtype)

    def layer(x, weight, bias):
        return F.linear(x, weight.flatten(1).to(wide), None if bias is None else bias.to(wide))

    mean = input.mean((2, 3), dtype=wide)
    hidden = layer(mean, weight1, bias1)
    scores = layer(F.silu(hidden) if silu else F.relu(hidden), weight2, bias2)
    gate = F.relu6(scores + 3) / 6 if hard else scores.sigmoid()  # The gradient of F.hardsigmoid is a float's.
    return _like(input).copy_(input * gate[..., None, None]), torch.cat([mean, hidden, gate], 1).detach()


def _reference_backward(grad, input, weight1, weight2, saved, silu, hard, needed):
    wide = _accumulated(input.dtype)
    channels, hidden_channels = input.size(1), weight1.size(0)
    mean, hidden, gate = saved.split([channels, hidden_channels, channels], 1)
    of_gate = (grad.to(wide) * input).sum((2, 3))
    of_gate = torch.where((gate > 0) & (gate < 1), of_gate / 6, 0) if hard else of_gate * gate * (1 - gate)
    sigmoid = hidden.sigmoid()
    activated = hidden * sigmoid if silu else hidden.relu()
    of_hidden = of_gate @ weight2.flatten(1).to(wide)
    # ReLU's slope is no factor: a gradient may be infinite.
    slope = sigmoid * (1 + hidden * (1 - sigmoid))
    of_hidden = of_hidden * slope if silu else torch.where(hidden <= 0, 0, of_hidden)
    of_mean = of_hidden @ weight1.flatten(1).to(wide) / (input.size(2) * input.size(3))
    grads = (
        grad * gate[..., None, None] + of_mean[..., None, None],
        (of_hidden.t() @ mean).view(weight1.shape),
        of_hidden.sum(0),
        (of_gate.t() @ activated).view(weight2.shape),
        of_gate.sum(0),
    )
    fakes = _fake_backward(grad, input, weight1, weight2, saved, silu, hard, needed)
    return tuple(
        fake.copy_(g) if needed >> i & 1 else fake for i, (fake, g) in enumerate(zip(fakes, grads, strict=True))
    )


def _fake(input, weight1, bias1, weight2, bias2, silu, hard):
    size = 2 * input.size(1) + weight1.size(0)
    return _like(input), input.new_empty((input.size(0), size), dtype=_accumulated(input.dtype))


def _fake_backward(grad, input, weight1, weight2, saved, silu, hard, needed):
    shapes = (None, weight1.shape, weight1.shape[:1], weight2.shape, weight2.shape[:1])
    return tuple(
        input.new_empty(0) if not needed >> i & 1 else _like(input) if shape is None else input.new_empty(shape)
        for i, shape in enumerate(shapes)
    )


_op = _library.define(
    "squeeze_excite(Tensor input, Tensor weight1, Tensor? bias1, Tensor weight2, Tensor? bias2, bool silu, bool hard) "
    "-> (Tensor, Tensor)",
    reference=_reference,
    fake=_fake,
    triton="squeeze_excite",
    flops=lambda input, weight1, *_, out_shape=None, **__: (
        2 * input[0] * input[1] * (input[2] * input[3] + 2 * weight1[0])
    ),
)
_backward_op = _library.define(
    "squeeze_excite_backward(Tensor grad, Tensor input, Tensor weight1, Tensor weight2, Tensor saved, bool silu, "
    "bool hard, int needed) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference=_reference_backward,
    fake=_fake_backward,
    triton="squeeze_excite",
    flops=lambda grad, input, weight1, *_, out_shape=None, **__: (
        4 * input[0] * input[1] * (input[2] * input[3] + 2 * weight1[0])
    ),
)


def _setup_context(ctx, inputs, output):
    input, weight1, _, weight2, _, silu, hard = inputs
    saved = output[1]
    ctx.mark_non_differentiable(saved)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(input, weight1, weight2, saved)
    ctx.args = silu, hard


def _backward(ctx, grad, _):
    if grad is None:
        return (None,) * 7
    wanted = ctx.needs_input_grad
    needed = wanted[0] | wanted[1] << 1 | wanted[2] << 2 | wanted[3] << 3 | wanted[4] << 4
    grads = _library.call_backward(_backward_op, grad, *ctx.saved_tensors, *ctx.args, needed)
    if needed != 31:
        grads = (g if needed >> i & 1 else None for i, g in enumerate(grads))
    return *grads, None, None


_library.autograd(_op, _backward, _setup_context)
