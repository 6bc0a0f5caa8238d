"""Losses of classifiers, against the papers' formulas in float64."""

import pytest
import torch
import torch.nn.functional as F

from fastcnn.models import create
from fastcnn.train import classification_loss


def logits(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_without_smoothing_it_is_cross_entropy():
    scores, labels = logits(4, 7), torch.tensor([0, 6, 3, 3])
    wanted = -torch.log_softmax(scores, 1)[torch.arange(4), labels].mean()
    torch.testing.assert_close(classification_loss(scores, labels), wanted)
    torch.testing.assert_close(classification_loss((scores,), labels), wanted)


@pytest.mark.parametrize("smoothing", [0.1, 0.5, 1.0])
def test_smoothing_is_a_target_that_sums_to_one(smoothing):
    """Section 7: q'(k) = (1 - eps) * [k = label] + eps / K."""
    scores, labels = logits(4, 7), torch.tensor([0, 6, 3, 3])
    wanted = (1 - smoothing) * F.one_hot(labels, 7) + smoothing / 7
    torch.testing.assert_close(wanted.sum(1), torch.ones(4))
    loss = classification_loss(scores, labels, smoothing)
    torch.testing.assert_close(loss, -(wanted * torch.log_softmax(scores, 1)).sum(1).mean())
    # Smoothed by us, or smooth already.
    torch.testing.assert_close(loss, classification_loss(scores, wanted.double()))
    (gradient,) = torch.autograd.grad(loss, scores)
    torch.testing.assert_close(gradient, (scores.softmax(1) - wanted) / 4)


def test_auxiliary_classifiers_count_three_tenths_each():
    heads, labels = [logits(3, 5) for _ in range(3)], torch.tensor([1, 0, 4])
    first, *others = (F.cross_entropy(each, labels) for each in heads)
    torch.testing.assert_close(classification_loss(heads, labels), first + 0.3 * sum(others))
    torch.testing.assert_close(classification_loss(heads, labels, auxiliary_weight=0.0), first)
    smooth = sum(
        w * F.cross_entropy(each, labels, label_smoothing=0.1) for w, each in zip((1, 2, 2), heads, strict=True)
    )
    torch.testing.assert_close(classification_loss(heads, labels, 0.1, 2.0), smooth)


def test_a_network_trains_with_auxiliary_classifiers_and_is_judged_without():
    net, labels = create("googlenet_bn", 4), torch.tensor([1, 3])
    x = torch.randn(2, 3, 64, 64)
    outputs = net(x)
    assert [tuple(each.shape) for each in outputs] == [(2, 4)] * 3
    classification_loss(outputs, labels).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    with torch.no_grad():
        judged = net.eval()(x)
        assert judged.shape == (2, 4)
        torch.testing.assert_close(classification_loss(judged, labels), F.cross_entropy(judged, labels))


def test_half_precision_is_summed_in_single():
    scores, labels = torch.randn(2, 5).bfloat16(), torch.tensor([0, 1])
    assert classification_loss(scores, labels).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.5}, "label_smoothing must be from 0 to 1, got 1.5"),
        ({"label_smoothing": float("nan")}, "label_smoothing must be from 0 to 1, got nan"),
        ({"auxiliary_weight": -1}, "auxiliary_weight must not be negative, got -1"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        classification_loss(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), **options)
    with pytest.raises(ValueError, match="got none"):
        classification_loss((), torch.zeros(1, dtype=torch.int64))
