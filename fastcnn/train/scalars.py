"""What a run logs, as TensorBoard's scalars."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Scalars:
    """Writes numbers of the history (``train/loss``) and of checks (``held_out/mAP``) to TensorBoard's event files.

    Args:
        folder: for the files; made if it is not there.
        step: of the checkpoint that the run goes on from: what came after it is no longer shown.

    Raises:
        ImportError: without tensorboard, of the extra of that name.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ImportError("--tensorboard needs tensorboard: pip install 'fastcnn[tensorboard]'") from None
        self.writer: Any = SummaryWriter(str(folder), purge_step=step + 1)  # type: ignore[no-untyped-call]

    def write(self, group: str, entry: Mapping[str, Any]) -> None:
        """Each number of an entry but its ``step``, which is that of all of them."""
        for name, value in entry.items():
            if isinstance(value, int | float) and name != "step":
                self.writer.add_scalar(f"{group}/{name}", value, entry["step"])
        # A run that is killed leaves what it logged.
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()
