"""docs/techniques.md: what it names is there."""

import importlib
import re
from pathlib import Path

import pytest
import torch

from fastcnn import ops

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/techniques.md").read_text()
ROWS = re.findall(r"^\| (T-\d{3}) \|(.*)\|$", PAGE, re.MULTILINE)


def find(name):
    """The module, class, function or attribute of a dotted name; a field of a dataclass that has no default too."""
    path, rest = name, []
    while True:
        try:
            found = importlib.import_module(path)
            break
        except ModuleNotFoundError:
            path, _, last = path.rpartition(".")
            rest.insert(0, last)
    for part in rest:
        found = getattr(found, part)
    return found


def test_rows_are_in_order():
    ids = [row for row, _ in ROWS]
    assert len(ids) >= 56 and ids == sorted(set(ids))
    assert len(ROWS) == PAGE.count("| T-"), "a row that is not of four columns"


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(fastcnn(?:\.\w+)+)`", PAGE))))
def test_names_import(name):
    assert find(name) is not None


@pytest.mark.parametrize(("row", "cells"), ROWS, ids=[row for row, _ in ROWS])
def test_tests_exist(row, cells):
    tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", cells.split("|")[-1])
    assert tests, "no test holds it"
    for path, name in tests:
        assert re.search(rf"^\s*def {name}\(", (ROOT / path).read_text(), re.MULTILINE), f"{path} has no {name}"


def test_a_name_that_is_not_there_is_noticed():
    with pytest.raises(AttributeError):
        find("fastcnn.models.no_such_thing")


def test_focal_loss_of_the_lectures_easy_examples():
    """100,000 easy examples of a loss of 0.1 outweigh 100 hard ones of 2.3, 43.5 to 1; with gamma 2 they do not."""
    losses = torch.tensor([0.1, 2.3], dtype=torch.float64)
    logits = torch.special.logit(torch.exp(-losses))
    weights = torch.tensor([100_000.0, 100.0], dtype=torch.float64)
    ratios = []
    for gamma in (0.0, 2.0):
        easy, hard = weights * ops.sigmoid_focal_loss(logits, torch.ones_like(logits), alpha=-1, gamma=gamma)
        ratios.append((easy / hard).item())
    assert ratios == pytest.approx([43.478, 0.486], rel=2e-3)
