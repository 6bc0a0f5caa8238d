"""The loop that trains a network of any kind."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.models import ConvNet, create, freeze
from fastcnn.train.checkpoints import read_checkpoint, write_checkpoint
from fastcnn.train.evaluation import evaluate
from fastcnn.train.loading import mix, training_loader
from fastcnn.train.processes import Processes
from fastcnn.train.recipes import FREE, Recipe
from fastcnn.train.steps import clip, make_optimizer, rate
from fastcnn.train.tasks import find_task

CHECKPOINT = "checkpoint.pt"
AMP = {"": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
Show = Callable[[int, str], None]
Write = Callable[[str, dict[str, Any]], None]


class Trainer:
    """A recipe under way: the network, its data, the optimiser and what was logged. What differs between kinds of
    networks is its ``task``'s, see :class:`fastcnn.train.task.Task`.

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
        content = _read(self.folder / CHECKPOINT, recipe, amp) if resume else None
        self.processes = processes or Processes()
        index = f":{self.processes.local}" if device == "cuda" and self.processes.world > 1 else ""
        self.device = torch.device(device + index)
        self.began, self.before = time.perf_counter(), 0.0
        overrides = recipe.overrides()
        probe = create(recipe.network, device="meta", **overrides)
        self.task = find_task(probe.row.task)(recipe, probe, self.processes)
        self.data, self.classes = self.task.open(False)
        self.held_out, _ = self.task.open(True)
        self.options = {**overrides, **self.task.options(self.classes)}
        # What the kernels are the fastest in; images become so in the first convolution.
        self.net = self._network().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if recipe.freeze:
            freeze(self.net, None if recipe.freeze == "all" else recipe.freeze)
        self.optimizer = make_optimizer(self.net, recipe)
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
        net = create(recipe.network, weights=recipe.weights, **recipe.overrides())
        classes = self.options.get("num_classes", net.num_classes)
        return net if net.num_classes == classes else net.replace_head(classes)

    def fit(self, show: Show = lambda step, line: None, write: Write = lambda group, entry: None) -> dict[str, Any]:
        """Trains to the last step; returns what there is to report.

        Args:
            show: called after each step with its number, from 1, and what is to be logged of it, which may be nothing.
            write: called with "train" and each entry of ``history``, and with "held_out" and each of ``checks``.

        Returns:
            ``task``, ``recipe``, ``parameters``, ``classes``, ``seconds`` to the last test, ``history`` (for every
            ``log_every`` steps ``step``, ``seconds``, ``lr``, ``loss`` and each loss by name, means over these steps),
            ``checks`` (of held-out images, see :func:`evaluate`), and ``metrics``, the last of them.

        Raises:
            ValueError: the loss is not finite, or what the network says of a target.
        """
        recipe, every, self._write = self.recipe, self.recipe.log_every, write
        steps = range(self.step, recipe.steps)
        model = self.processes.parallel(self.net, self.device)
        loader = training_loader(self.data, self.task, self.task.transforms(self.net), steps)
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

    @property
    def lr(self) -> float:
        """The rate of the next step."""
        errors = [self.task.figure.error(check) for check in self.checks]
        return self.recipe.lr * rate(self.step, self.recipe, errors)

    def _step(self, model: nn.Module, step: int, images: Any, targets: Any) -> dict[str, Tensor]:
        lr = self.lr
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        torch.manual_seed(mix(self.recipe.seed, step, self.processes.rank))
        dtype = AMP[self.amp]
        with torch.autocast(self.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            losses = self.task.losses(model, images, targets, self.device)
            loss = torch.stack([value.float() for value in losses.values()]).sum()
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        clip(list(self.net.parameters()), self.recipe, lr)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return losses

    def _log(self, losses: dict[str, float]) -> str:
        total = sum(losses.values())
        if not math.isfinite(total):
            raise ValueError(f"the loss is {total} at step {self.step}: {losses}; try a lower lr")
        parts = {name: value for name, value in losses.items() if name != "loss"}
        self.history.append({"step": self.step, "seconds": self.seconds, "lr": self.lr, "loss": total, **parts})
        self._write("train", self.history[-1])
        listed = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
        shown = f"  ({listed})" if len(losses) > 1 else ""
        return f"step {self.step}  loss {total:.3f}{shown}  {self.seconds:.0f} s"

    @property
    def seconds(self) -> float:
        """Since the run began, those before a stop among them."""
        return self.before + time.perf_counter() - self.began

    def check(self) -> str:
        """Tests on held-out images, and writes a checkpoint; returns the line to log."""
        batch = min(self.recipe.batch_size, 16)
        metrics = evaluate(self.net, self.held_out, batch_size=batch, device=self.device, processes=self.processes)
        self.checks.append({"step": self.step, "seconds": self.seconds, **metrics})
        self._write("held_out", self.checks[-1])
        if self.processes.first:
            self.save()
        return f"step {self.step}  {self.task.line(metrics)}"

    def report(self) -> dict[str, Any]:
        """What :meth:`fit` returns."""
        return {
            "task": self.net.row.task,
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
            "amp": self.amp,
            "model": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
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
        self.scaler.load_state_dict(content["scaler"])
        self.step, self.before = content["step"], content["seconds"]
        self.history, self.checks = content["history"], content["checks"]
        if hasattr(self.net, "batches_seen"):
            self.net.batches_seen = self.step


def _read(path: Path, recipe: Recipe, amp: str) -> dict[str, Any]:
    """A checkpoint of this recipe, mixed as now."""
    content = read_checkpoint(path)
    now, then = dataclasses.asdict(recipe), content["recipe"]
    # The schedule "plateau" looks at the figures of checks.
    free = set(FREE) - ({"check_every"} if recipe.schedule == "plateau" else set())
    for name in now:
        if name not in free and now[name] != then.get(name):
            raise ValueError(f"the checkpoint was trained with {name}={then.get(name)}, not {now[name]}")
    if content["amp"] != amp:
        was = f"--amp {content['amp']}" if content["amp"] else "no --amp"
        raise ValueError(f"the checkpoint was trained with {was}")
    return content
