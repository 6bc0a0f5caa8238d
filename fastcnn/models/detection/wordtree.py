"""Classes that form a tree: softmax over siblings, and the product of conditionals on the way to a class."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class WordTree(nn.Module):
    """Hierarchical classification: each node's output says how probable it is, given its parent.

    The children of a node are a softmax, and so are the nodes without a parent. The probability of a class is the
    product of the conditional ones from the top down to it. All methods take the nodes in the last dimension, in the
    order of ``parents``, and let gradients flow. Deterministic on a CPU; on a GPU sums over siblings are in no fixed
    order unless ``torch.use_deterministic_algorithms`` is on. Source: Redmon and Farhadi, YOLO9000, CVPR 2017,
    section 4, "Hierarchical classification".

    Args:
        parents: the parent of each node, -1 where it has none; in any order.
        names: of the nodes.

    Raises:
        ValueError: no node, a parent that is none, a node that is its own ancestor, or another number of names.
        TypeError: a parent that is no int.
    """

    parent: Tensor
    group: Tensor
    ancestors: Tensor
    depth: Tensor

    def __init__(self, parents: Sequence[int], names: Sequence[str] | None = None, *, device: Any = None) -> None:
        super().__init__()
        depths = _depths(parents)
        if names is not None and len(names) != len(parents):
            raise ValueError(f"names must be one for each of {len(parents)} nodes, got {len(names)}")
        self.names = None if names is None else tuple(names)
        count = len(parents)
        numbers = {parent: number for number, parent in enumerate(sorted(set(parents)))}
        self.groups = len(numbers)
        levels = max(depths) + 1
        # Row i: i, its parent, its parent's parent ..., then `count`, for which methods add a node of probability 1.
        above = torch.tensor([*(parent if parent >= 0 else count for parent in parents), count])
        columns = [torch.arange(count)]
        for _ in range(levels - 1):
            columns.append(above[columns[-1]])
        buffers = {
            "parent": torch.tensor(parents).clamp(min=0),  # Of the first level none is looked up.
            "group": torch.tensor([numbers[parent] for parent in parents]),
            "ancestors": torch.stack(columns, 1),
            "depth": torch.tensor(depths),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value.to(device), persistent=False)
        self.levels = levels

    def __len__(self) -> int:
        return len(self.parent)

    def log_conditionals(self, logits: Tensor) -> Tensor:
        """Logarithm of each node's probability, given its parent: (..., nodes) of the same shape."""
        highest, group = self._highest(logits)
        shifted = logits - highest.gather(-1, group)
        sums = torch.zeros_like(highest).scatter_add(-1, group, shifted.exp())
        return shifted - sums.log().gather(-1, group)

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """Logarithm of each node's probability: (..., nodes) of the same shape. Within a level they sum up to the
        level's parents'."""
        conditionals = found = self.log_conditionals(logits)
        for level in range(1, self.levels):
            found = torch.where(self.depth == level, conditionals + found[..., self.parent], found)
        return found

    def log_probability(self, logits: Tensor, node: Tensor) -> Tensor:
        """The logarithm of one node's probability for each row: (..., nodes) and integers (...) to (...)."""
        conditionals = self.log_conditionals(logits)
        padded = torch.cat([conditionals, torch.zeros_like(conditionals[..., :1])], -1)
        return padded.gather(-1, self.ancestors[node]).sum(-1)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Sum of the negative logarithms of the labels' probabilities: (T, nodes), (T) to a scalar.

        Only the groups from a label upwards get a gradient: nothing is said of what is below it.
        """
        return -self.log_probability(logits, labels).sum()

    def predict(self, logits: Tensor, threshold: float = 0.5) -> tuple[Tensor, Tensor]:
        """Goes down from the most probable node without a parent, at every split to the most probable child, while
        the product of the probabilities is above ``threshold``.

        Returns the node reached (...), and its probability (...). The first node is taken whatever its probability;
        of equal siblings the deepest path counts, then the first node.
        """
        probabilities = self.log_probabilities(logits)
        highest, group = self._highest(logits)
        passed = logits == highest.gather(-1, group)
        above = (probabilities > torch.as_tensor(threshold).log()) | (self.depth == 0)
        passed = passed & above
        for level in range(1, self.levels):
            passed = torch.where(self.depth == level, passed & passed[..., self.parent], passed)
        node = torch.where(passed, self.depth, -1).argmax(-1)
        return node, probabilities.gather(-1, node[..., None])[..., 0].exp()

    def _highest(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        if logits.shape[-1:] != (len(self),):
            raise ValueError(f"this WordTree takes (..., {len(self)}), got {tuple(logits.shape)}")
        group = self.group.expand_as(logits)
        lowest = logits.new_full((*logits.shape[:-1], self.groups), -torch.inf)
        return lowest.scatter_reduce(-1, group, logits.detach(), "amax"), group

    def extra_repr(self) -> str:
        return f"{len(self)} nodes, {self.groups} groups, {self.levels} levels"


def _depths(parents: Sequence[int]) -> list[int]:
    if not len(parents):
        raise ValueError("a WordTree needs a node, got none")
    for node, parent in enumerate(parents):
        if not isinstance(parent, int) or isinstance(parent, bool):
            raise TypeError(f"parents must be ints, got {parent!r} for node {node}")
        if not -1 <= parent < len(parents):
            raise ValueError(f"parents must be -1 to {len(parents) - 1}, got {parent} for node {node}")
    depths: dict[int, int] = {-1: -1}
    for start in range(len(parents)):
        path = []
        node = start
        while node not in depths:
            path.append(node)
            if len(path) > len(parents):
                raise ValueError(f"node {start} is its own ancestor")
            node = parents[node]
        for below in reversed(path):
            depths[below] = depths[parents[below]] + 1
    return [depths[node] for node in range(len(parents))]


def generate_parents(nodes: int, children: int = 8) -> tuple[int, ...]:
    """The parents of a complete forest, for where the real list is not at hand: every node has so many children."""
    return tuple(node // children - 1 for node in range(nodes))


def read_word_tree(path: str | PathLike[str], *, device: Any = None) -> WordTree:
    """Reads Darknet's format: a line for each node, its name and the number of its parent, -1 for none.

    Raises:
        ValueError: a line of another form, with its number; or what :class:`WordTree` raises.
    """
    names, parents = [], []
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        if not line.strip():
            continue
        words = line.split()
        try:
            name, parent = words
            parents.append(int(parent))
        except ValueError:
            raise ValueError(f"{Path(path).name}, line {number}: expected a name and a parent, got {line!r}") from None
        names.append(name)
    return WordTree(parents, names, device=device)
