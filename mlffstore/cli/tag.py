"""`mlffstore tag`: name a version, or withdraw its name."""

from __future__ import annotations

from typing import Annotated

import typer

import mlffstore as ml
from mlffstore.cli.output import AsJson, StorePath, judged, print_json, say


def tag(
    store: StorePath,
    name: Annotated[
        str | None, typer.Argument(help="The tag; without it, the tags are listed.", show_default=False)
    ] = None,
    version: Annotated[
        int | None,
        typer.Option("--version", min=0, help="Which version; the latest by default.", show_default=False),
    ] = None,
    withdraw: Annotated[
        str | None, typer.Option("--withdraw", metavar="NAME", help="Withdraw this tag.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Name a version of STORE, or list the tags.

    A tag never moves; withdrawn, its name can be given again.
    """
    if withdraw is not None:
        _withdraw(store, withdraw, name is not None or version is not None, as_json)
        return
    if name is None and version is not None:
        raise typer.BadParameter("expected a NAME for this version, got none", param_hint="--version")
    handle = ml.open(store, mode="r" if name is None else "a")
    if name is not None:
        with judged("--version", tag="NAME", version="--version"):
            handle.tag(name, version)
    tags = handle.tags if name is None else {name: handle.tags[name]}
    if as_json:
        print_json(tags)
        return
    some = handle.selections
    for tag_name, target in tags.items():
        say(f"{tag_name} = {'samples of ' if tag_name in some else ''}version {target}")
    if not tags:
        say("no tags yet")


def _withdraw(store: str, name: str, more: bool, as_json: bool) -> None:
    if more:
        raise typer.BadParameter("expected neither another NAME nor --version, got one", param_hint="--withdraw")
    handle = ml.open(store, mode="a")
    with judged("--withdraw"):
        target = handle.tags.get(name)
        version = handle.untag(name)
    if as_json:
        print_json({"withdrawn": name, "target": target, "version": version})
    else:
        say(f"{name} = version {target} is withdrawn")
