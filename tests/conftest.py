"""Which tests begin first, and what they draw."""

import pytest
import torch


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(autouse=True)
def _seeded():
    """A test draws the same numbers alone, in any order and on any worker."""
    torch.manual_seed(0)
