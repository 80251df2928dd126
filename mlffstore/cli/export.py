"""`mlffstore export`: cut a release from a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import mlffstore as ml
from mlffstore.batch import choose_teacher
from mlffstore.cli.output import AsJson, StorePath, err, pairs, print_json
from mlffstore.cli.output import out as console
from mlffstore.describe import human_bytes


def export(
    store: StorePath,
    output: Annotated[
        Path, typer.Option("--out", "-o", help="File to write (.h5), or a folder for NAME-TEACHER-VERSION.h5.")
    ] = Path("release"),
    teacher: Annotated[
        str | None, typer.Option("--teacher", "-t", help="Whose labels; in a folder, one file for each by default.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the release; that of the store by default.")] = None,
    release: Annotated[str, typer.Option("--release", help="Version of the release.")] = "1.0.0",
    version: Annotated[int | None, typer.Option("--version", min=0, help="Version of the store.")] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="Tag of the store.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write compressed HDF5 releases of STORE with the groups train, val and test, one file for each teacher."""
    handle = ml.open(store)
    snap = handle.snapshot(version, tag=tag)
    title = name or Path(handle.url).stem
    if output.suffix in (".h5", ".hdf5"):
        targets = {choose_teacher(snap.teachers, teacher): output}
    else:
        chosen = [choose_teacher(snap.teachers, teacher)] if teacher or not snap.teachers else list(snap.teachers)
        targets = {who: output / f"{title}-{who}-{release}.h5" for who in chosen}
    written: list[dict[str, Any]] = []
    for who, path in targets.items():
        with err.status(f"exporting {who} ..."):
            path.parent.mkdir(parents=True, exist_ok=True)
            provenance = handle.provenance()
            ml.get_exporter("hdf5")(snap, path, teacher=who, title=title, version=release, provenance=provenance)
        counts = {split: len(snap.split_indices(split, who)) for split in ("train", "val", "test")}
        written.append({"path": str(path), "teacher": who, "bytes": path.stat().st_size, **counts})
    if as_json:
        print_json(written)
        return
    for one in written:
        counts_text = ", ".join(f"{split} {one[split]:,}" for split in ("train", "val", "test"))
        text = f"{one['teacher']}: {counts_text}; {human_bytes(one['bytes'])}"
        console.print(pairs([(one["path"], text)]))
