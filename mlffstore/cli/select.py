"""`mlffstore select`: samples that meet a condition, as a table; kept under a name if wanted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import mlffstore as ml
from mlffstore.cli.output import (
    AsJson,
    ShowAll,
    Tag,
    Version,
    few,
    judged,
    print_grid,
    print_json,
    progress_bar,
    remark,
    say,
    say_more,
    status,
)
from mlffstore.cli.sources import SourcePath, Where, open_samples
from mlffstore.runtime.words import counted, nearest

if TYPE_CHECKING:
    import pyarrow as pa

    from mlffstore.store.samples import Selection

#: Columns that are shown if the user names none: these, and these figures of each teacher.
_SHOWN, _FIGURES = ("sample", "formula", "n_atoms", "split", "source"), ("energy_per_atom", "max_force")


def select(
    source: SourcePath,
    where: Where = None,
    order_by: Annotated[
        str | None,
        typer.Option("--order-by", metavar="SQL", help="Order, such as 'max_force desc'.", show_default=False),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=0, help="At most so many samples.", show_default=False)
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            "--sample", min=0, help="So many samples at random, before --order-by and --limit.", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of --sample.")] = 0,
    distinct: Annotated[
        bool, typer.Option("--distinct", help="Then leave out samples that nearly equal an earlier one.")
    ] = False,
    cover: Annotated[
        float | None,
        typer.Option(
            "--cover",
            metavar="NATS",
            min=0,
            help="Then the fewest samples that cover all atomic environments (extra 'diversity').",
            show_default=False,
        ),
    ] = None,
    diverse: Annotated[
        int | None,
        typer.Option(
            "--diverse", min=1, help="Then so many samples that differ most (extra 'active').", show_default=False
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option("--columns", metavar="NAME,NAME", help="Columns of the table to show.", show_default=False),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write the table to this file; - for stdout.", show_default=False),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Keep the selection in the store under this name, as a tag.", show_default=False),
    ] = None,
    version: Version = None,
    tag: Tag = None,
    show_all: ShowAll = False,
    as_json: AsJson = False,
) -> None:
    """List the samples that meet a condition, or choose samples by their structures.

    Conditions are SQL over one row per sample. Other verbs take a kept selection with --tag NAME, and conditions with
    --where.
    """
    if csv is not None and str(csv) == "-" and as_json:
        raise typer.BadParameter("expected a file beside --json, since both write to stdout, got -", param_hint="--csv")
    samples = open_samples(source, version, tag)
    options = {"where": "--where", "order_by": "--order-by", "limit": "--limit", "sample": "--sample"}
    with judged(**options), status(f"choosing from {counted(len(samples), 'sample')} ..."):
        selection = samples.select(where, order_by=order_by, limit=limit, sample=sample, seed=seed)
    selection = _by_structure(selection, distinct, cover, diverse)
    table = selection.table()
    rows = table.select(_columns(table, columns))
    kept = None if name is None else _keep(source, name, selection)
    if csv is not None:
        _write_csv(table if columns is None else rows, csv)
        if str(csv) == "-":
            if kept is not None:
                remark(f"kept as {name} in version {kept}; use it with --tag {name}")
            return
    if as_json:
        print_json({**selection.to_json(), "name": name, "version": kept, "rows": rows.to_pylist()})
        return
    shown, more = few(rows.slice(0, len(rows) if show_all else 21).to_pylist(), show_all)
    if len(rows):
        print_grid(rows.column_names, [[_cell(value) for value in row.values()] for row in shown])
    say_more(len(rows) - len(shown) if more else 0, "sample")
    say(f"{counted(len(selection), 'sample')} of {len(samples):,}")
    for what, value in selection.report.items():
        say(f"{what.replace('_', ' ')}: {_cell(value)}")
    if csv is not None:
        say(f"written to {csv}")
    if kept is not None:
        say(f"kept as {name} in version {kept}; use it with --tag {name}")


def _by_structure(selection: Selection, distinct: bool, cover: float | None, diverse: int | None) -> Selection:
    """Return what the choices by structure leave of a selection."""
    if not len(selection):
        return selection
    with judged(tolerance="--distinct", threshold="--cover", n="--diverse"):
        if distinct:
            with status("looking for near duplicates ..."):
                selection = selection.without_near_duplicates()
        for number, method in ((cover, "cover"), (diverse, "diverse")):
            if number is not None:
                with progress_bar("samples") as progress:
                    selection = getattr(selection, method)(number, progress=progress)
    return selection


def _keep(source: str, name: str, selection: Selection) -> int:
    from mlffstore.release.samples import is_release

    if is_release(source):
        raise typer.BadParameter("expected a store, got a release, which never changes", param_hint="--name")
    with judged(tag="--name"):
        return ml.open(source, "a").tag(name, selection=selection)


def _columns(table: pa.Table, wanted: str | None) -> list[str]:
    """Return the columns to show; names without a teacher stand for those of all teachers."""
    if wanted is None:
        figures = [name for name in table.column_names if name.partition(".")[0] in _FIGURES]
        return [*_SHOWN, *(figures if len(figures) <= 4 else [])]
    out = []
    for name in (part.strip() for part in wanted.split(",")):
        several = (
            [name] if name in table.column_names else [k for k in table.column_names if k.partition(".")[0] == name]
        )
        if not several:
            raise typer.BadParameter(
                f"expected columns of the table ({', '.join(table.column_names)}), got {name!r}"
                f"{nearest(name, table.column_names)}",
                param_hint="--columns",
            )
        out += several
    return list(dict.fromkeys(out))


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _write_csv(table: pa.Table, path: Path) -> None:
    """Write a table as CSV; lists become words with blanks between them."""
    import csv

    def write(file: Any) -> None:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table.column_names)
        for batch in table.to_batches(max_chunksize=8192):
            for row in batch.to_pylist():
                writer.writerow([" ".join(map(str, v)) if isinstance(v, list) else v for v in row.values()])

    if str(path) == "-":
        write(sys.stdout)
    elif path.is_dir() or not path.parent.is_dir():
        raise typer.BadParameter(f"expected a file in a folder that exists, got {path}", param_hint="--csv")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            write(file)
        remark(f"{path}: {counted(len(table), 'row')}")
