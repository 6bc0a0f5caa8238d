"""The algorithm of csrc/nms/nms_cuda.cuh in numpy: that rounds of all boxes at once end in greedy suppression."""

import numpy as np
import pytest

BAND = 3


def greedy(over):
    """Box by box. over[k, i]: if k is kept, i is not; only for k < i, as boxes are in order of score."""
    keep = np.ones(len(over), dtype=bool)
    for i in range(len(over)):
        keep[i] = not (over[:i, i] & keep[:i]).any()
    return keep


def fixpoint(over, alive):
    """All boxes of a tile at once, until a round changes nothing; also how many rounds that took."""
    keep, rounds = alive.copy(), 0
    while True:
        following = alive & ~(over & keep[:, None]).any(0)
        rounds += 1
        if (following == keep).all():
            return keep, rounds
        keep = following


def longest_chain(over):
    """Of boxes each of which could suppress the next one."""
    length = np.ones(len(over), dtype=int)
    for i in range(len(over)):
        length[i] += max(length[:i][over[:i, i]], default=0)
    return int(length.max(initial=0))


def random_suppressors(draw, count):
    kind = draw.integers(4)
    if kind == 0:  # Intervals on a line.
        begin = draw.random(count) * count
        end = begin + draw.random(count) * draw.choice([1.0, 4.0, count])
        over = np.minimum(end[:, None], end) - np.maximum(begin[:, None], begin) > draw.choice([0.0, 0.5])
    elif kind == 1:  # A chain, each box over the next, in order.
        over = np.eye(count, k=1, dtype=bool)
    else:  # Anything at all: what is used of IoU is only that it is a relation.
        over = draw.random((count, count)) < draw.choice([0.01, 0.1, 0.3, 0.9])
    return np.triu(over, 1)


@pytest.mark.parametrize("part", range(4))
def test_rounds_end_in_greedy_suppression(part):
    draw = np.random.default_rng(part)
    for _ in range(1000):
        over = random_suppressors(draw, int(draw.integers(0, 40)))
        keep, rounds = fixpoint(over, np.ones(len(over), dtype=bool))
        assert (keep == greedy(over)).all()
        # Round r settles boxes that end chains of r + 1; the last round finds nothing to change.
        assert rounds <= max(longest_chain(over), 1) <= max(len(over), 1)


def test_a_chain_takes_as_many_rounds_as_there_are_boxes():
    for count in (1, 2, 7, 64):
        keep, rounds = fixpoint(np.eye(count, k=1, dtype=bool), np.ones(count, dtype=bool))
        assert (keep == (np.arange(count) % 2 == 0)).all() and count - 1 <= rounds <= count


def groups_of(classes):
    """Where the group of each position begins, of classes that lie one after another."""
    begins = np.flatnonzero(np.diff(classes, prepend=classes[:1] - 1))
    return begins[np.searchsorted(begins, np.arange(len(classes)), side="right") - 1]


def tiled(over, classes, tile, ready):
    """As nms_tiles: tiles of boxes class by class, decided in any order in which `ready` picks those that can be."""
    begin = groups_of(classes)
    keep = np.zeros(len(over), dtype=bool)
    waiting = list(range(0, len(over), tile))
    while waiting:
        # Only the group of the first box can have begun in an earlier tile, which then must be decided.
        able = [start for start in waiting if begin[start] == start or start - tile not in waiting]
        start = ready(able)
        waiting.remove(start)
        # A box meets those before it that do not come before its group: no class is compared.
        own = np.arange(start, min(start + tile, len(over)))
        others = np.arange(len(over))[:, None]
        meets = over[:, own] & (others >= begin[own]) & (others < own)
        # Of the band all boxes are met, and whether they are kept is asked afterwards; before it, only those kept.
        first, band = begin[start], max(start - BAND * tile, begin[start])
        alive = ~meets[first + np.flatnonzero(keep[first:band])].any(0)
        alive &= ~(meets[band:start] & keep[band:start, None]).any(0)
        keep[own], _ = fixpoint(meets[own], alive)
    return keep


@pytest.mark.parametrize("tile", [1, 8, 64])
@pytest.mark.parametrize("part", range(2))
def test_tiles_wait_for_no_more_than_the_tile_before(part, tile):
    draw = np.random.default_rng(part)
    for _ in range(500):
        count = int(draw.integers(1, (2 * BAND + 2) * tile + 30))
        over = random_suppressors(draw, count)
        classes = draw.integers(draw.choice([1, 2, 6, 30]), size=count)
        order = np.argsort(classes, kind="stable")
        keep = np.zeros(count, dtype=bool)
        keep[order] = tiled(over[np.ix_(order, order)], classes[order], tile, draw.choice)
        assert (keep == greedy(over & (classes[:, None] == classes))).all()
