"""`mlffstore log`: the history of a store."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

import mlffstore as ml
from mlffstore.cli.output import AsJson, StorePath, grid, out, print_json


def log(
    store: StorePath,
    last: Annotated[int, typer.Option("--last", "-n", min=1, help="How many commits, counted from the end.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the commits of STORE, oldest first."""
    commits = ml.open(store).history(last=last)
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
    out.print(grid(["version", "time", "operation", "samples", "atoms", "quarantined", "key"], rows))
