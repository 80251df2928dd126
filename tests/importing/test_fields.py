"""Frames with random subsets of fields go through every format: each field is kept and equal, or named as left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.db import connect

import mlffstore as ml

if TYPE_CHECKING:
    from pathlib import Path

_STATE = {"charge": ("charge", "total_charge", "net_charge"), "multiplicity": ("multiplicity", "mult", "total_spin")}


def frames(rng: np.random.Generator, n: int = 12) -> list[Atoms]:
    """Return structures with labels, states, numbers, texts and arrays, each on some of them."""
    chosen = {name: bool(rng.random() < 0.6) for name in ("config_type", "weight", "step", "tag", "site", "velocity")}
    names = {what: str(rng.choice(words)) for what, words in _STATE.items()}
    out = []
    for _ in range(n):
        size = int(rng.integers(1, 6))
        atoms = Atoms(rng.choice([3, 9, 14, 26], size), rng.normal(0, 4, (size, 3)))
        if rng.random() < 0.5:
            atoms.cell, atoms.pbc = np.eye(3) * 9 + rng.normal(0, 0.3, (3, 3)), rng.integers(0, 2, 3).astype(bool)
        charge = int(rng.integers(-1, 2))
        if rng.random() < 0.7:
            atoms.info[names["charge"]] = charge
            lowest = 1 + (int(atoms.numbers.sum()) - charge) % 2
            if rng.random() < 0.7:
                atoms.info[names["multiplicity"]] = lowest + 2 * int(rng.integers(0, 2))
        values: dict[str, Any] = {
            "config_type": "two words", "weight": float(rng.normal()), "step": int(rng.integers(0, 99)), "tag": "T7",
        }  # fmt: skip
        for name, value in values.items():
            if chosen[name] and rng.random() < 0.7:
                atoms.info[name] = value
        if chosen["site"]:
            atoms.arrays["site"] = rng.integers(0, 9, size)
        if chosen["velocity"] and rng.random() < 0.7:
            atoms.arrays["velocity"] = rng.normal(size=(size, 3))
        if rng.random() < 0.2:
            atoms.set_constraint(FixAtoms([0]))
        results = {
            "energy": float(rng.normal(-9)), "forces": rng.normal(size=(size, 3)), "stress": rng.normal(size=6) * 1e-3,
            "dipole": rng.normal(size=3), "magmoms": rng.normal(size=size),
        }  # fmt: skip
        kept = {name: value for name, value in results.items() if rng.random() < 0.7}
        if kept:
            atoms.calc = SinglePointCalculator(atoms, **kept)
        out.append(atoms)
    return out


def write(path: Path, given: list[Atoms], place: str) -> None:
    """Write frames; in a database what is in `info` goes to data or key-value pairs, and arrays to data."""
    if path.suffix not in (".db", ".json", ".aselmdb"):
        ase.io.write(path, given)
        return
    with connect(path, **({"type": "aselmdb"} if path.suffix == ".aselmdb" else {})) as database:
        for atoms in given:
            arrays = {name: atoms.arrays[name] for name in ("site", "velocity") if name in atoms.arrays}
            info = dict(atoms.info)
            pairs, data = (info, arrays) if place == "key_value_pairs" else ({}, info | arrays)
            pairs.pop("tag", None)  # a text of digits is no value for ASE
            database.write(atoms, key_value_pairs=pairs, data=data)


def held(atoms: Atoms, *, database: bool) -> dict[str, Any]:
    """Return what a file says of a frame beside the structure."""
    out = {} if atoms.calc is None else dict(atoms.calc.results)
    out |= {name: value for name, value in atoms.arrays.items() if name not in ("numbers", "positions")}
    out |= {name: value for name, value in atoms.info.items() if not (database and name == "tag")}
    return out


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("suffix", "place"),
    [("extxyz", ""), ("traj", ""), ("db", "data"), ("db", "key_value_pairs"), ("json", "data"), ("aselmdb", "data")],
)
def test_every_field_is_kept_or_named(tmp_path: Path, suffix: str, place: str, seed: int) -> None:
    if suffix == "aselmdb":
        pytest.importorskip("ase_db_backends")
    rng = np.random.default_rng([seed, len(suffix), len(place)])
    given = frames(rng)
    write(tmp_path / f"a.{suffix}", given, place)
    database = suffix in ("db", "json", "aselmdb")
    if suffix == "traj":  # ASE does not write other arrays
        for atoms in given:
            atoms.arrays = {name: atoms.arrays[name] for name in ("numbers", "positions")}
    present = {name for atoms in given for name in held(atoms, database=database)}
    numbers = present & {"weight", "step", "site", "velocity", "dipole", "magmoms"}
    columns = sorted(name for name in numbers if rng.random() < 0.5)
    report = ml.import_files(
        tmp_path / f"a.{suffix}",
        tmp_path / "s",
        require=(),
        columns=columns,
        batch_samples=5,
        create_options={"precision": "float64"},
    )
    counts: dict[str, int] = {}
    for use in report.keys:
        counts[use.name] = counts.get(use.name, 0) + use.samples
    for name in present:
        assert counts[name] == sum(name in held(atoms, database=database) for atoms in given), name
    constrained = sum(bool(atoms.constraints) for atoms in given)
    assert counts.get("constraints", 0) == constrained
    check(ml.open(tmp_path / "s").snapshot().read(), given, columns)


def check(batch: ml.SampleBatch, given: list[Atoms], columns: list[str]) -> None:
    """Compare what is stored with the frames."""
    tolerance = {"rtol": 1e-6, "atol": 1e-7}  # extended XYZ writes eight decimals, labels of atoms are float32
    for i, atoms in enumerate(given):
        rows = slice(batch.offsets[i], batch.offsets[i + 1])
        results = {} if atoms.calc is None else atoms.calc.results
        labels = {"energy": "sample", "forces": "atom", "stress": "sample", "dipole": "sample", "magmoms": "atom"}
        for name, axis in labels.items():
            if name in columns:
                continue
            values = batch.labels.get("dft", {}).get(name)
            stored = None if values is None else values[rows if axis == "atom" else i]
            if name in results:
                np.testing.assert_allclose(stored, results[name], **tolerance)
            else:
                assert stored is None or np.isnan(stored).all(), name
        charge = next((atoms.info[name] for name in _STATE["charge"] if name in atoms.info), 0)
        lowest = 1 + (int(atoms.numbers.sum()) - charge) % 2
        assert batch.charge[i] == charge
        assert batch.multiplicity[i] == next(
            (atoms.info[name] for name in _STATE["multiplicity"] if name in atoms.info), lowest
        )
        everything = held(atoms, database=False)
        for name in columns:
            where = rows if batch.user[name].axis == "atom" else slice(i, i + 1)
            stored, mask = batch.columns[name][where], batch.masks.get(name)
            if name in everything:
                np.testing.assert_allclose(stored.reshape(-1), np.ravel(everything[name]), **tolerance)
                assert mask is None or mask[where].all()
            else:
                assert (
                    np.isnan(stored).all() if stored.dtype.kind == "f" else mask is not None and not mask[where].any()
                )


@pytest.mark.parametrize("layout", ["extxyz", "aselmdb"])
@pytest.mark.parametrize("seed", range(3))
def test_an_export_of_ours_comes_back(tmp_path: Path, layout: str, seed: int) -> None:
    if layout == "aselmdb":
        pytest.importorskip("ase_db_backends")
    rng = np.random.default_rng(seed)
    given = [atoms for atoms in frames(rng, 20) if atoms.calc is not None and "energy" in atoms.calc.results]
    write(tmp_path / "a.extxyz", given, "")
    present = {name for atoms in given for name in held(atoms, database=False)}
    columns = sorted(present & {"weight", "step", "site", "dipole"})
    options: dict[str, Any] = {"require": (), "create_options": {"precision": "float64"}}
    ml.import_files(tmp_path / "a.extxyz", tmp_path / "s", columns=columns, **options)
    first = ml.open(tmp_path / "s").snapshot()
    out = ml.get_exporter(layout)(first, tmp_path / "out")
    files = sorted(path for path in out.rglob("*") if path.suffix in (".extxyz", ".aselmdb"))
    if "dipole" in columns:  # ASE would make a result of it, so that it is not exported
        columns.remove("dipole")
        for atoms in given:
            atoms.calc.results.pop("dipole", None)
    report = ml.import_files(files, tmp_path / "t", columns=columns, **options)
    assert {use.name for use in report.keys if use.fate == "left out"} <= {
        "root", "source", "sampler", "teacher", "constraints",
    }  # fmt: skip
    ours, theirs = ml.open(tmp_path / "t").snapshot().read(), first.read()
    order = {key: i for i, key in enumerate(theirs.content_hash.tolist())}
    if layout == "aselmdb":  # extended XYZ rounds positions, so their hashes differ
        check(ours, [given[order[key]] for key in ours.content_hash.tolist()], columns)
    assert sorted(ours.charge.tolist()) == sorted(theirs.charge.tolist())
    assert sorted(ours.multiplicity.tolist()) == sorted(theirs.multiplicity.tolist())
    assert len(ours) == len(theirs)
