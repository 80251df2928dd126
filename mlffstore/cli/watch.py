"""Watching a run: a live panel on a terminal, lines in words into a file, one JSON object per event for machines."""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from mlffstore.cli.output import console, remark
from mlffstore.runtime.documents import json_text
from mlffstore.runtime.words import counted, printable
from mlffstore.store.describe import human_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import RenderableType

    from mlffstore.pipeline.recipe import Recipe
    from mlffstore.pipeline.task import Outcome

#: Seconds between two accounts, at least (their diversity takes some) and at most (a tenth of a large run is hours).
ACCOUNT_SECONDS, SILENT_SECONDS = 60.0, 1800.0
#: Seconds between two looks at the size of the store.
_SIZE_SECONDS = 10.0
#: Reasons of rejections that the panel shows.
_REASONS = 4


@dataclass
class Watch:
    """What a run did so far.

    Attributes
    ----------
    recipe : Recipe
    workers : str
        What works, in words.
    dashboard : str
        Address of Dask's dashboard, or nothing.
    kept, made, rejected : Counter
        Samples by part: in the store, those of earlier runs too; made by this run; rejected by this run.
    reasons : Counter
        Rejected samples of this run by reason.
    tasks, done_before : int
        Tasks that this run finished, and earlier ones.
    nbytes, first_nbytes : int
        Size of the store on disk, as it was read last and when the run began.
    began : float
        When the run began, seconds of `time.monotonic`.
    """

    recipe: Recipe
    workers: str = ""
    dashboard: str = ""
    kept: Counter[str] = field(default_factory=Counter)
    made: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    tasks: int = 0
    done_before: int = 0
    nbytes: int = 0
    first_nbytes: int = 0
    began: float = field(default_factory=time.monotonic)

    @functools.cached_property
    def planned(self) -> int:
        """Tasks of the recipe."""
        return len(self.recipe.tasks())

    @property
    def done(self) -> int:
        """Tasks that are done, those of earlier runs too."""
        return self.done_before + self.tasks

    @property
    def total(self) -> int:
        """Tasks of the recipe, and those that make up for rejected samples as far as they are done."""
        return max(self.planned, self.done)

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return max(time.monotonic() - self.began, 1e-9)

    @property
    def rate(self) -> float:
        """Samples that this run made in a second."""
        return self.made.total() / self.seconds

    @property
    def eta(self) -> float | None:
        """Seconds that the tasks that are left will take, or None before the first one is done."""
        return None if not self.tasks else self.seconds / self.tasks * (self.total - self.done)

    def add(self, outcome: Outcome) -> None:
        """Count a task that is done."""
        self.tasks += 1
        self.kept[outcome.part] += outcome.accepted
        self.made[outcome.part] += outcome.accepted
        self.rejected[outcome.part] += outcome.rejected
        self.reasons.update(outcome.reasons)

    def event(self, outcome: Outcome) -> dict[str, Any]:
        """Return a task that is done as plain types."""
        return {
            "event": "task", "part": outcome.part, "task": outcome.task, "accepted": outcome.accepted,
            "rejected": outcome.rejected, "reasons": outcome.reasons, "calls": outcome.calls, "seconds": outcome.seconds,
            "version": outcome.version, "tasks_done": self.done, "tasks": self.total, "samples": self.made.total(),
            "samples_per_second": round(self.rate, 4), "eta_seconds": None if self.eta is None else round(self.eta, 1),
            "store_bytes": self.nbytes,
        }  # fmt: skip

    def panel(self) -> RenderableType:
        """Return the panel of a terminal."""
        from rich.console import Group
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        eta = "?" if self.eta is None else _duration(self.eta)
        line = f"{self.done}/{counted(self.total, 'task')}, {self.rate:.1f} samples/s, {eta} left, {self.workers}"
        grown = self.nbytes - self.first_nbytes
        line += f"; store {human_bytes(self.nbytes)}, {human_bytes(int(grown / self.seconds * 3600))} an hour"
        table = Table(box=None, pad_edge=False)
        table.add_column("part")
        for heading in ("kept", "wanted", "rejected", "samples/h"):
            table.add_column(heading, justify="right")
        table.add_column("")
        for part in self.recipe.parts:
            kept, lost = self.kept[part.name], self.rejected[part.name]
            bar = ProgressBar(total=part.samples, completed=min(kept, part.samples), width=20)
            hour = f"{3600 * self.made[part.name] / self.seconds:,.0f}"
            table.add_row(part.name, f"{kept:,}", f"{part.samples:,}", f"{lost:,}", hour, bar)
        parts: list[RenderableType] = [Text(line), table]
        parts += [Text(f"{count:,} x {printable(why)}") for why, count in self.reasons.most_common(_REASONS)]
        if self.dashboard:
            parts.append(Text(f"dashboard {self.dashboard}"))
        return Panel(Group(*parts), title=Text(f"{self.recipe.name}: {self.recipe.store}"), title_align="left")

    def look(self) -> None:
        """Read the size of the store."""
        from mlffstore.errors import MlffstoreError
        from mlffstore.store.opening import open as open_store

        with contextlib.suppress(MlffstoreError, OSError):  # it is made by the first worker
            self.nbytes = open_store(self.recipe.store).snapshot().nbytes_on_disk


@contextlib.contextmanager
def watched(
    recipe: Recipe, *, workers: str, json_lines: bool = False, dashboard: str = ""
) -> Iterator[Callable[[Outcome], None]]:
    """Yield what takes the outcome of each task, and show the run.

    Parameters
    ----------
    recipe : Recipe
    workers : str
        Who works, in words, such as ``"4 processes"``.
    json_lines : bool, optional
        Whether each event is a line of JSON on stdout. Otherwise a terminal has a live panel, and stderr a line at every
        tenth of the tasks and every half hour.
    dashboard : str, optional
        Address of Dask's dashboard.
    """
    from mlffstore.errors import MlffstoreError
    from mlffstore.pipeline.account import account

    watch = Watch(recipe, workers, dashboard)
    with contextlib.suppress(MlffstoreError, OSError):  # there is no store yet
        before = account(recipe, n_environments=0)
        watch.kept.update({part.part: part.accepted for part in before.parts})
        watch.done_before = sum(part.tasks - part.refills for part in before.parts)
    watch.look()
    watch.first_nbytes = watch.nbytes
    told, told_at, looked_at = set[str](), time.monotonic(), time.monotonic()

    def progress(outcome: Outcome) -> None:
        nonlocal told_at, looked_at
        watch.add(outcome)
        if time.monotonic() - looked_at > _SIZE_SECONDS:
            watch.look()
            looked_at = time.monotonic()
        if json_lines:
            print_event(watch.event(outcome))
        silent = time.monotonic() - told_at
        if watch.tasks % max(1, watch.planned // 10) and silent < SILENT_SECONDS:
            return
        line = f"{watch.done}/{counted(watch.total, 'task')}, {watch.rate:.1f} samples/s"
        if silent < ACCOUNT_SECONDS:
            if not sys.stderr.isatty():
                remark(line)
            return
        now, told_at = account(recipe), time.monotonic()
        remark(f"{line}; {now.line}")
        for part in now.parts:
            if part.drift and part.part not in told:
                told.add(part.part)
                remark(f"drift: {part.drift}")

    if json_lines:
        print_event({"event": "start", "tasks": watch.total, "done_before": watch.done_before, "store": recipe.store})
        yield progress
    elif sys.stderr.isatty():
        from rich.live import Live

        with Live(watch.panel(), console=console(), refresh_per_second=2, get_renderable=watch.panel):
            yield progress
    else:
        yield progress


def _duration(seconds: float) -> str:
    """Return a time that is still to come in words."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def print_event(document: dict[str, Any]) -> None:
    """Print an event as a line of JSON to stdout, at once."""
    typer.echo(json_text(document, default=str))
    sys.stdout.flush()
