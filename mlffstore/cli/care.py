"""`mlffstore verify`, `compact` and `gc`: care of a store."""

from __future__ import annotations

import dataclasses
import re
from typing import Annotated

import typer

import mlffstore as ml
from mlffstore.cli.output import AsJson, StorePath, grid, out, print_json, progress_bar
from mlffstore.release import is_release
from mlffstore.store.describe import human_bytes

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def verify(
    store: Annotated[str, typer.Argument(help="Path of a store, or of a release.", metavar="STORE|RELEASE")],
    full: Annotated[
        bool, typer.Option("--full", help="Read and check every byte, not only the log and sizes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check that a store or a release is whole. Exit code 1 and a list of what is damaged if it is not.

    Of a release everything is read: checksums, columns, structures, splits, statistics.
    """
    if is_release(store):
        _verify_release(store, as_json)
        return
    with progress_bar("segments") as progress:
        result = ml.verify(store, full=full, progress=progress)
    if as_json:
        print_json({**dataclasses.asdict(result), "ok": result.ok})
    else:
        how = "every byte read" if full else "log and sizes of files; --full reads every byte"
        out.print(
            f"{result.url}: version {result.version}, {result.n_entries:,} log entries, {result.n_segments:,} segments, "
            f"{result.n_files:,} files, {human_bytes(result.nbytes)} ({how})",
            soft_wrap=True,
        )
        if result.ok:
            out.print("no damage found")
        else:
            out.print(f"{len(result.problems)} problems:")
            out.print(grid(["path", "problem"], [[problem.path, problem.text] for problem in result.problems]))
    if not result.ok:
        raise typer.Exit(1)


def _verify_release(path: str, as_json: bool) -> None:
    with progress_bar("samples") as progress:
        result = ml.verify_release(path, progress=progress)
    if as_json:
        print_json({**dataclasses.asdict(result), "ok": result.ok})
    else:
        size = human_bytes(result.nbytes)
        out.print(f"{result.path}: {result.n_files} files, {size}, {result.n_samples:,} samples", soft_wrap=True)
        if result.ok:
            out.print("it is what was published")
        else:
            out.print(f"{len(result.problems)} problems:")
            out.print(grid(["file", "problem"], [[problem.path, problem.text] for problem in result.problems]))
    if not result.ok:
        raise typer.Exit(1)


def compact(
    store: StorePath,
    target: Annotated[
        int, typer.Option("--target-mib", min=1, help="Uncompressed size of merged segments, MiB.")
    ] = 128,
    as_json: AsJson = False,
) -> None:
    """Merge the small segments of STORE into large ones. Others may go on writing."""
    with progress_bar("runs of segments") as progress:
        done = ml.open(store, "a").compact(target_nbytes=target << 20, progress=progress)
    if as_json:
        print_json(dataclasses.asdict(done))
        return
    if not done.versions and not done.n_conflicts:
        out.print(f"nothing to merge: {done.n_before:,} segments, none of which is small beside another")
        return
    out.print(
        f"{done.n_before:,} segments, now {done.n_after:,}; {human_bytes(done.nbytes)} written in "
        f"{len(done.versions)} commits"
    )
    if done.n_conflicts:
        out.print(f"{done.n_conflicts} runs were changed by another process meanwhile: compact again to merge them")
    if done.versions:
        out.print("the replaced files stay for older versions; 'mlffstore gc --expire-before VERSION' frees them")


def backup(
    store: StorePath,
    target: Annotated[str, typer.Argument(help="A new place, or that of an earlier backup.", metavar="TARGET")],
    as_json: AsJson = False,
) -> None:
    """Copy STORE to TARGET, or bring an earlier copy up to date. Others may go on writing."""
    with progress_bar("segments") as progress:
        done = ml.open(store).backup(target, progress=progress)
    if as_json:
        print_json(dataclasses.asdict(done))
        return
    out.print(
        f"{done.url}: version {done.version}; {done.n_entries:,} log entries and {done.n_files:,} files copied "
        f"({human_bytes(done.nbytes)}), {done.n_there:,} files were there",
        soft_wrap=True,
    )


def gc(
    store: StorePath,
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove the files; without it they are only listed.")
    ] = False,
    grace: Annotated[str, typer.Option("--grace", help="How old a file must be, such as 90m, 36h or 7d.")] = "24h",
    short_grace: Annotated[
        bool, typer.Option("--short-grace", help="Allow a grace period of less than 10 minutes.")
    ] = False,
    expire_before: Annotated[
        int | None,
        typer.Option("--expire-before", min=0, help="Give up versions before this one, except tagged ones, for ever."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List, or with --delete remove, the files of STORE that no version needs."""
    done = ml.open(store, "a").gc(
        dry_run=not delete, grace=_seconds(grace), short_grace=short_grace, expire_before=expire_before
    )
    if as_json:
        print_json(dataclasses.asdict(done))
        return
    for path in done.paths:
        out.print(path)
    verb = "would be removed; add --delete to do it" if done.dry_run else "removed"
    out.print(f"{done.n_files:,} files, {human_bytes(done.nbytes)}, in {len(done.paths):,} places {verb}")
    if done.n_young:
        out.print(f"{done.n_young:,} more files that nothing needs are younger than {grace} and were left alone")


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if not match:
        raise typer.BadParameter(f"expected a number and s, m, h or d, such as 36h, got {text!r}", param_hint="--grace")
    return float(match[1]) * _UNITS[match[2]]
