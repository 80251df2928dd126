"""`mlffstore tag`: name a version."""

from __future__ import annotations

from typing import Annotated

import typer

import mlffstore as ml
from mlffstore.cli.output import AsJson, StorePath, print_json


def tag(
    store: StorePath,
    name: Annotated[str | None, typer.Argument(help="The tag; without it, the tags are listed.")] = None,
    version: Annotated[
        int | None, typer.Option("--version", min=0, help="Which version; the latest by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Name a version of STORE. A tag never moves."""
    handle = ml.open(store, mode="r" if name is None else "a")
    if name is not None:
        handle.tag(name, version)
    tags = handle.tags if name is None else {name: handle.tags[name]}
    if as_json:
        print_json(tags)
        return
    for one, target in tags.items():
        typer.echo(f"{one} = version {target}")
