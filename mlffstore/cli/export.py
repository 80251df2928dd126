"""`mlffstore export`: cut a release from a store, or write its samples in another layout."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import mlffstore as ml
from mlffstore.cli.check import PolicyOption
from mlffstore.cli.output import AsJson, StorePath, pairs, print_json, progress_bar
from mlffstore.cli.output import out as console
from mlffstore.data.labels import choose_teacher
from mlffstore.data.splits import SPLITS
from mlffstore.release.manifest import read_manifest
from mlffstore.release.selection import select
from mlffstore.store.describe import human_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Options that say something of a release's folder only, and of an HDF5 file too.
_FOLDER = ("heads", "counts", "from_release", "policy", "allow_failing", "licence", "author", "description", "shard_gb")
_HDF5 = ("name", "release", "codec", "level", "rounding")


def export(
    context: typer.Context,
    store: StorePath,
    output: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder for the release's folder NAME-TEACHER-VERSION, or one file (.h5)."),
    ] = Path("release"),
    teacher: Annotated[
        list[str] | None,
        typer.Option("--teacher", "-t", help="Whose labels; a release for each by default. Repeat it for --heads."),
    ] = None,
    heads: Annotated[
        bool, typer.Option("--heads", help="One release with the labels of all these teachers, in named columns.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name of the release; that of the store by default.")] = None,
    release: Annotated[str, typer.Option("--release", help="Semantic version of the release.")] = "1.0.0",
    counts: Annotated[
        str | None, typer.Option("--counts", metavar="TRAIN,VAL,TEST", help="Exact numbers of samples, split by root.")
    ] = None,
    from_release: Annotated[
        Path | None, typer.Option("--from-release", help="An older release: print and record what changed since.")
    ] = None,
    policy: PolicyOption = None,
    allow_failing: Annotated[
        bool, typer.Option("--allow-failing", help="Publish although the validation fails; the manifest says so.")
    ] = False,
    licence: Annotated[str, typer.Option("--licence", help="SPDX identifier, such as CC-BY-4.0.")] = "",
    author: Annotated[list[str] | None, typer.Option("--author", help="'Family, Given'; repeat it.")] = None,
    description: Annotated[str, typer.Option("--description", help="A sentence or two for the card.")] = "",
    layout: Annotated[
        str, typer.Option("--format", "-f", help="'release', or another layout: see docs/how_to/release.md.")
    ] = "release",
    codec: Annotated[str, typer.Option("--codec", help="gzip; or zstd, blosc, lz4, which need hdf5plugin.")] = "gzip",
    level: Annotated[int, typer.Option("--level", min=1, max=9, help="Of the compression.")] = 4,
    rounding: Annotated[
        list[str] | None,
        typer.Option("--round", metavar="LABEL=STEP", help="Lossy: round forces or stress, such as forces=1e-4."),
    ] = None,
    shard_gb: Annotated[
        float | None, typer.Option("--shard-gb", min=0.001, help="Cut into files of about so many uncompressed GB.")
    ] = None,
    version: Annotated[int | None, typer.Option("--version", min=0, help="Version of the store.")] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="Tag of the store.")] = None,
    as_json: AsJson = False,
) -> None:
    """Cut a release from STORE: HDF5 with train, val and test, card, statistics, verdict, manifest with checksums."""
    handle = ml.open(store)
    snap = handle.snapshot(version, tag=tag)
    title = name or Path(handle.url).stem
    compression: dict[str, Any] = {"codec": codec, "compression_level": level, "rounding": _rounding(rounding or [])}
    written: list[dict[str, Any]] = []
    if layout != "release" or output.suffix in (".h5", ".hdf5"):
        kind = "hdf5" if layout == "release" else layout
        _refuse(
            context, _FOLDER if kind == "hdf5" else (*_FOLDER, *_HDF5), f"one file or folder of the layout {kind!r}"
        )
        if len(teacher or ()) > 1:
            raise typer.BadParameter(
                f"expected one teacher for {output}, got {', '.join(teacher or ())}; cut a release, or export one by one",
                param_hint="--teacher",
            )
        teacher_name = choose_teacher(snap.teachers, teacher[0] if teacher else None)
        options = compression | {"title": title, "version": release, "provenance": handle.provenance()}
        with progress_bar("samples") as progress, _warnings() as notes:
            path = ml.get_exporter(kind)(
                snap, output, teacher=teacher_name, progress=progress, **(options if kind == "hdf5" else {})
            )
        rows = {split: len(index) for split, index in select(snap, (teacher_name,)).items()}
        entry: dict[str, Any] = {
            "path": str(path),
            "teacher": teacher_name,
            "bytes": _size(path),
            **rows,
            "notes": notes,
        }
        written.append(entry | {"unlabelled": len(snap) - sum(rows.values())})
    else:
        chosen = [choose_teacher(snap.teachers, one) for one in teacher or snap.teachers or (None,)]
        # A name that was given for one release is its name; otherwise the teacher tells several apart.
        plain = heads or (name is not None and len(chosen) == 1)
        for heads_of in [chosen] if heads else [[one] for one in chosen]:
            with progress_bar("validating, then writing samples") as progress, _warnings() as notes:
                path = ml.export_release(
                    snap, output, name=title if plain else f"{title}-{heads_of[0]}", version=release,
                    teacher=heads_of if heads else heads_of[0], counts=_counts(counts), since=from_release, policy=policy,
                    allow_failing=allow_failing, licence=licence, authors=tuple(author or ()), description=description,
                    shard_nbytes=None if shard_gb is None else int(shard_gb * 1e9), progress=progress, **compression,
                )  # fmt: skip
            entry = summary(path if path.is_dir() else path.parent)
            left = len(snap) - sum(entry[split] for split in SPLITS)
            written.append(entry | {"notes": notes, "unlabelled" if counts is None else "not_exported": left})
    if as_json:
        print_json(written)
        return
    for entry in written:
        show(entry)


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collect what an exporter warns of, to be printed with its result: labels that are missing, columns left out."""
    notes: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            notes.append(record.getMessage())

    # In place of the log on stderr, which would say it twice.
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
    """Return what the command line says of a release."""
    manifest = read_manifest(folder)
    return {
        "path": str(folder),
        "teacher": ", ".join(manifest["teachers"]),
        "bytes": sum(one["bytes"] for name, one in manifest["files"].items() if name.endswith(".h5")),
        **{split: one["samples"] for split, one in manifest["splits"].items()},
        "valid": manifest["validation"]["ok"],
        "since": manifest["since"],
    }


def show(entry: dict[str, Any]) -> None:
    """Print it."""
    counts = ", ".join(f"{split} {entry[split]:,}" for split in SPLITS)
    verdict = {True: "; validation passes", False: "; does NOT pass the validation", None: ""}[entry.get("valid")]
    console.print(pairs([(entry["path"], f"{entry['teacher']}: {counts}; {human_bytes(entry['bytes'])}{verdict}")]))
    if entry.get("unlabelled"):
        console.print(f"{entry['unlabelled']:,} samples of the store have no label of {entry['teacher']}, not exported")
    if entry.get("not_exported"):
        console.print(
            f"{entry['not_exported']:,} samples of the store are not exported: unlabelled, or beyond the counts"
        )
    for note in entry.get("notes", ()):
        console.print(note, soft_wrap=True)
    since = entry.get("since")
    if since:
        total = {what: sum(since[what].values()) for what in ("added", "removed")}
        console.print(
            f"since {since['name']} {since['version']}: {total['added']:,} samples added, {total['removed']:,} removed, "
            f"{since['relabelled']:,} relabelled, {since['moved']:,} moved to another split: a {since['bump']} version"
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
        path.stat().st_size if path.is_file() else sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    )


__all__ = ["export", "show", "summary"]
