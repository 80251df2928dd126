"""What the verbs share: consoles, JSON, tables."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from mlffstore.runtime.documents import json_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Results. A pipe has no width, and a table folded at 80 columns is hard to search.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)
#: Progress and remarks.
err = Console(stderr=True, highlight=False)

StorePath = Annotated[str, typer.Argument(help="Path of the store.", metavar="STORE", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]


def print_json(document: Any) -> None:
    """Print one JSON document to stdout."""
    typer.echo(json_text(document, indent=2, default=str))


def pairs(rows: list[tuple[str, str]], title: str = "") -> Table:
    """Return a table of headings and texts."""
    table = Table(title=title or None, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(name, text)
    return table


def grid(headings: list[str], rows: list[list[str]], title: str = "") -> Table:
    """Return a table with headings."""
    table = Table(title=title or None, title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


@contextlib.contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr while something goes on."""
    if not err.is_terminal:  # rich would print an empty line for a bar that is not shown
        yield lambda done, total: None
        return
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
