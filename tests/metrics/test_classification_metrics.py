"""Top-k errors of toy scores, and what a search maximises."""

import math

import pytest
import torch

from fastcnn.metrics import TopK, search_objective, topk_error

# The labels' places: first, second, fourth, first.
SCORES = torch.tensor([[9.0, 1, 2, 3], [5, 6, 1, 0], [4, 3, 2, 1], [0, 0, 0, 7]])
LABELS = torch.tensor([0, 0, 3, 3])


def test_toy_scores():
    assert [topk_error(SCORES, LABELS, k) for k in (1, 2, 3, 4)] == [0.5, 0.25, 0.25, 0]


def test_images_add_up():
    whole, parts = TopK((1, 2)), [TopK((1, 2)), TopK((1, 2))]
    whole.update(SCORES, LABELS)
    for part, rows in zip(parts, (slice(0, 1), slice(1, 4)), strict=True):
        part.update(SCORES[rows], LABELS[rows])
    parts[0].merge(parts[1])
    assert whole.compute() == parts[0].compute() == {"top1_error": 0.5, "top2_error": 0.25}
    whole.reset()
    assert all(math.isnan(value) for value in whole.compute().values())


def test_it_is_torchs_topk_where_no_two_scores_are_equal():
    scores, labels = torch.randn(200, 20), torch.randint(0, 20, (200,))
    missed = (scores.topk(5).indices != labels[:, None]).all(1).double().mean()
    assert topk_error(scores, labels, 5) == pytest.approx(missed.item())


def test_equal_scores_count_against_the_label():
    assert topk_error(torch.zeros(3, 4), torch.tensor([0, 1, 3]), 3) == 1
    assert topk_error(torch.tensor([[2.0, 2, 1]]), torch.tensor([0]), 1) == 1
    assert topk_error(torch.tensor([[2.0, 2, 1]]), torch.tensor([0]), 2) == 0
    nan = float("nan")
    assert topk_error(torch.tensor([[nan, 0, 0]]), torch.tensor([0]), 2) == 1
    assert topk_error(torch.tensor([[1, nan, 0]]), torch.tensor([0]), 1) == 1


@pytest.mark.parametrize(
    ("scores", "labels", "error", "message"),
    [
        (SCORES, LABELS.float(), TypeError, "target must be integers, got torch.float32"),
        (SCORES, LABELS[:2], ValueError, r"\(N, num_classes\) and \(N,\), got \(4, 4\) and \(2,\)"),
        (SCORES[:, :1], LABELS, ValueError, "the best 2 are wanted, of 1 classes"),
        (SCORES, LABELS + 1, ValueError, r"labels must be from 0 to 3, got \[1, 1, 4, 4\]"),
    ],
)
def test_bad_scores(scores, labels, error, message):
    with pytest.raises(error, match=message):
        TopK((1, 2)).update(scores, labels)
    with pytest.raises(ValueError, match=r"ks must be at least 1, one or more, got \(0,\)"):
        TopK((0,))
    with pytest.raises(ValueError, match=r"the best \(1, 2\) and of the best \(1, 5\) do not merge"):
        TopK((1, 2)).merge(TopK())


def test_search_objective_on_paper():
    """Section 3.1: twice the latency for 5 % more accuracy is as good, which is how the soft exponent was chosen."""
    assert search_objective(0.75, 80, 80) == 0.75
    assert search_objective(0.75 * 1.05, 160, 80) == pytest.approx(search_objective(0.75, 80, 80), rel=2e-3)
    assert search_objective(0.75, 40, 80) == pytest.approx(0.75 * 2**0.07)
    hard = [search_objective(0.75, latency, 80, (0, -1)) for latency in (40, 80, 160)]
    assert hard == [0.75, 0.75, 0.375]
    with pytest.raises(ValueError, match="latency and target must be above 0, got 0 and 80"):
        search_objective(0.5, 0, 80)
    with pytest.raises(ValueError, match=r"accuracy must not be negative, got -0\.5"):
        search_objective(-0.5, 1, 80)
