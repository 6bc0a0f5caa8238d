"""Data-parallel training under ``torchrun``: what one process knows of the others."""

from __future__ import annotations

import os
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

T = TypeVar("T")


class Processes:
    """The group that ``torchrun`` started, or this process alone.

    Attributes:
        rank, world: which process this is, of how many.
        local: its number on this machine, which is that of its GPU.
    """

    def __init__(self, rank: int = 0, world: int = 1, local: int = 0) -> None:
        self.rank, self.world, self.local = rank, world, local

    @classmethod
    def join(cls, device: str) -> Processes:
        """Joins the group of ``torchrun``'s environment, over nccl on GPUs and gloo otherwise; alone without one."""
        if "WORLD_SIZE" not in os.environ:
            return cls()
        if not distributed.is_initialized():
            distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
        return cls(distributed.get_rank(), distributed.get_world_size(), int(os.environ.get("LOCAL_RANK", 0)))

    def leave(self) -> None:
        if self.world > 1 and distributed.is_initialized():
            distributed.destroy_process_group()

    @property
    def first(self) -> bool:
        """Whether this one writes files and prints."""
        return self.rank == 0

    def parallel(self, net: nn.Module, device: torch.device) -> nn.Module:
        """The network with gradients averaged over all processes."""
        if self.world == 1:
            return net
        ids = [device] if device.type == "cuda" else None
        # A step without a positive leaves parameters of boxes without a gradient.
        return nn.parallel.DistributedDataParallel(net, device_ids=ids, find_unused_parameters=True)

    def gather(self, mine: list[T]) -> list[T]:
        """The lists of all processes, one after the other."""
        if self.world == 1:
            return mine
        lists: list[Any] = [None] * self.world
        distributed.all_gather_object(lists, mine)
        return [each for part in lists for each in part]

    def mean(self, value: Tensor) -> Tensor:
        """The mean of all processes' values; without a gradient."""
        if self.world == 1:
            return value
        value = value.detach().clone()
        distributed.all_reduce(value)
        return value / self.world
