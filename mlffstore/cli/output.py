"""What the verbs share: results on stdout, remarks on stderr, tables, JSON, options that only the library can judge.

Text of users (paths, keys, names) is never read as markup, and its control characters are printed as escapes. Only a
terminal gets colours and a width: a table in a pipe or a file has one line for each row, however long.
"""

from __future__ import annotations

import contextlib
import os
import sys
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlffstore.errors import DataError, MissingDependencyError, MlffstoreError, PolicyError, RegistryError
from mlffstore.runtime.documents import json_text
from mlffstore.runtime.words import counted, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console
    from rich.table import Table

StorePath = Annotated[str, typer.Argument(help="Path of the store.", metavar="STORE", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
ShowAll = Annotated[bool, typer.Option("--all", help="Show whole lists, which are summarised by default.")]
Version = Annotated[
    int | None,
    typer.Option("--version", min=0, help="Version of the store; the latest by default.", show_default=False),
]
Tag = Annotated[
    str | None,
    typer.Option(
        "--tag", help="Tag of the store, in place of a version; or the name of a selection.", show_default=False
    ),
]

#: Entries of a list that are shown without --all.
FEW = 20


@cache
def console() -> Console:
    """Return the console for progress and remarks, on stderr; rich is imported here, since it takes a while."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def say(text: str = "") -> None:
    """Print a line of the result to stdout."""
    typer.echo(printable(text, lines=True))


def remark(text: str) -> None:
    """Print a line to stderr, above a progress bar if there is one."""
    console().print(printable(text, lines=True), soft_wrap=True)


def print_json(document: Any) -> None:
    """Print one JSON document to stdout."""
    typer.echo(json_text(document, indent=2, default=str))


def print_pairs(rows: Sequence[tuple[str, str]], title: str = "") -> None:
    """Print headings and texts as two columns."""
    _print_table([], rows, title)


def print_grid(headings: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print a table with headings."""
    _print_table(headings, rows, title)


def print_list(lines: Sequence[str], show_all: bool, noun: str) -> None:
    """Print lines, one for each entry of a list; the first of them, and how many more there are, unless all are wanted."""
    shown, more = few(lines, show_all)
    for line in shown:
        say(line)
    say_more(more, noun)


def few(entries: Sequence[Any], show_all: bool) -> tuple[Sequence[Any], int]:
    """Return the entries of a list to show, and the number of those that are left out."""
    if show_all or len(entries) <= FEW:
        return entries, 0
    return entries[:FEW], len(entries) - FEW


def say_more(n: int, noun: str) -> None:
    """Say how many entries of a list were left out, if any were."""
    if n:
        say(f"... and {counted(n, 'more ' + noun)}; --all shows all of them")


def _print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
    cells = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console

        Console(highlight=False, markup=False, emoji=False).print(_rich_table(headings, cells, printable(title)))
        return
    if title:
        typer.echo(printable(title))
    lines = [list(headings), *cells] if headings else cells
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))] if lines else []
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _rich_table(headings: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(title) if title else None, title_justify="left", show_header=bool(headings), box=None,
        padding=(0, 2, 0, 0), header_style="bold",
    )  # fmt: skip
    for heading in headings:
        table.add_column(heading, overflow="fold")
    if not headings:
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


@contextlib.contextmanager
def status(text: str) -> Iterator[Callable[[str], object]]:
    """Show a line on a terminal while something goes on; what is yielded changes the line."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    with console().status(_rich_text(text)) as line:
        yield lambda text: line.update(_rich_text(text))


def _rich_text(text: str) -> Any:
    from rich.text import Text

    return Text(printable(text))


@contextlib.contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr while something goes on."""
    if not sys.stderr.isatty():  # rich would print an empty line for a bar that is not shown
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what, markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def judged(options: str = "", /, **names: str) -> Iterator[None]:
    """Report what the library says of an argument as wrong usage of the option that set the argument.

    Parameters
    ----------
    options : str, optional
        Options of which every refusal of arguments within the block is about.
    **names : str
        Options by the name of the argument. Messages of the library about an argument begin with its name.
    """
    try:
        yield
    except MlffstoreError as error:
        name, _, text = str(error).partition(": ")
        if name in names and not isinstance(error, MissingDependencyError):
            raise typer.BadParameter(text, param_hint=names[name]) from error
        if options and isinstance(error, (DataError, PolicyError, RegistryError)):
            raise typer.BadParameter(str(error), param_hint=options) from error
        raise


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
