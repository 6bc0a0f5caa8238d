"""Run by test_triton_interpreter.py, in a process where TRITON_INTERPRET=1: Triton kernels on CPU tensors."""

import pytest
import torch
from canaries import Canaries

from fastcnn.kernels import hardswish as kernels
from fastcnn.kernels._configs import ELEMENTWISE

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
EPSILON = {dtype: torch.finfo(dtype).eps for dtype in DTYPES}
KNEES = [-3.0, 3.0, float("nan"), float("inf"), float("-inf"), 0.0, -0.0]


def exact(x):
    return torch.where(x <= -3, 0 * x, torch.where(x >= 3, x, x * (x + 3) / 6))


def exact_backward(grad, x):
    return torch.where(x <= -3, 0, torch.where(x >= 3, grad, grad * (x / 3 + 0.5)))


def values(count, dtype):
    """Values on both sides of the knees, the knees themselves, their neighbours in `dtype`, and what is not finite."""
    knees = torch.tensor(KNEES, dtype=torch.float64).to(dtype)
    near = torch.tensor([-3.0, 3.0], dtype=dtype)
    near = torch.cat([near * (1 - EPSILON[dtype]), near * (1 + EPSILON[dtype])])
    special = torch.cat([knees, near])[:count]
    rest = torch.randn(count - len(special), dtype=torch.float64, generator=torch.Generator().manual_seed(count)) * 3
    return torch.cat([rest.to(dtype), special])


def assert_close(actual, expected):
    eps = EPSILON[actual.dtype]
    # x * (x + 3) / 6 cancels where x + 3 does: its error is relative to the operands.
    torch.testing.assert_close(actual.double(), expected, rtol=2 * eps, atol=4 * eps, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", [None, -1, 0, 1])
def test_values_and_bounds(dtype, offset):
    block = ELEMENTWISE[dtype.itemsize].block
    for count in [1, 5, 16] if offset is None else [block + offset, 3 * block + offset]:
        with Canaries() as canaries:
            x = canaries.guard(values(count, dtype))
            grad = canaries.guard(torch.randn(count, generator=torch.Generator().manual_seed(1)).to(dtype))
            out = torch.empty_like(x)
            kernels._launch(kernels._forward_kernel, (x, out))
            assert_close(out, exact(x.double()))
            kernels._launch(kernels._backward_kernel, (grad, x, out))
            assert_close(out, exact_backward(grad.double(), x.double()))


def layouts():
    g = torch.Generator().manual_seed(2)
    x = torch.randn(2, 6, 5, 7, generator=g) * 3
    return {
        "contiguous": x,
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        "permuted": x.permute(3, 1, 0, 2),
        "sliced": x[:, 1:5, ::2, 1:],
        "expanded": x[:, :1].expand(2, 6, 5, 7),
        "scalar": x[0, 0, 0, 0],
        "empty": x[:0],
    }


@pytest.mark.parametrize("name", layouts())
def test_layouts(name):
    x = layouts()[name]
    for grad in (torch.randn(x.shape), torch.randn(()).expand(x.shape)):
        out, back = kernels.hardswish(x), kernels.hardswish_backward(grad, x)
        assert out.stride() == back.stride() == torch.empty_like(x).stride()
        assert_close(out, exact(x.double()))
        assert_close(back, exact_backward(grad.double(), x.double()))


def test_gradient_of_another_dtype():
    x, grad = torch.randn(50).half(), torch.randn(50)
    back = kernels.hardswish_backward(grad, x)
    assert back.dtype == torch.float16
    assert_close(back, exact_backward(grad.double(), x.double()))
