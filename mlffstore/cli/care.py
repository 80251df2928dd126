"""`mlffstore verify`, `compact`, `backup` and `gc`: care of a store."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import mlffstore as ml
from mlffstore.cli.output import (
    AsJson,
    ShowAll,
    StorePath,
    few,
    judged,
    print_grid,
    print_json,
    print_list,
    progress_bar,
    say,
    say_more,
)
from mlffstore.runtime.words import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlffstore.store.maintenance.verification import Problem

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def verify(
    store: Annotated[
        str,
        typer.Argument(help="Path of a store, or of a release.", metavar="STORE|RELEASE", show_default=False),
    ],
    full: Annotated[
        bool, typer.Option("--full", help="Read and check every byte, not only the log and sizes.")
    ] = False,
    show_all: ShowAll = False,
    as_json: AsJson = False,
) -> None:
    """Check that a store or a release is whole.

    The exit code is 1 if it is not, and what is damaged is listed. Of a release everything is read: checksums, columns,
    structures, splits, statistics.
    """
    from mlffstore.release import is_release
    from mlffstore.store.describe import human_bytes

    if is_release(store):
        _verify_release(store, show_all, as_json)
        return
    with progress_bar("segments") as progress:
        verification = ml.verify(store, full=full, progress=progress)
    if as_json:
        print_json({**dataclasses.asdict(verification), "ok": verification.ok})
    else:
        how = "every byte read" if full else "log and sizes of files; --full reads every byte"
        parts = [
            f"version {verification.version}", counted(verification.n_entries, "log entry"),
            counted(verification.n_segments, "segment"), counted(verification.n_files, "file"),
            human_bytes(verification.nbytes),
        ]  # fmt: skip
        say(f"{verification.url}: {', '.join(parts)} ({how})")
        _say_problems("path", verification.problems, "no damage found", show_all)
    if not verification.ok:
        raise typer.Exit(1)


def _verify_release(path: str, show_all: bool, as_json: bool) -> None:
    from mlffstore.store.describe import human_bytes

    with progress_bar("samples") as progress:
        verification = ml.verify_release(path, progress=progress)
    if as_json:
        print_json({**dataclasses.asdict(verification), "ok": verification.ok})
    else:
        files, samples = counted(verification.n_files, "file"), counted(verification.n_samples, "sample")
        say(f"{verification.path}: {files}, {human_bytes(verification.nbytes)}, {samples}")
        lone = Path(path).is_file()  # only a release folder has checksums of whole files
        none = (
            "its data are undamaged; what else a file alone says has no checksum"
            if lone
            else "it is what was published"
        )
        _say_problems("file", verification.problems, none, show_all)
    if not verification.ok:
        raise typer.Exit(1)


def _say_problems(heading: str, problems: Sequence[Problem], none: str, show_all: bool) -> None:
    if not problems:
        say(none)
        return
    say(f"{counted(len(problems), 'problem')}:")
    shown, more = few(problems, show_all)
    print_grid([heading, "problem"], [[problem.path, problem.text] for problem in shown])
    say_more(more, "problem")


def compact(
    store: StorePath,
    target: Annotated[
        int, typer.Option("--target-mib", min=1, help="Uncompressed size of merged segments, MiB.")
    ] = 128,
    as_json: AsJson = False,
) -> None:
    """Merge small segments of STORE into large ones.

    Other processes may go on writing.
    """
    from mlffstore.store.describe import human_bytes

    with progress_bar("runs of segments") as progress:
        done = ml.open(store, "a").compact(target_nbytes=target << 20, progress=progress)
    if as_json:
        print_json(dataclasses.asdict(done))
        return
    if not done.versions and not done.n_conflicts:
        say(f"nothing to merge: {counted(done.n_before, 'segment')}, none of which is small beside another")
        return
    say(
        f"{counted(done.n_before, 'segment')}, now {done.n_after:,}; {human_bytes(done.nbytes)} written in "
        f"{counted(len(done.versions), 'commit')}"
    )
    if done.n_conflicts:
        runs, were = (
            counted(done.n_conflicts, "run of segments", "runs of segments"),
            "was" if done.n_conflicts == 1 else "were",
        )
        say(f"{runs} {were} changed by another process meanwhile: compact again to merge them")
    if done.versions:
        say("the replaced files stay for older versions; 'mlffstore gc --expire-before VERSION' frees them")


def backup(
    store: StorePath,
    target: Annotated[
        str, typer.Argument(help="A new place, or that of an earlier backup.", metavar="TARGET", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Copy STORE to TARGET, or update an earlier copy.

    Other processes may go on writing.
    """
    from mlffstore.store.describe import human_bytes

    with progress_bar("segments") as progress:
        done = ml.open(store).backup(target, progress=progress)
    if as_json:
        print_json(dataclasses.asdict(done))
        return
    were = "was" if done.n_there == 1 else "were"
    say(
        f"{done.url}: version {done.version}; {counted(done.n_entries, 'log entry')} and {counted(done.n_files, 'file')} "
        f"copied ({human_bytes(done.nbytes)}), {counted(done.n_there, 'file')} {were} there"
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
        typer.Option(
            "--expire-before",
            min=0,
            help="Give up versions before this one, except tagged ones, for ever.",
            show_default=False,
        ),
    ] = None,
    show_all: ShowAll = False,
    as_json: AsJson = False,
) -> None:
    """List or remove files of STORE that no version needs."""
    from mlffstore.store.describe import human_bytes

    seconds = _seconds(grace)
    handle = ml.open(store, "a")
    with judged("--grace, --short-grace or --expire-before"):
        done = handle.gc(dry_run=not delete, grace=seconds, short_grace=short_grace, expire_before=expire_before)
    if as_json:
        print_json(dataclasses.asdict(done))
        return
    print_list(done.paths, show_all, "place")
    verb = "would be removed; add --delete to do it" if done.dry_run else "removed"
    files, places = counted(done.n_files, "file"), counted(len(done.paths), "place")
    say(f"{files}, {human_bytes(done.nbytes)}, in {places} {verb}" if done.n_files else "0 files to remove")
    if done.n_young:
        rest = (
            "is younger than {} and was left alone" if done.n_young == 1 else "are younger than {} and were left alone"
        )
        say(f"{counted(done.n_young, 'more file')} that no version needs {rest.format(grace)}")


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if not match:
        raise typer.BadParameter(f"expected a number and s, m, h or d, such as 36h, got {text!r}", param_hint="--grace")
    return float(match[1]) * _UNITS[match[2]]
