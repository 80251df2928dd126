"""`mlffstore import`: real files into a store."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

import mlffstore as ml
from mlffstore.cli.output import AsJson, ShowAll, few, judged, print_json, print_pairs, remark, status
from mlffstore.errors import StoreNotFoundError
from mlffstore.runtime.words import counted


def _pairs(option: str, items: list[str]) -> list[tuple[str, str]]:
    parsed = [item.partition("=")[::2] for item in items]
    if not all(name and value for name, value in parsed):
        raise typer.BadParameter(f"expected NAME=VALUE, got {' '.join(items)!r}", param_hint=option)
    return parsed


def _keys(items: list[str]) -> dict[str, Any]:
    """Return where labels are: names in order (a repeated option, or names with commas between), None for "none"."""
    keys: dict[str, Any] = {}
    for label, names in _pairs("--key", items):
        keys[label] = (*keys.get(label, ()), *names.split(","))
    return {label: None if names == ("none",) else names for label, names in keys.items()}


def import_(
    paths: Annotated[
        list[str],
        typer.Argument(help="Files to read, then the STORE to append to.", metavar="FILE... STORE", show_default=False),
    ],
    teacher: Annotated[
        str, typer.Option("--teacher", "-t", help="Name under which the labels of the files are stored.")
    ] = "dft",
    format: Annotated[
        str | None, typer.Option("--format", help="Format of the files; from their names by default.")
    ] = None,
    units: Annotated[
        list[str] | None,
        typer.Option(
            "--units",
            metavar="COLUMN=UNIT",
            help="Unit of a column, such as energy=hartree, stress=GPa or dipole=Debye. Repeat it.",
        ),
    ] = None,
    keys: Annotated[
        list[str] | None,
        typer.Option(
            "--key",
            metavar="LABEL=NAME",
            help="Where a label, charge or multiplicity is, such as energy=REF_energy or dipole=REF_dipole. Repeat it; of "
            "several names for one label the first that a sample has counts.",
        ),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="NAME=UNIT",
            help="A key to keep as a user column, with its unit: step=1. Numbers or strings. Repeat it.",
        ),
    ] = None,
    stress_sign: Annotated[
        str,
        typer.Option(
            "--stress-sign", metavar="SIGN", help="What a positive stress means in the files: tension or compression."
        ),
    ] = "tension",
    charge: Annotated[
        int | None, typer.Option("--charge", help="Charge of samples of which the files say nothing.")
    ] = None,
    multiplicity: Annotated[
        int | None, typer.Option("--multiplicity", help="Multiplicity of samples of which the files say nothing.")
    ] = None,
    spin: Annotated[
        str, typer.Option("--spin", help="What a value named spin is: multiplicity (2S+1) or unpaired (2S).")
    ] = "multiplicity",
    elements: Annotated[str, typer.Option("--elements", help="Elements of LAMMPS types in order, such as O,H.")] = "",
    root: Annotated[
        str, typer.Option("--root", help="What shares a root, so never straddles splits: sample, file or info:KEY.")
    ] = "sample",
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="FROM",
            help="Keep the splits that came with the data: key (the key named split), info:KEY, file (from file names), or "
            "hash to keep none. Those of stores and releases are kept by default.",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            help="A convention of keys, units and signs: mace, nequip, gap, castep, fairchem or mattersim.",
            show_default=False,
        ),
    ] = None,
    match: Annotated[
        str | None,
        typer.Option(
            "--match",
            help="structure: add the labels to the samples of STORE with the same structures, instead of new samples.",
            show_default=False,
        ),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option("--tolerance", min=0, help="With --match: how far atoms may be apart, angstrom, in any order."),
    ] = 0.0,
    require: Annotated[str, typer.Option("--require", help="Labels that must be there, or none.")] = "energy,forces",
    source: Annotated[
        str | None,
        typer.Option("--source", help="Where the data came from, or info:KEY; the file's name by default."),
    ] = None,
    add_hydrogens: Annotated[
        bool, typer.Option(help="Add the hydrogens that SDF and SMILES leave out, or refuse such files.")
    ] = True,
    allow_no_hydrogen: Annotated[
        bool, typer.Option("--allow-no-hydrogen", help="Accept molecules that look as if their hydrogens were lost.")
    ] = False,
    check_stress: Annotated[bool, typer.Option(help="Refuse a stress whose sign or unit cannot be right.")] = True,
    on_error: Annotated[
        str, typer.Option("--on-error", help="For samples that cannot be stored: refuse, or quarantine them.")
    ] = "refuse",
    on_duplicate: Annotated[
        str, typer.Option("--on-duplicate", help="For structures that are there already: keep, skip or error.")
    ] = "keep",
    batch_samples: Annotated[
        int, typer.Option("--batch-samples", min=1, help="Samples that are read and written as a block.")
    ] = 2048,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Processes that read and check an extended XYZ file.")
    ] = 1,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            help="dtype of positions of a new store: float32 (by default) or float64. A store or release brings its own.",
            show_default=False,
        ),
    ] = None,
    show_all: ShowAll = False,
    as_json: AsJson = False,
) -> None:
    """Import files, with their labels, into STORE.

    The store is made if it does not exist.
    Reads anything that ASE reads, stores and releases of this library, Parquet, HDF5 of SPICE, ANI and MACE, JSON of
    the Materials Project, DeePMD folders, npz, SDF or SMILES (hydrogens are added), and more. Every file is checked before
    anything is stored. What the files hold and the store does not take is listed.
    """
    from mlffstore.importing.options import Options
    from mlffstore.importing.run import run_import
    from mlffstore.importing.wording import Wording

    if len(paths) < 2:
        raise typer.BadParameter(
            "expected at least one FILE and then the STORE, got one path", param_hint="FILE... STORE"
        )
    *files, store = paths
    with judged("the options"):
        options = Options(
            teacher=teacher,
            format=format,
            keys=_keys(keys or []),
            columns=_columns(columns or []),
            units=dict(_pairs("--units", units or [])),
            stress_sign=stress_sign,
            charge=charge,
            multiplicity=multiplicity,
            spin=spin,
            elements=tuple(symbol.strip() for symbol in elements.split(",") if symbol.strip()),
            root=root,
            source=source,
            require=() if require.strip() in ("", "none") else tuple(name.strip() for name in require.split(",")),
            batch_samples=batch_samples,
            add_hydrogens=add_hydrogens,
            allow_no_hydrogen=allow_no_hydrogen,
            check_stress=check_stress,
            on_error=on_error,  # type: ignore[arg-type]  # checked there
            on_duplicate=on_duplicate,  # type: ignore[arg-type]
            split=split,
            match=match,  # type: ignore[arg-type]
            tolerance=tolerance,
            preset=preset,
            workers=workers,
            wording=Wording("command line"),
        )
        options.reader(), options.extra()  # keys, units and columns are checked there
    target: str | ml.Store = store
    with contextlib.suppress(StoreNotFoundError):
        target = ml.open(store, mode="a")
    new = ({"precision": precision} if precision else {}) if isinstance(target, str) else None
    if precision not in (None, "float32", "float64"):
        raise typer.BadParameter(f"expected float32 or float64, got {precision!r}", param_hint="--precision")
    if precision is not None and isinstance(target, ml.Store) and precision != target.precision:
        raise typer.BadParameter(
            f"expected {target.precision}, which {store} has since it was made, got {precision}",
            param_hint="--precision",
        )
    with status("importing ...") as change:
        report = run_import(
            [Path(file) for file in files],
            target,
            options,
            new,
            lambda n: change(f"importing ... {counted(n, 'sample')}"),
        )
    if as_json:
        print_json(dataclasses.asdict(report))
        return
    for place in report.unmatched[: None if show_all else 20]:
        remark(f"unmatched: {place}")
    shown, more = few([*report.warnings, *report.reasons], show_all)
    for text in shown:
        remark(f"warning: {text}")
    if more:
        remark(f"... and {counted(more, 'more warning')}; --all shows all of them")
    rows = report.summary()
    with contextlib.suppress(StoreNotFoundError):
        rows.append(("store", f"{store}, version {ml.open(store).version}"))
    print_pairs(rows)


def _columns(items: list[str]) -> dict[str, str]:
    """Return the user columns and their units, which may be left out."""
    columns: dict[str, str] = {}
    for item in items:
        name, _, unit = item.partition("=")
        if not name or name in columns:
            raise typer.BadParameter(f"expected each NAME=UNIT once, got {' '.join(items)!r}", param_hint="--column")
        columns[name] = unit
    return columns
