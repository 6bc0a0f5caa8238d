"""What the contract suite does not say of the sigmoid focal loss: values by hand, limits, class indices, bad input."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcnn import nn as fnn
from fastcnn import ops, reference_mode
from fastcnn.ops import _library
from fastcnn.testing.compare import assert_close_to, value_and_grad
from fastcnn.testing.specs.sigmoid_focal_loss import composite

MODES = [_library.kernel_mode, reference_mode]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
INF, NAN = math.inf, math.nan


@pytest.mark.parametrize("mode", MODES)
class TestValues:
    def test_by_hand(self, mode):
        """p = 1/2: the loss is alpha_t * 2^-gamma * log 2 (equation 5)."""
        x, y = torch.zeros(2), torch.tensor([1.0, 0.0])
        with mode():
            actual = ops.sigmoid_focal_loss(x, y, alpha=0.25, gamma=2)
        torch.testing.assert_close(actual, torch.tensor([0.25, 0.75]) * math.log(2) / 4)

    @pytest.mark.parametrize("gamma, factor", [(0.0, 1.0), (0.5, 0.1**0.5), (1.0, 0.1), (2.0, 0.01), (5.0, 1e-5)])
    def test_the_papers_example(self, mode, gamma, factor):
        """At p_t = 0.9 and a gamma of 2 the loss is 100 times lower than the cross-entropy (section 3.2)."""
        x = torch.tensor([math.log(9)], dtype=torch.float64)
        with mode():
            loss = ops.sigmoid_focal_loss(x, torch.ones_like(x), alpha=-1, gamma=gamma)
        torch.testing.assert_close(loss.item(), -math.log(0.9) * factor)

    @pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 2.5])
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_huge_logits(self, mode, dtype, gamma):
        x = torch.tensor([1e4, -1e4, 1e4, -1e4, 6e4, -6e4, 6e4, -6e4]).to(dtype)
        y = torch.tensor([1.0, 0, 0, 1, 1, 0, 0, 1]).to(dtype)
        with mode():
            loss, grad = value_and_grad(ops.sigmoid_focal_loss, x, y, 0.5, gamma)
        wrong = torch.tensor([0.0, 0, 1, 1, 0, 0, 1, 1]).to(dtype)
        torch.testing.assert_close(loss, wrong * x.abs() / 2)
        torch.testing.assert_close(grad, wrong * x.sign() / 2)

    @pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 2.5])
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_infinite_logits_give_limits(self, mode, dtype, gamma):
        x = torch.tensor([INF, -INF, INF, -INF, NAN, 0.0]).to(dtype)
        y = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, NAN]).to(dtype)
        with mode():
            loss = ops.sigmoid_focal_loss(x, y, 0.5, gamma)
        torch.testing.assert_close(loss, torch.tensor([0.0, 0, INF, INF, NAN, NAN]).to(dtype), equal_nan=True)

    def test_mean_of_nothing_is_nan(self, mode):
        x = torch.zeros(0, 3)
        with mode():
            assert ops.sigmoid_focal_loss(x, x, reduction="mean").isnan()
            assert ops.sigmoid_focal_loss(x, x, reduction="sum") == 0
            row = torch.full((2,), -100)
            assert ops.sigmoid_focal_loss(torch.zeros(2, 3), row, reduction="mean").isnan()

    @pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
    def test_class_indices_are_one_hot_rows(self, mode, reduction):
        x = 3 * torch.randn(7, 5, 11, generator=torch.Generator().manual_seed(0))
        index = torch.arange(35).view(7, 5) % 12 - 1
        one_hot = F.one_hot(torch.where(index < 0, 11, index), 12)[..., :11].float()
        with mode():
            for dtype in (torch.int64, torch.int32, torch.int8):
                actual = value_and_grad(ops.sigmoid_focal_loss, x, index.to(dtype), reduction=reduction)
                torch.testing.assert_close(
                    actual, value_and_grad(ops.sigmoid_focal_loss, x, one_hot, reduction=reduction)
                )

    @pytest.mark.parametrize("ignored", [-100, -1, 2, 255])
    def test_ignored_rows_do_not_count(self, mode, ignored):
        x = torch.randn(60, 90, generator=torch.Generator().manual_seed(0))
        index = torch.arange(60) % 9
        drop = index % 3 == 2
        index[drop] = ignored
        x[drop] = NAN
        with mode():
            for reduction in ("mean", "sum"):
                loss, grad = value_and_grad(ops.sigmoid_focal_loss, x, index, reduction=reduction, ignore_index=ignored)
                kept = value_and_grad(ops.sigmoid_focal_loss, x[~drop], index[~drop], reduction=reduction)
                torch.testing.assert_close((loss, grad[~drop]), kept)
            losses = ops.sigmoid_focal_loss(x, index, ignore_index=ignored)
        assert torch.equal(grad[drop], torch.zeros_like(grad[drop]))
        assert torch.equal(losses[drop], torch.zeros_like(grad[drop]))

    def test_other_negative_indices_are_background(self, mode):
        x = torch.randn(3, 4)
        with mode():
            actual = ops.sigmoid_focal_loss(x, torch.tensor([-1, -7, -100]), ignore_index=255)
            torch.testing.assert_close(actual, ops.sigmoid_focal_loss(x, torch.zeros(3, 4)))

    def test_integers_of_the_shape_of_inputs_are_probabilities(self, mode):
        x, y = torch.randn(3, 4), torch.randint(2, (3, 4))
        with mode():
            for targets in (y, y.bool(), y.byte()):
                torch.testing.assert_close(ops.sigmoid_focal_loss(x, targets), ops.sigmoid_focal_loss(x, y.float()))

    def test_mixed_dtypes_promote(self, mode):
        x, y = torch.randn(8), torch.rand(8)
        with mode():
            for dtype in (torch.bfloat16, torch.float64):
                loss, grad = value_and_grad(ops.sigmoid_focal_loss, x.to(dtype), y)
                assert loss.dtype == torch.promote_types(dtype, torch.float32)
                assert grad.dtype == dtype

    @pytest.mark.parametrize("value", [7, 4, 1 << 40])
    def test_no_such_class(self, mode, value):
        index = torch.zeros(3, 2, dtype=torch.int64)
        index[1, 1] = value
        with (
            mode(),
            pytest.raises(IndexError, match=rf"^sigmoid_focal_loss: target {value} at position 3 .* 4 classes$"),
        ):
            ops.sigmoid_focal_loss(torch.randn(3, 2, 4), index)


def test_targets_get_gradients_too():
    x = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    y = torch.rand(5, 7, dtype=torch.float64)
    y[0, 0], y[1, 1] = 0, 1
    y.requires_grad_()
    ours, theirs = (torch.autograd.grad(f(x, y).sum(), (x, y)) for f in (ops.sigmoid_focal_loss, composite))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("mode", MODES)
def test_gradient_at_a_logit_of_zero(mode):
    """Where formulas in |x| have a kink, though the loss has none; twice."""
    x = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    with mode():
        assert torch.autograd.gradcheck(lambda x: ops.sigmoid_focal_loss(x, y), x)
        assert torch.autograd.gradgradcheck(lambda x: ops.sigmoid_focal_loss(x, y), x)


def test_an_empty_result_has_its_inputs_strides():
    """Which is_contiguous() does not ask about where nothing is."""
    x = torch.zeros(2, 0).t()
    assert ops.sigmoid_focal_loss(x, torch.zeros(0, dtype=torch.int64)).stride() == torch.empty_like(x).stride()


@given(
    shape=st.lists(st.integers(0, 9), max_size=4),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(["contiguous", "channels_last", "strided", "transposed"]),
    alpha=st.sampled_from([-1.0, 0.0, 0.25, 1.0]),
    gamma=st.sampled_from([0.0, 0.7, 1.0, 2.0, 3.0]),
    reduction=st.sampled_from(["none", "mean", "sum"]),
    targets=st.sampled_from(["hard", "soft", "index"]),
    scale=st.sampled_from([0.1, 3.0, 100.0]),
    seed=st.integers(0, 1 << 30),
)
@settings(derandomize=True, deadline=None, max_examples=200)
def test_is_the_reference_in_float64(shape, dtype, layout, alpha, gamma, reduction, targets, scale, seed):
    g = torch.Generator().manual_seed(seed)
    x = (scale * torch.randn(shape, generator=g)).to(dtype)
    if layout == "channels_last" and len(shape) == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "strided" and shape:
        x = torch.stack([x, x.flip(-1)], -1).flatten(-2)[..., ::2].unflatten(-1, (-1,)) if x.numel() else x
    elif layout == "transposed" and len(shape) > 1:
        x = x.transpose(0, 1)
    if targets == "index" and shape and x.size(-1):
        y = torch.randint(-1, x.size(-1), x.shape[:-1], generator=g)
        wide = y
    else:
        y = torch.rand(x.shape, generator=g).to(dtype)
        y = y.round() if targets == "hard" else y
        wide = y.double()
    loss, grad = value_and_grad(ops.sigmoid_focal_loss, x, y, alpha, gamma, reduction)
    with reference_mode():
        exact, exact_grad = value_and_grad(ops.sigmoid_focal_loss, x.double(), wide, alpha, gamma, reduction)
    assert loss.dtype == grad.dtype == dtype
    assert_close_to(loss, exact, reduction=16)
    assert_close_to(grad, exact_grad, reduction=16)
    if reduction == "none" and 1 not in shape:  # A side of one pixel has any stride.
        assert loss.stride() == torch.empty_like(x).stride()


@given(
    rows=st.integers(0, 40),
    classes=st.integers(1, 130),
    ignore=st.sampled_from([-100, -1, 3]),
    seed=st.integers(0, 999),
)
@settings(derandomize=True, deadline=None, max_examples=60)
def test_indices_are_composites(rows, classes, ignore, seed):
    g = torch.Generator().manual_seed(seed)
    x = 2 * torch.randn(rows, classes, generator=g)
    index = torch.randint(-1, classes, (rows,), generator=g)
    ours = value_and_grad(ops.sigmoid_focal_loss, x, index, ignore_index=ignore)
    one_hot = F.one_hot(torch.where(index < 0, classes, index), classes + 1)[:, :classes].float()
    theirs = value_and_grad(lambda x: torch.where((index == ignore)[:, None], 0, composite(x, one_hot)), x)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_sums_do_not_lose_small_losses():
    """A float32 running sum of a million equal losses would be off by far more."""
    x = torch.full((1 << 20,), -2.3)
    one = ops.sigmoid_focal_loss(x[:1].double(), torch.zeros(1, dtype=torch.float64))
    total = ops.sigmoid_focal_loss(x, torch.zeros_like(x), reduction="sum")
    torch.testing.assert_close(total.double(), one.sum() * (1 << 20), rtol=1e-6, atol=0)


X = torch.zeros(2, 3)
BAD = [
    (([1.0], X), {}, TypeError, "expected inputs to be a tensor, got list"),
    ((X.long(), X), {}, TypeError, "expected inputs of a floating-point dtype, got torch.int64"),
    ((X, [1.0]), {}, TypeError, "expected targets to be a tensor, got list"),
    ((X, X[:1]), {}, ValueError, r"expected targets of the shape \(2, 3\) .* got torch.float32 of shape \(1, 3\)"),
    ((X, X[:, 0]), {}, ValueError, r"integers of its first 1 dimension\(s\), got torch.float32 of shape \(2,\)"),
    ((X, X[:, 0].bool()), {}, ValueError, r"got torch.bool of shape \(2,\)"),
    ((X, X.long()[:, :2]), {}, ValueError, r"got torch.int64 of shape \(2, 2\)"),
    ((X[0, 0], X.long()[0]), {}, ValueError, r"integers of its first 0 dimension\(s\)"),
    ((X, X), {"reduction": "median"}, ValueError, "expected reduction 'none', 'mean' or 'sum', got 'median'"),
    ((X, X), {"alpha": 1.5}, ValueError, r"expected an alpha in \[0, 1\], or -1, got 1.5"),
    ((X, X), {"alpha": -0.5}, ValueError, "got -0.5"),
    ((X, X), {"alpha": NAN}, ValueError, "got nan"),
    ((X, X), {"alpha": "a"}, TypeError, "expected alpha to be a number, got str 'a'"),
    ((X, X), {"gamma": -1}, ValueError, "expected a finite gamma of at least 0, got -1"),
    ((X, X), {"gamma": INF}, ValueError, "got inf"),
    ((X, X), {"ignore_index": 1.5}, TypeError, "expected ignore_index to be an int, got float 1.5"),
    ((X, X.to("meta")), {}, ValueError, "expected all tensors on one device, got inputs on cpu, targets on meta"),
]


@pytest.mark.parametrize("args, kwargs, error, message", BAD)
def test_bad_input(args, kwargs, error, message):
    with pytest.raises(error, match=rf"^sigmoid_focal_loss: .*{message}") as raised:
        ops.sigmoid_focal_loss(*args, **kwargs)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "y, grad", [(X[:1], X), (X[:, 0], X), (X.double(), X), (X.int(), X), (X.long(), X), (X.long()[:, 0], X[:1])]
)
def test_raw_calls_of_wrong_shapes_are_refused(y, grad):
    op = torch.ops.fastcnn
    with pytest.raises((RuntimeError, IndexError)):
        op.sigmoid_focal_loss_backward(grad, X, y, 0.25, 2.0, 0, -100)
    if grad is X:
        with pytest.raises((RuntimeError, IndexError)):
            op.sigmoid_focal_loss(X, y, 0.25, 2.0, 0, -100)


def test_module():
    layer = fnn.SigmoidFocalLoss(alpha=0.5, gamma=1.5, reduction="sum", ignore_index=-1)
    assert repr(layer) == "SigmoidFocalLoss(alpha=0.5, gamma=1.5, reduction='sum', ignore_index=-1)"
    assert not layer.state_dict()
    x, index = torch.randn(4, 5), torch.tensor([0, -1, 4, 2])
    for module in (layer, copy.deepcopy(layer)):
        actual = value_and_grad(module, x, index)
        torch.testing.assert_close(actual, value_and_grad(ops.sigmoid_focal_loss, x, index, 0.5, 1.5, "sum", -1))
    with pytest.raises(ValueError, match=r"^SigmoidFocalLoss: expected reduction 'none', 'mean' or 'sum', got 'all'$"):
        fnn.SigmoidFocalLoss(reduction="all")
