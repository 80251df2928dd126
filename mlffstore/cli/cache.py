"""`mlffstore cache`: what training keeps decoded on this machine."""

from __future__ import annotations

import dataclasses
import time
from typing import Annotated

import typer

from mlffstore.cli.output import AsJson, grid, out, print_json, progress_bar
from mlffstore.store.describe import human_bytes


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove all caches, also damaged and abandoned ones.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every byte. Exit code 1 if a cache is damaged.")
    ] = False,
    build: Annotated[
        str | None, typer.Option("--build", metavar="SOURCE", help="Decode a store or a release now, before training.")
    ] = None,
    teacher: Annotated[str | None, typer.Option("--teacher", "-t", help="Whose labels to decode with --build.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the decoded copies from which `ml.TorchDataset` reads; they are built when needed and may be removed any time."""
    from mlffstore.training import cache as caches
    from mlffstore.training import folders
    from mlffstore.training.sources import source

    if build is not None:
        with progress_bar("samples") as progress:
            caches.mapped(source(build, teacher), progress)
    folder = folders.cache_folder()
    caches_there = folders.cached()
    damaged = {str(one.path): text for one in caches_there if verify and (text := caches.damage(one.path))}
    if clear:
        folders.clear()
    if as_json:
        entries = [
            {**dataclasses.asdict(one), "path": str(one.path), "damage": damaged.get(str(one.path))}
            for one in caches_there
        ]
        print_json({"folder": str(folder), "limit": folders.limit(), "cleared": clear, "caches": entries})
    else:
        total = sum(one.nbytes for one in caches_there)
        verb = "removed" if clear else f"of at most {human_bytes(folders.limit())} (MLFFSTORE_CACHE_GB)"
        out.print(f"{folder}: {len(caches_there)} caches, {human_bytes(total)} {verb}")
        if caches_there and not clear:
            rows = [
                [one.title, f"{one.samples:,}", human_bytes(one.nbytes), _ago(one.used), damaged.get(str(one.path), "")]
                for one in caches_there
            ]
            out.print(grid(["what", "samples", "size", "used", "damage" if verify else ""], rows))
    if damaged and not clear:
        raise typer.Exit(1)


def _ago(when: float) -> str:
    seconds = max(0.0, time.time() - when)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return "just now"
