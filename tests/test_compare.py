"""What results are compared with: rounding is let pass, and nothing else."""

import pytest
import torch

from fastcnn.testing.compare import assert_close_to


def test_what_overflows_in_the_dtype_is_infinite():
    exact = torch.tensor([1e6, -1e6, 1.0], dtype=torch.float64)
    assert_close_to(exact.half(), exact)
    for wrong in ([65504.0, -torch.inf, 1.0], [-torch.inf, -torch.inf, 1.0], [torch.inf, -torch.inf, 1.01]):
        with pytest.raises(AssertionError):
            assert_close_to(torch.tensor(wrong).half(), exact)


def test_errors_grow_with_the_root_of_the_length_of_a_sum():
    exact = torch.ones(3, dtype=torch.float64)
    off = (exact + 1e-4).float()
    with pytest.raises(AssertionError):
        assert_close_to(off, exact, reduction=100)
    assert_close_to(off, exact, reduction=10_000)
