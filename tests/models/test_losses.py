"""The additive angular margin: angles by hand, its limits, what half types and the ends of the cosine give."""

import math

import pytest
import torch
from torch.nn import functional as F

from fastcnn.nn.losses import ArcMarginHead, additive_angular_margin_logits, additive_angular_margin_loss

ANGLES = torch.tensor([0.1, 1.0, 2.0, math.pi - 0.51, math.pi - 0.49, 3.1], dtype=torch.float64)
OWN = torch.zeros(len(ANGLES), dtype=torch.int64)


def cosines(classes=4, samples=6, **options):
    return torch.rand(samples, classes, dtype=torch.float64, **options).mul(1.6).sub(0.8)


def test_margin_is_added_to_the_own_angle():
    others = torch.full((len(ANGLES), 2), 0.3, dtype=torch.float64)
    logits = additive_angular_margin_logits(torch.cat((ANGLES.cos()[:, None], others), 1), OWN)
    turned = torch.cos(ANGLES + 0.5)
    turned[4:] = ANGLES[4:].cos() - 0.5 * math.sin(0.5)
    torch.testing.assert_close(logits[:, 0], 64 * turned)
    assert torch.equal(logits[:, 1:], 64 * others)


def test_logits_fall_with_the_angle_over_all_of_it():
    angles = torch.linspace(1e-3, math.pi - 1e-3, 500, dtype=torch.float64)
    logits = additive_angular_margin_logits(angles.cos()[:, None], torch.zeros(500, dtype=torch.int64))
    assert (logits.diff(dim=0) < 0).all()


def test_easy_margin_is_for_angles_below_a_right_one():
    logits = additive_angular_margin_logits(ANGLES.cos()[:, None], OWN, 1.0, easy_margin=True)[:, 0]
    wanted = torch.where(ANGLES.cos() > 0, torch.cos(ANGLES + 0.5), ANGLES.cos())
    torch.testing.assert_close(logits, wanted)


def test_margin_zero_is_the_normalised_softmax():
    x, target = cosines(), torch.arange(6) % 4
    for easy in (False, True):
        found = additive_angular_margin_loss(x, target, margin=0.0, easy_margin=easy)
        torch.testing.assert_close(found, F.cross_entropy(64 * x, target), rtol=1e-12, atol=0)
    head = ArcMarginHead(5, 4, margin=0.0, dtype=torch.float64)
    embeddings = torch.randn(6, 5, dtype=torch.float64)
    wanted = 64 * F.normalize(embeddings) @ F.normalize(head.weight).T
    torch.testing.assert_close(head(embeddings, target), wanted)
    torch.testing.assert_close(head(embeddings), wanted)


def test_a_margin_costs():
    x, target = cosines(), torch.arange(6) % 4
    free, dear = (additive_angular_margin_loss(x, target, margin=m, reduction="none") for m in (0.0, 0.5))
    assert free.shape == (6,) and (dear > free).all()


def test_gradients():
    x, target = cosines(requires_grad=True), torch.arange(6) % 4
    assert torch.autograd.gradcheck(lambda c: additive_angular_margin_logits(c, target, 4.0), x)
    head = ArcMarginHead(3, 4, 4.0, dtype=torch.float64)
    embeddings = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda e, w: _with(head, w)(e, target), (embeddings, head.weight))


def _with(head, weight):
    return lambda embeddings, target: torch.func.functional_call(head, {"weight": weight}, (embeddings, target))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_gradients_are_finite_at_the_ends(dtype):
    x = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [1.0 + 1e-7, 0.5]], dtype=dtype, requires_grad=True)
    loss = additive_angular_margin_loss(x, torch.zeros(3, dtype=torch.int64))
    loss.backward()
    assert loss.isfinite() and x.grad.isfinite().all() and x.grad.any()
    head = ArcMarginHead(3, 2)
    embeddings = torch.cat((head.weight.detach(), torch.zeros(1, 3))).requires_grad_()
    F.cross_entropy(head(embeddings, torch.tensor([0, 1, 0])), torch.tensor([0, 1, 0])).backward()
    assert embeddings.grad.isfinite().all() and head.weight.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(dtype):
    head = ArcMarginHead(16, 4)
    embeddings, target = torch.randn(6, 16), torch.arange(6) % 4
    rounded = embeddings.to(dtype)
    wanted = head(rounded.float(), target)
    with torch.autocast("cpu", dtype):
        for found in (head(rounded, target), additive_angular_margin_logits(wanted / 64, target, margin=0.0)):
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, wanted)


def test_bad_input():
    x = torch.rand(3, 4)
    for target in (torch.zeros(4, dtype=torch.int64), torch.zeros(3, 1, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"expected \(N, C\) and \(N\), got \(3, 4\) and \("):
            additive_angular_margin_loss(x, target)
    with pytest.raises(TypeError, match=r"an int64 target, got torch\.float32 and torch\.int32"):
        additive_angular_margin_loss(x, torch.zeros(3, dtype=torch.int32))
    for options in ({"scale": 0.0}, {"margin": -0.1}, {"margin": 2.0}):
        with pytest.raises(ValueError, match="scale must be positive and margin in"):
            additive_angular_margin_loss(x, torch.zeros(3, dtype=torch.int64), **options)
        with pytest.raises(ValueError, match="scale must be positive and margin in"):
            ArcMarginHead(4, 3, **options)
    with pytest.raises(ValueError, match=r"ArcMarginHead takes \(N, 4\), got \(3, 5\)"):
        ArcMarginHead(4, 3)(torch.rand(3, 5))
