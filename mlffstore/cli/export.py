"""`mlffstore export`: cut a release from a store, or write its samples in another layout."""

from __future__ import annotations

import contextlib
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import mlffstore as ml
from mlffstore.cli.check import PolicyOption
from mlffstore.cli.output import (
    AsJson,
    Tag,
    Version,
    judged,
    print_json,
    print_pairs,
    progress_bar,
    remark,
    say,
)
from mlffstore.cli.plugins import Recheck
from mlffstore.cli.sources import SourcePath, Where, check_teacher, open_samples
from mlffstore.runtime.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlffstore.store.samples import Samples

#: As in `mlffstore.data.splits`, which imports numpy.
SPLITS = ("train", "val", "test")

#: Options by the arguments of the library that they set.
_OPTIONS = {
    "name": "--name", "version": "--release", "counts": "--counts", "since": "--from-release", "policy": "--policy",
    "licence": "--licence", "codec": "--codec", "compression_level": "--level", "rounding": "--round",
    "shard_nbytes": "--shard-gb", "exporter": "--format", "teacher": "--teacher",
}  # fmt: skip
#: Options of a release's folder only, and of an HDF5 file too.
_FOLDER = (
    "heads",
    "counts",
    "from_release",
    "policy",
    "allow_failing",
    "recheck",
    "licence",
    "author",
    "description",
    "shard_gb",
)
_HDF5 = ("name", "release", "codec", "level", "rounding")


def export(
    context: typer.Context,
    store: SourcePath,
    where: Where = None,
    output: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder for the folder of each release, or with --format one file or folder."),
    ] = Path("release"),
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            "--teacher",
            "-t",
            help="Teacher of the labels; a release for each by default. Repeat it for --heads.",
            show_default=False,
        ),
    ] = None,
    heads: Annotated[
        bool, typer.Option("--heads", help="One release with the labels of all these teachers, in named columns.")
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            help="Name of the release, and of its folder NAME-VERSION; that of the store by default. The teacher is added "
            "to the default, and where several teachers have a release each.",
            show_default=False,
        ),
    ] = None,
    release: Annotated[str, typer.Option("--release", help="Semantic version of the release.")] = "1.0.0",
    counts: Annotated[
        str | None,
        typer.Option(
            "--counts", metavar="TRAIN,VAL,TEST", help="Exact numbers of samples, split by root.", show_default=False
        ),
    ] = None,
    from_release: Annotated[
        Path | None,
        typer.Option(
            "--from-release", help="An older release: print and record what changed since.", show_default=False
        ),
    ] = None,
    policy: PolicyOption = None,
    allow_failing: Annotated[
        bool, typer.Option("--allow-failing", help="Publish although the validation fails; the manifest records it.")
    ] = False,
    recheck: Recheck = True,
    licence: Annotated[
        str, typer.Option("--licence", help="SPDX identifier, such as CC-BY-4.0.", show_default=False)
    ] = "",
    author: Annotated[
        list[str] | None, typer.Option("--author", help="'Family, Given'; repeat it.", show_default=False)
    ] = None,
    description: Annotated[
        str, typer.Option("--description", help="A sentence or two for the card.", show_default=False)
    ] = "",
    layout: Annotated[
        str, typer.Option("--format", "-f", help="'release', or another layout: see docs/how_to/release.md.")
    ] = "release",
    codec: Annotated[str, typer.Option("--codec", help="gzip; or zstd, blosc, lz4, which need hdf5plugin.")] = "gzip",
    level: Annotated[int, typer.Option("--level", min=1, max=9, help="Of the compression.")] = 4,
    rounding: Annotated[
        list[str] | None,
        typer.Option(
            "--round",
            metavar="LABEL=STEP",
            help="Lossy: round forces or stress, such as forces=1e-4.",
            show_default=False,
        ),
    ] = None,
    shard_gb: Annotated[
        float | None,
        typer.Option(
            "--shard-gb", min=0.001, help="Cut into files of about so many uncompressed GB.", show_default=False
        ),
    ] = None,
    version: Version = None,
    tag: Tag = None,
    as_json: AsJson = False,
) -> None:
    """Cut a release from STORE, or write another layout.

    A release is a folder with HDF5 of train, val and test, card, statistics, verdict, and a manifest with checksums.
    """
    snap = open_samples(store, version, tag, where)
    title = name or _title(snap)
    if shard_gb is not None and not math.isfinite(shard_gb):
        raise typer.BadParameter(f"expected a number of GB, got {shard_gb}", param_hint="--shard-gb")
    compression: dict[str, Any] = {"codec": codec, "compression_level": level, "rounding": _rounding(rounding or [])}
    one_file = layout != "release" or output.suffix in (".h5", ".hdf5")
    with judged(**_OPTIONS):
        if one_file:
            kind = "hdf5" if layout == "release" else layout
            ml.get_exporter(kind)
            _refuse(
                context, _FOLDER if kind == "hdf5" else (*_FOLDER, *_HDF5), f"one file or folder of the layout {kind!r}"
            )
            options = compression | {"title": title, "version": release, "provenance": snap.provenance()}
            written = [_one(snap, kind, output, _one_teacher(snap, teacher, output), options if kind == "hdf5" else {})]
        else:
            options = compression | {
                "version": release, "counts": _counts(counts), "since": from_release, "policy": policy,
                "allow_failing": allow_failing, "recheck": recheck, "licence": licence, "authors": tuple(author or ()),
                "description": description, "shard_nbytes": None if shard_gb is None else int(shard_gb * 1e9),
            }  # fmt: skip
            chosen = [_chosen(snap, name) for name in teacher or snap.teachers or (None,)]
            # A name that was given for one release is its name; otherwise several are distinguished by their teachers.
            plain = heads or (name is not None and len(chosen) == 1)
            written = [
                _release(snap, output, title if plain else f"{title}-{heads_of[0]}", heads_of, heads, options)
                for heads_of in ([chosen] if heads else [[name] for name in chosen])
            ]
    if as_json:
        print_json(written)
        return
    for entry in written:
        show(entry)


def _title(snap: Samples) -> str:
    """Return the name of a store, or that which a release has."""
    from mlffstore.release.samples import ReleaseSamples

    chosen = snap.selected()
    base = snap if chosen is None else chosen.snapshot
    title = base.release.attributes.get("title") if isinstance(base, ReleaseSamples) else None
    return str(title or Path(base.url).stem)


def _one(snap: Samples, kind: str, output: Path, teacher: str, options: dict[str, Any]) -> dict[str, Any]:
    """Write one file or folder in a layout, and return its summary."""
    from mlffstore.release.selection import select

    with progress_bar("samples") as progress, _warnings() as notes:
        path = ml.get_exporter(kind)(snap, output, teacher=teacher, progress=progress, **options)
    rows = {split: len(index) for split, index in select(snap, (teacher,)).items()}
    entry: dict[str, Any] = {"path": str(path), "teacher": teacher, "bytes": _size(path), **rows, "notes": notes}
    return entry | {"unlabelled": len(snap) - sum(rows.values())}


def _release(
    snap: Samples, output: Path, name: str, teachers: list[str], heads: bool, options: dict[str, Any]
) -> dict[str, Any]:
    """Cut a release, and return its summary."""
    with progress_bar("validating, then writing samples") as progress, _warnings() as notes:
        path = ml.export_release(
            snap, output, name=name, teacher=teachers if heads else teachers[0], progress=progress, **options
        )
    entry = summary(path if path.is_dir() else path.parent)
    left = len(snap) - sum(entry[split] for split in SPLITS)
    return entry | {"notes": notes, "unlabelled" if options["counts"] is None else "not_exported": left}


def _one_teacher(snap: Samples, teacher: list[str] | None, output: Path) -> str:
    """Return the teacher of a layout that has room for one."""
    if len(teacher or ()) > 1 or (not teacher and len(snap.teachers) > 1):
        raise typer.BadParameter(
            f"expected one teacher for {output}, got {', '.join(teacher or snap.teachers)}; choose one, or cut a release",
            param_hint="--teacher",
        )
    return _chosen(snap, teacher[0] if teacher else None)


def _chosen(snap: Samples, teacher: str | None) -> str:
    """Return a teacher of the store: the one that is asked for, or the only one."""
    check_teacher(snap, teacher)
    return teacher or snap.teachers[0]


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collect what an exporter warns of, to be printed with its result: labels that are missing, columns left out."""
    notes: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            notes.append(record.getMessage())

    # In place of the log on stderr, which would repeat it.
    root, collect = logging.getLogger(), Collect(logging.WARNING)
    others = root.handlers
    root.handlers = [collect]
    try:
        yield notes
    finally:
        root.handlers = others


def _refuse(context: typer.Context, names: tuple[str, ...], what: str) -> None:
    """Raise if the user gave an option that would do nothing."""
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in names and str(context.get_parameter_source(parameter.name)).endswith("COMMANDLINE")
    ]
    if given:
        raise typer.BadParameter(
            f"{what} has no place for {', '.join(given)}; leave them out, or cut a release (--out FOLDER)"
        )


def summary(folder: Path) -> dict[str, Any]:
    """Return the summary of a release that the command line prints."""
    from mlffstore.release.manifest import read_manifest

    manifest = read_manifest(folder)
    return {
        "path": str(folder),
        "teacher": ", ".join(manifest["teachers"]),
        "bytes": sum(entry["bytes"] for name, entry in manifest["files"].items() if name.endswith(".h5")),
        **{split: entry["samples"] for split, entry in manifest["splits"].items()},
        "valid": manifest["validation"]["ok"],
        "since": manifest["since"],
    }


def show(entry: dict[str, Any]) -> None:
    """Print it."""
    from mlffstore.store.describe import human_bytes

    counts = ", ".join(f"{split} {entry[split]:,}" for split in SPLITS)
    verdict = {True: "; validation passes", False: "; does NOT pass the validation", None: ""}[entry.get("valid")]
    print_pairs([(entry["path"], f"{entry['teacher']}: {counts}; {human_bytes(entry['bytes'])}{verdict}")])
    empty = [split for split in SPLITS if not entry[split]]
    if empty:
        remark(
            f"warning: {' and '.join(empty)} {'is' if len(empty) == 1 else 'are'} EMPTY: too few roots for all splits"
        )
    if entry.get("unlabelled"):
        n = entry["unlabelled"]
        have = "has" if n == 1 else "have"
        say(f"{counted(n, 'sample')} of the store {have} no label of {entry['teacher']}, not exported")
    if entry.get("not_exported"):
        n = entry["not_exported"]
        are = "is" if n == 1 else "are"
        say(f"{counted(n, 'sample')} of the store {are} not exported: unlabelled, or beyond the counts")
    for note in entry.get("notes", ()):
        say(note)
    since = entry.get("since")
    if since:
        total = {what: sum(since[what].values()) for what in ("added", "removed")}
        say(
            f"since {since['name']} {since['version']}: {counted(total['added'], 'sample')} added, {total['removed']:,} "
            f"removed, {since['relabelled']:,} relabelled, {since['moved']:,} moved to another split: a {since['bump']} "
            "version"
        )


def _counts(text: str | None) -> dict[str, int] | None:
    if text is None:
        return None
    parts = text.split(",")
    try:
        numbers = [int(part.strip().replace("_", "")) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) != len(SPLITS):
        raise typer.BadParameter(
            f"expected three numbers such as 100000,10000,10000, got {text!r}", param_hint="--counts"
        )
    return dict(zip(SPLITS, numbers, strict=True))


def _rounding(texts: list[str]) -> dict[str, float]:
    out = {}
    for text in texts:
        label, _, step = text.partition("=")
        try:
            out[label.strip()] = float(step)
        except ValueError as error:
            raise typer.BadParameter(f"expected such as forces=1e-4, got {text!r}", param_hint="--round") from error
    return out


def _size(path: Path) -> int:
    return (
        path.stat().st_size
        if path.is_file()
        else sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    )


__all__ = ["export", "show", "summary"]
