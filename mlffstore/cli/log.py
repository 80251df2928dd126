"""`mlffstore log`: the history of a store."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

import mlffstore as ml
from mlffstore.cli.output import AsJson, StorePath, print_grid, print_json, remark
from mlffstore.runtime.words import counted


def log(
    store: StorePath,
    last: Annotated[
        int, typer.Option("--last", "-n", min=1, max=2**62, help="How many commits, counted from the end.")
    ] = 20,
    show_all: Annotated[bool, typer.Option("--all", help="List all commits.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the commits of STORE, oldest first."""
    handle = ml.open(store)
    commits = handle.history(last=None if show_all else last)
    if as_json:
        print_json([dataclasses.asdict(commit) for commit in commits])
        return
    rows = [
        [
            str(c.version),
            c.time,
            c.operation,
            f"{c.n_samples:,}",
            f"{c.n_atoms:,}",
            f"{c.n_quarantined:,}",
            c.key or c.note,
        ]
        for c in commits
    ]
    print_grid(["version", "time", "operation", "samples", "atoms", "quarantined", "key"], rows)
    if commits and commits[0].version > 0:
        remark(f"{counted(commits[0].version, 'earlier commit')} not shown; --all shows all of them")
