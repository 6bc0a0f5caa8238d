"""The loop that trains a detector."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.models import ConvNet, create
from fastcnn.train.checkpoints import read_checkpoint, write_checkpoint
from fastcnn.train.evaluation import evaluate, first_label
from fastcnn.train.loading import mix, open_data, to_device, training_loader
from fastcnn.train.processes import Processes
from fastcnn.train.recipes import FREE, Recipe

CHECKPOINT = "checkpoint.pt"
AMP = {"": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
Show = Callable[[int, str], None]


class Trainer:
    """A recipe under way: the network, its data, the optimiser and what was logged.

    On a CPU the same recipe gives the same weights to the bit, stopped and resumed or not, with any number of workers.

    Args:
        recipe: what to do.
        folder: where ``checkpoint.pt`` is written; made if it is not there.
        device: as torch's; under ``torchrun``, "cuda" is the process's own GPU.
        resume: go on from the folder's checkpoint.
        amp: "bfloat16" or "float16": mixed precision by ``torch.autocast``; with float16 the loss is scaled.
        processes: see :class:`Processes`.

    Raises:
        ValueError: a recipe whose network, data or settings do not fit; a checkpoint that is damaged or of another.
        FileNotFoundError: no such data, or no checkpoint.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: str | Path,
        *,
        device: str = "cpu",
        amp: str = "",
        resume: bool = False,
        processes: Processes | None = None,
    ) -> None:
        if amp not in AMP:
            raise ValueError(f"amp must be one of {', '.join(filter(None, AMP))}, got {amp!r}")
        self.recipe, self.folder, self.amp = recipe, Path(folder), amp
        # First, for to open the data takes longer.
        content = _read(self.folder / CHECKPOINT, recipe) if resume else None
        self.processes = processes or Processes()
        index = f":{self.processes.local}" if device == "cuda" and self.processes.world > 1 else ""
        self.device = torch.device(device + index)
        self.began, self.before = time.perf_counter(), 0.0
        overrides = recipe.overrides()
        probe = create(recipe.network, device="meta", **overrides)
        masks = bool(getattr(probe, "has_masks", False))
        self.first = first_label(probe)
        self.data, self.classes = open_data(recipe, False, masks=masks)
        self.held_out, _ = open_data(recipe, True, masks=masks)
        self.options = {**overrides, "num_classes": len(self.classes) + self.first}
        # What the kernels are the fastest in; images become so in the first convolution.
        self.net = self._network().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = make_optimizer(self.net, recipe)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: rate(step, recipe))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=amp == "float16")
        self.step = 0
        self.history: list[dict[str, Any]] = []
        self.checks: list[dict[str, Any]] = []
        if content is not None:
            self._restore(content)

    def _network(self) -> ConvNet:
        recipe = self.recipe
        torch.manual_seed(recipe.seed)
        if not recipe.weights:
            return create(recipe.network, **self.options)
        net: Any = create(recipe.network, weights=recipe.weights, **recipe.overrides())
        classes = self.options["num_classes"]
        return net if net.num_classes == classes else net.replace_head(classes)

    def fit(self, show: Show = lambda step, line: None) -> dict[str, Any]:
        """Trains to the last step; returns what there is to report.

        Args:
            show: called after each step with its number, from 1, and what is to be logged of it, which may be nothing.

        Returns:
            ``recipe``, ``parameters``, ``classes``, ``seconds`` to the last test, ``history`` (for every ``log_every``
            steps ``step``, ``seconds``, ``lr``, ``loss`` and each loss by name, means over these steps), ``checks`` (of
            held-out images, see :func:`evaluate`), and ``metrics``, the last of them.

        Raises:
            ValueError: the loss is not finite, or what the network says of a target.
        """
        recipe, every = self.recipe, self.recipe.log_every
        steps = range(self.step, recipe.steps)
        model = self.processes.parallel(self.net, self.device)
        loader = training_loader(self.data, recipe, steps, self.processes.rank, self.processes.world)
        sums: dict[str, Tensor] = {}
        summed = 0  # Fewer than log_every after a stop between two lines.
        model.train()
        for step, (images, targets) in zip(steps, loader, strict=True):
            losses = self._step(model, step, images, targets)
            sums = {name: sums.get(name, 0) + value.detach() for name, value in losses.items()}
            self.step, line, summed = step + 1, "", summed + 1
            if self.step % every == 0 or self.step == recipe.steps:
                line = self._log({name: value.item() / summed for name, value in sums.items()})
                sums, summed = {}, 0
            last = self.step == recipe.steps
            if last or (recipe.check_every and self.step % recipe.check_every == 0):
                line = f"{line}  {self.check()}".strip()
                model.train()
            show(self.step, line)
        if not self.checks:
            show(self.step, self.check())
        return self.report()

    def _step(self, model: nn.Module, step: int, images: Any, targets: Any) -> dict[str, Tensor]:
        images, targets = to_device(images, targets, self.device, self.first)
        torch.manual_seed(mix(self.recipe.seed, step, self.processes.rank))
        dtype = AMP[self.amp]
        with torch.autocast(self.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            losses: dict[str, Tensor] = model(images, targets)
            loss = torch.stack([value.float() for value in losses.values()]).sum()
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        if self.recipe.clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        return losses

    def _log(self, losses: dict[str, float]) -> str:
        total, lr = sum(losses.values()), self.schedule.get_last_lr()[0]
        if not math.isfinite(total):
            raise ValueError(f"the loss is {total} at step {self.step}: {losses}; try a lower lr")
        self.history.append({"step": self.step, "seconds": self.seconds, "lr": lr, "loss": total, **losses})
        parts = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
        return f"step {self.step}  loss {total:.3f}  ({parts})  {self.seconds:.0f} s"

    @property
    def seconds(self) -> float:
        """Since the run began, those before a stop among them."""
        return self.before + time.perf_counter() - self.began

    def check(self) -> str:
        """Tests on held-out images, and writes a checkpoint; returns the line to log."""
        batch = min(self.recipe.batch_size, 16)
        metrics = evaluate(self.net, self.held_out, batch_size=batch, device=self.device, processes=self.processes)
        self.checks.append({"step": self.step, "seconds": self.seconds, **metrics})
        if self.processes.first:
            self.save()
        return f"step {self.step}  mAP@0.5 {metrics['mAP']:.4f}"

    def report(self) -> dict[str, Any]:
        """What :meth:`fit` returns."""
        return {
            "recipe": dataclasses.asdict(self.recipe),
            "parameters": sum(parameter.numel() for parameter in self.net.parameters()),
            "classes": list(self.classes),
            "processes": self.processes.world,
            "device": self.device.type,
            "amp": self.amp,
            "seconds": self.checks[-1]["seconds"] if self.checks else self.seconds,
            "history": self.history,
            "checks": self.checks,
            "metrics": self.checks[-1] if self.checks else {},
        }

    def save(self) -> None:
        """Writes the checkpoint, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {
            "recipe": dataclasses.asdict(self.recipe),
            "model": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
            "checks": self.checks,
        }
        write_checkpoint(self.folder / CHECKPOINT, content)

    def _restore(self, content: dict[str, Any]) -> None:
        self.net.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.schedule.load_state_dict(content["schedule"])
        self.scaler.load_state_dict(content["scaler"])
        self.step, self.before = content["step"], content["seconds"]
        self.history, self.checks = content["history"], content["checks"]


def _read(path: Path, recipe: Recipe) -> dict[str, Any]:
    """A checkpoint of this recipe."""
    content = read_checkpoint(path)
    now, then = dataclasses.asdict(recipe), content["recipe"]
    for name in now:
        if name not in FREE and now[name] != then.get(name):
            raise ValueError(f"the checkpoint was trained with {name}={then.get(name)}, not {now[name]}")
    return content


def make_optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Decays matrices and kernels, not norms and biases."""
    learnt = [parameter for parameter in net.parameters() if parameter.requires_grad]
    groups = [
        {"params": [each for each in learnt if each.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [each for each in learnt if each.dim() <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, recipe.lr, momentum=recipe.momentum)
    return torch.optim.AdamW(groups, recipe.lr)


def rate(step: int, recipe: Recipe) -> float:
    """The share of the highest rate: a line up, then half a cosine down."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(recipe.steps - recipe.warmup, 1)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
