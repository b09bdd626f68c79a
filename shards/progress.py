"""How far, how fast, how much longer: a bar on a terminal, a plain line a minute in the log of a job."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

LINE_EVERY_S = 60.0


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} clips/s")


@contextmanager
def progress(what: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Report on standard error; the function it gives is called with how many clips are done since.

    Args:
        what: "writing", ...
        total: clips.
        done: of them before this start; they count for no rate.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(what, total, done)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total, completed=done)
        yield lambda clips: bar.advance(task, clips)


def _lines(what: str, total: int, done: int) -> Callable[[int], None]:
    started = last = time.monotonic()
    fresh = 0

    def advance(clips: int) -> None:
        nonlocal last, fresh
        fresh += clips
        now = time.monotonic()
        if now - last < LINE_EVERY_S:
            return
        last, rate = now, fresh / (now - started)
        left_min = (total - done - fresh) / rate / 60
        print(
            f"{what}: {done + fresh} of {total} clips, {rate:.1f} clips/s, {left_min:.0f} min left",
            file=sys.stderr,
            flush=True,
        )

    return advance
