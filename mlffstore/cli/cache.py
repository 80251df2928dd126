"""`mlffstore cache`: what training keeps decoded on this machine."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Annotated

import typer

from mlffstore.cli.output import AsJson, ShowAll, few, judged, print_grid, print_json, progress_bar, say, say_more
from mlffstore.runtime.words import counted

if TYPE_CHECKING:
    from mlffstore.runtime.folders import Cached


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove all caches, also damaged and abandoned ones.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every byte. Exit code 1 if a cache is damaged.")
    ] = False,
    build: Annotated[
        str | None, typer.Option("--build", metavar="SOURCE", help="Decode a store or a release now, before training.")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option("--teacher", "-t", help="The teacher of which --build decodes the labels.")
    ] = None,
    show_all: ShowAll = False,
    as_json: AsJson = False,
) -> None:
    """List the caches that training reads from.

    Caches are decoded copies of stores and releases. `ml.TorchDataset` makes them when needed; they may be removed any time.
    """
    from mlffstore.runtime import folders
    from mlffstore.store.describe import human_bytes
    from mlffstore.training import cache as caches
    from mlffstore.training.sources import source

    if teacher is not None and build is None:
        raise typer.BadParameter("expected --build SOURCE beside it, got none", param_hint="--teacher")
    if build is not None:
        with judged(teacher="--teacher"), progress_bar("samples") as progress:
            caches.mapped(source(build, teacher), progress)
    folder = folders.cache_folder()
    listed = folders.cached()
    damaged = {str(entry.path): text for entry in listed if verify and (text := _damage(entry))}
    kept = {str(path): problem for path, problem in folders.clear().items()} if clear else {}
    if as_json:
        entries = [
            {
                **dataclasses.asdict(entry),
                "path": str(entry.path),
                "damage": damaged.get(str(entry.path)),
                "removed": clear and str(entry.path) not in kept,
            }
            for entry in listed
        ]
        print_json({"folder": str(folder), "limit": folders.limit(), "cleared": clear and not kept, "caches": entries})
    else:
        counts = [entry for entry in listed if str(entry.path) not in kept]
        total = sum(entry.nbytes for entry in counts)
        verb = "removed" if clear else f"of at most {human_bytes(folders.limit())} (MLFFSTORE_CACHE_GB)"
        say(f"{folder}: {counted(len(counts), 'cache')}, {human_bytes(total)} {verb}")
        for path, problem in kept.items():
            say(f"{path}: cannot be removed ({problem}); check its owner and permissions")
        if listed and not clear:
            shown, more = few(listed, show_all)
            rows = [
                [
                    entry.title,
                    f"{entry.samples:,}",
                    human_bytes(entry.nbytes),
                    _ago(entry.used),
                    damaged.get(str(entry.path), ""),
                ]
                for entry in shown
            ]
            print_grid(["what", "samples", "size", "used", "damage" if verify else ""], rows)
            say_more(more, "cache")
    if kept or (damaged and not clear):
        raise typer.Exit(1)


def _damage(entry: Cached) -> str:
    """Return what is wrong with a cache after reading all of it; nothing if it is what was written."""
    from mlffstore.lazy import table
    from mlffstore.training import cache

    return table.damage(entry.path) if entry.kind == "table" else cache.damage(entry.path)


def _ago(when: float) -> str:
    seconds = max(0.0, time.time() - when)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return "just now"
