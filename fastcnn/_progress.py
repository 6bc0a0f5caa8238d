"""The progress bar of ``fastcnn bench`` and ``fastcnn train``."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress(total: int, plain: bool, done: int = 0) -> Iterator[Callable[[str], None]]:
    """Gives what to call when an item begins, of which ``done`` were before. On standard error, so that a table can be
    piped."""
    if plain:
        count = itertools.count(done + 1)
        yield lambda text: print(f"[{next(count)}/{total}] {text}", file=sys.stderr, flush=True)
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError:
        raise ImportError("the progress bar needs rich: pip install 'fastcnn[bench]', or give --plain") from None
    columns = (BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total, completed=done)
        begun = False

        def advance(text: str) -> None:
            nonlocal begun
            bar.update(task, description=text, advance=int(begun))
            begun = True

        yield advance
