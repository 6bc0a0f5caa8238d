"""What the contract suite does not say of the softmax focal loss: its kin, limits, layouts, bad input."""

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

MODES = [_library.kernel_mode, reference_mode]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
INF, NAN = math.inf, math.nan


@pytest.mark.parametrize("mode", MODES)
class TestValues:
    def test_by_hand(self, mode):
        x = torch.log(torch.tensor([[0.9, 0.1], [0.25, 0.75]]))
        with mode():
            actual = ops.softmax_focal_loss(x, torch.tensor([0, 0]), torch.tensor([0.5, 1.0]))
        expected = torch.tensor([0.01 * -math.log(0.9), 0.75**2 * -math.log(0.25)]) / 2
        torch.testing.assert_close(actual, expected)

    @pytest.mark.parametrize("shape", [(6,), (4, 6), (3, 5, 7), (2, 6, 4, 3)])
    @pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
    def test_gamma_zero_is_cross_entropy(self, mode, shape, reduction):
        g = torch.Generator().manual_seed(0)
        x = torch.randn(shape, generator=g)
        size = (shape[0], *shape[2:]) if len(shape) > 1 else ()
        classes = shape[1] if len(shape) > 1 else shape[0]
        targets = torch.randint(classes, size, generator=g)
        with mode():
            actual = value_and_grad(ops.softmax_focal_loss, x, targets, gamma=0, reduction=reduction, ignore_index=1)
        expected = value_and_grad(F.cross_entropy, x, targets, reduction=reduction, ignore_index=1)
        torch.testing.assert_close(actual, expected, equal_nan=True)

    def test_two_classes_are_the_sigmoids(self, mode):
        x = 3 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
        targets = torch.arange(50) % 2
        with mode():
            ours = ops.softmax_focal_loss(x, targets, torch.tensor([0.75, 0.25]), gamma=1.5)
            theirs = ops.sigmoid_focal_loss(x[:, 1] - x[:, 0], targets.float(), gamma=1.5)
        torch.testing.assert_close(ours, theirs)

    def test_a_number_weighs_all_classes(self, mode):
        x, targets = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
        with mode():
            torch.testing.assert_close(ops.softmax_focal_loss(x, targets, 0.25), ops.softmax_focal_loss(x, targets) / 4)

    @pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 2.5])
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_huge_logits(self, mode, dtype, gamma):
        x = torch.tensor([[1e4, -1e4, 0], [1e4, -1e4, 0], [3e4, 3e4, -3e4]]).to(dtype)
        with mode():
            loss, grad = value_and_grad(ops.softmax_focal_loss, x, torch.tensor([0, 1, 2]), None, gamma)
        torch.testing.assert_close(loss, torch.tensor([0.0, 2e4, 6e4 + math.log(2)], dtype=torch.float64).to(dtype))
        expected = torch.tensor([[0.0, 0, 0], [1, -1, 0], [0.5, 0.5, -1]]).to(dtype)
        torch.testing.assert_close(grad, expected)

    @pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
    def test_classes_ruled_out(self, mode, gamma):
        """A logit of -inf is a probability of 0, as in cross_entropy."""
        x = torch.tensor([[0.0, -INF, 1.0]] * 2)
        with mode():
            loss, grad = value_and_grad(ops.softmax_focal_loss, x, torch.tensor([0, 1]), None, gamma)
            less = value_and_grad(ops.softmax_focal_loss, x[:1, [0, 2]], torch.tensor([0]), None, gamma)
        torch.testing.assert_close((loss[:1], grad[:1, [0, 2]]), less)
        assert grad[0, 1] == 0
        assert loss[1] == INF
        p = torch.softmax(x[1], 0)
        torch.testing.assert_close(grad[1], p - torch.tensor([0.0, 1, 0]))

    def test_nan_stays_in_its_position(self, mode):
        x = torch.randn(3, 4, 5)
        x[1, 2, 3] = NAN
        targets = torch.zeros(3, 5, dtype=torch.int64)
        with mode():
            loss, grad = value_and_grad(ops.softmax_focal_loss, x, targets)
        assert loss.isnan().nonzero().tolist() == [[1, 3]]
        assert grad.isnan().any(1).nonzero().tolist() == [[1, 3]]

    @pytest.mark.parametrize("ignored", [-100, 0, 255])
    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "NHWC"])
    def test_ignored_positions_do_not_count(self, mode, ignored, layout):
        x = torch.randn(2, 5, 3, 7, generator=torch.Generator().manual_seed(0))
        targets = torch.arange(42).view(2, 3, 7) % 5
        drop = targets == 0
        x.movedim(1, -1)[drop] = NAN
        x = x.contiguous(memory_format=layout)
        targets[drop] = ignored
        weights = torch.rand(5, generator=torch.Generator().manual_seed(0))
        kept = x.movedim(1, -1)[~drop], targets[~drop], weights
        with mode():
            for reduction in ("mean", "sum", "none"):
                options = {"reduction": reduction, "ignore_index": ignored}
                loss, grad = value_and_grad(ops.softmax_focal_loss, x, targets, weights, **options)
                less, less_grad = value_and_grad(ops.softmax_focal_loss, *kept, reduction=reduction)
                torch.testing.assert_close(loss[~drop] if reduction == "none" else loss, less)
                torch.testing.assert_close(grad.movedim(1, -1)[~drop], less_grad)
                assert not grad.movedim(1, -1)[drop].any()
        assert not loss[drop].any()

    def test_mean_of_nothing_is_nan(self, mode):
        with mode():
            nothing = torch.zeros(0, dtype=torch.int64)
            assert ops.softmax_focal_loss(torch.zeros(0, 3), nothing, reduction="mean").isnan()
            assert ops.softmax_focal_loss(torch.zeros(0, 3), nothing, reduction="sum") == 0
            ignored = torch.tensor([-100])
            assert ops.softmax_focal_loss(torch.zeros(1, 3), ignored, reduction="mean").isnan()

    @pytest.mark.parametrize("value", [-1, 4, 1 << 40])
    def test_no_such_class(self, mode, value):
        targets = torch.zeros(2, 3, dtype=torch.int64)
        targets[1, 1] = value
        with (
            mode(),
            pytest.raises(IndexError, match=rf"^softmax_focal_loss: target {value} at position 4 .* 4 classes$"),
        ):
            ops.softmax_focal_loss(torch.randn(2, 4, 3), targets)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 2.5])
def test_what_is_not_finite(gamma, device="cpu"):
    rows = [[0, -INF, 1], [-INF, -INF, -INF], [-INF, 3, -INF], [INF, 0, 0], [NAN, 0, 0], [1e4, -1e4, 0], [-1e4, 0, 1e4]]
    x, target = torch.tensor(rows), torch.tensor([0, 1, 1, 0, 1, 1, 2])
    with _library.kernel_mode():
        loss = ops.softmax_focal_loss(x.to(device), target.to(device), None, gamma)
    with reference_mode():
        exact = ops.softmax_focal_loss(x.double(), target, None, gamma)
    torch.testing.assert_close(loss.cpu().double(), exact, equal_nan=True, rtol=1e-5, atol=1e-6)


def test_a_probable_target_keeps_its_accuracy():
    """log p_t and 1 - p_t of p_t = 1 - 2e-9, which float32 rounds to 1."""
    x = torch.tensor([[20.0, 0.0]])
    loss, grad = value_and_grad(ops.softmax_focal_loss, x, torch.tensor([0]))
    exact, exact_grad = value_and_grad(ops.softmax_focal_loss, x.double(), torch.tensor([0]))
    torch.testing.assert_close((loss.double(), grad.double()), (exact, exact_grad), rtol=1e-5, atol=0)


def test_weights_get_gradients_too():
    x, targets = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 2, -100, 0])
    alpha = torch.rand(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: ops.softmax_focal_loss(x, targets, a), alpha)


@given(
    shape=st.tuples(st.integers(0, 4), st.integers(1, 40), st.integers(0, 9), st.integers(0, 9)),
    dims=st.integers(2, 4),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(["contiguous", "last", "slice", "batch last"]),
    gamma=st.sampled_from([0.0, 0.7, 1.0, 2.0, 3.0]),
    reduction=st.sampled_from(["none", "mean", "sum"]),
    weighted=st.booleans(),
    scale=st.sampled_from([0.1, 3.0, 50.0]),
    seed=st.integers(0, 1 << 30),
)
@settings(derandomize=True, deadline=None, max_examples=200)
def test_is_the_reference_in_float64(shape, dims, dtype, layout, gamma, reduction, weighted, scale, seed):
    g = torch.Generator().manual_seed(seed)
    shape = shape[:dims]
    x = (scale * torch.randn(shape, generator=g)).to(dtype)
    if layout == "last":
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    elif layout == "slice":
        x = F.pad(x, (1, 2), value=NAN)[..., 1:-2]
    elif layout == "batch last":
        x = x.movedim(0, -1).contiguous().movedim(-1, 0)
    targets = torch.randint(-1, shape[1], (shape[0], *shape[2:]), generator=g)
    targets.view(-1)[:1] = 0
    alpha = torch.rand(shape[1], generator=g) if weighted else None
    args = (targets, alpha, gamma, reduction, -1)
    loss, grad = value_and_grad(ops.softmax_focal_loss, x, *args)
    with reference_mode():
        exact, exact_grad = value_and_grad(ops.softmax_focal_loss, x.double(), *args)
    assert loss.dtype == grad.dtype == dtype
    assert_close_to(loss, exact, reduction=16)
    assert_close_to(grad, exact_grad, reduction=16)


X, Y = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
BAD = [
    (([1.0], Y), {}, TypeError, "expected inputs to be a tensor, got list"),
    ((X.long(), Y), {}, TypeError, "expected inputs of a floating-point dtype, got torch.int64"),
    ((X, X), {}, TypeError, "expected targets to be a tensor of integers, got torch.float32"),
    ((X, Y.bool()), {}, TypeError, "expected targets to be a tensor of integers, got torch.bool"),
    ((X, [0, 1]), {}, TypeError, "expected targets to be a tensor of integers, got list"),
    ((X, Y[:1]), {}, ValueError, r"inputs \[N, C, ...\] and targets \[N, ...\], got \(2, 3\) and \(1,\)"),
    ((X[..., None], Y), {}, ValueError, r"got \(2, 3, 1\) and \(2,\)"),
    ((X[0, 0], Y[0]), {}, ValueError, r"got \(\) and \(\)"),
    ((X[:, :0], Y), {}, ValueError, r"expected inputs with at least one class, got shape \(2, 0\)"),
    ((X, Y, X[0, :2]), {}, ValueError, r"expected an alpha for each of 3 classes, got shape \(2,\)"),
    ((X, Y, Y), {}, TypeError, "expected alpha of a floating-point dtype, got torch.int64"),
    ((X, Y, "a"), {}, TypeError, "expected alpha to be a number, got str 'a'"),
    ((X, Y), {"gamma": -1}, ValueError, "expected a finite gamma of at least 0, got -1"),
    ((X, Y), {"reduction": None}, ValueError, "expected reduction 'none', 'mean' or 'sum', got None"),
    ((X, Y), {"ignore_index": None}, TypeError, "expected ignore_index to be an int, got NoneType None"),
    ((X, Y.to("meta")), {}, ValueError, "expected all tensors on one device, got inputs on cpu, targets on meta"),
]


@pytest.mark.parametrize("args, kwargs, error, message", BAD)
def test_bad_input(args, kwargs, error, message):
    with pytest.raises(error, match=rf"^softmax_focal_loss: .*{message}") as raised:
        ops.softmax_focal_loss(*args, **kwargs)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "x, y, alpha, grad",
    [
        (X, Y[:1], None, Y.float()),
        (X, Y.int(), None, Y.float()),
        (X, Y + 3, None, Y.float()),
        (X[0], Y[0], None, X[0, 0]),
        (X, Y, X[0, :2], Y.float()),
        (X, Y, None, X[0]),
        (X, Y, None, Y.double()),
    ],
)
def test_raw_calls_of_wrong_shapes_are_refused(x, y, alpha, grad):
    op = torch.ops.fastcnn
    with pytest.raises((RuntimeError, IndexError)):
        op.softmax_focal_loss_backward(grad, x, y, alpha, 2.0, 0, -100)
    if not (y is Y and alpha is None):
        with pytest.raises((RuntimeError, IndexError)):
            op.softmax_focal_loss(x, y, alpha, 2.0, 0, -100)


def test_module():
    weights = torch.tensor([1.0, 2.0, 3.0])
    layer = fnn.SoftmaxFocalLoss(weights, gamma=1.0, reduction="mean", ignore_index=255)
    assert repr(layer) == "SoftmaxFocalLoss(alpha=[3], gamma=1.0, reduction='mean', ignore_index=255)"
    assert not layer.state_dict()
    assert layer.double().alpha.dtype == torch.float64
    x, targets = torch.randn(4, 3), torch.tensor([0, 255, 2, 1])
    for module in (layer, copy.deepcopy(layer)):
        actual = value_and_grad(module, x, targets)
        torch.testing.assert_close(
            actual, value_and_grad(ops.softmax_focal_loss, x, targets, weights, 1.0, "mean", 255)
        )
    assert repr(fnn.SoftmaxFocalLoss(0.5)).startswith("SoftmaxFocalLoss(alpha=0.5, gamma=2.0, reduction='none'")
    with pytest.raises(ValueError, match=r"^SoftmaxFocalLoss: expected reduction 'none', 'mean' or 'sum', got 'all'$"):
        fnn.SoftmaxFocalLoss(reduction="all")
