"""`mlffstore import`: real files into a store."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Annotated

import typer

import mlffstore as ml
from mlffstore.cli.output import AsJson, err, out, pairs, print_json
from mlffstore.errors import DataError, StoreNotFoundError


def _mapping(option: str, items: list[str]) -> dict[str, str]:
    parsed = dict(item.partition("=")[::2] for item in items)
    if not all(name and value for name, value in parsed.items()):
        raise DataError(f"{option}: expected NAME=VALUE, got {' '.join(items)!r}")
    return parsed


def import_(
    paths: Annotated[
        list[str], typer.Argument(help="Files to read, then the STORE to append to.", metavar="FILE... STORE")
    ],
    teacher: Annotated[str, typer.Option("--teacher", "-t", help="Whose labels the files hold.")] = "dft",
    format: Annotated[
        str | None, typer.Option("--format", help="Format of the files; from their names by default.")
    ] = None,
    units: Annotated[
        list[str] | None,
        typer.Option("--units", help="Unit of a column, such as energy=hartree or stress=GPa. Repeat it."),
    ] = None,
    keys: Annotated[
        list[str] | None, typer.Option("--key", help="Where a label is, such as energy=REF_energy. Repeat it.")
    ] = None,
    stress_sign: Annotated[
        str, typer.Option("--stress-sign", help="What a positive stress means in the files: tension or compression.")
    ] = "tension",
    root: Annotated[
        str, typer.Option("--root", help="What shares a root, so never straddles splits: sample, file or info:KEY.")
    ] = "sample",
    require: Annotated[str, typer.Option("--require", help="Labels that must be there, or none.")] = "energy,forces",
    source: Annotated[
        str | None, typer.Option("--source", help="Where the data came from; the file's name by default.")
    ] = None,
    add_hydrogens: Annotated[
        bool, typer.Option(help="Add the hydrogens that SDF and SMILES leave out, or refuse such files.")
    ] = True,
    allow_no_hydrogen: Annotated[
        bool, typer.Option("--allow-no-hydrogen", help="Accept molecules that look as if their hydrogens were lost.")
    ] = False,
    check_stress: Annotated[bool, typer.Option(help="Refuse a stress whose sign or unit cannot be right.")] = True,
    batch_samples: Annotated[int, typer.Option("--batch", min=1, help="Samples of one commit.")] = 2048,
    precision: Annotated[str, typer.Option("--precision", help="dtype of positions of a new store.")] = "float32",
    as_json: AsJson = False,
) -> None:
    """Import the samples of FILEs, with their labels, into STORE, which is made if it does not exist.

    Reads anything that ASE reads, SPICE HDF5, and SDF or SMILES (hydrogens are added).
    """
    if len(paths) < 2:
        raise DataError("import: expected at least one FILE and then the STORE, got one path")
    *files, store = paths
    needed = () if require.strip() in ("", "none") else tuple(name.strip() for name in require.split(","))
    target: str | ml.Store = store
    with contextlib.suppress(StoreNotFoundError):
        target = ml.open(store, mode="a")
    with err.status("importing ...") as status:
        report = ml.import_files(
            files,
            target,
            teacher=teacher,
            format=format,
            units=_mapping("--units", units or []),
            keys=_mapping("--key", keys or []),
            stress_sign=stress_sign,
            root=root,
            require=needed,
            source=source,
            add_hydrogens=add_hydrogens,
            allow_no_hydrogen=allow_no_hydrogen,
            check_stress=check_stress,
            batch_samples=batch_samples,
            create_options=None if target is not store else {"precision": precision},
            progress=lambda n: status.update(f"importing ... {n:,} samples"),
        )
    if as_json:
        print_json(dataclasses.asdict(report))
        return
    for warning in report.warnings:
        err.print(f"warning: {warning}", markup=False)
    rows = [("imported", f"{report.samples:,} samples, {report.atoms:,} atoms from {len(files)} files")]
    if report.skipped:
        rows.append(("skipped", f"{report.skipped:,} samples that an earlier import of these files had written"))
    if report.hydrogens_added:
        rows.append(("hydrogens", f"{report.hydrogens_added:,} added by RDKit"))
    rows.append(("store", f"{store}, version {ml.open(store).version}"))
    out.print(pairs(rows))
