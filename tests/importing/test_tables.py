"""Formats of other programs and collections: counts, units, signs, teachers and what is left out."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule

import mlffstore as ml
from mlffstore.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(0)


def fates(report: Any) -> dict[str, str]:
    return {use.name: use.fate for use in report.keys}


def test_materials_json(tmp_path: Path) -> None:
    pytest.importorskip("ijson")
    core = pytest.importorskip("pymatgen.core")
    entries: dict[str, Any] = {}
    for m in range(3):
        for k in range(4):
            structure = core.Structure(
                core.Lattice.cubic(4.2 + 0.01 * k), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5 + 0.01 * m]]
            )
            entries.setdefault(f"mp-{m}", {})[f"mp-{m}-0-{k}"] = {
                "structure": structure.as_dict(), "uncorrected_total_energy": -7.0 - k, "corrected_total_energy": -7.5 - k,
                "force": [[0.1, 0, 0], [-0.1, 0, 0]], "stress": [[10.0, 1, 2], [1, 20.0, 3], [2, 3, 30.0]],
                "magmom": [0.5, -0.5] if k else None, "mp_id": f"mp-{m}",
            }  # fmt: skip
    for name, opener in (("a.json", open), ("a.json.gz", gzip.open)):
        with opener(tmp_path / name, "wt") as file:
            json.dump(entries, file)
        report = ml.import_files(tmp_path / name, tmp_path / f"s-{name}", create_options={"precision": "float64"})
        assert report.samples == 12
        assert fates(report)["corrected_total_energy"] == "left out"
        batch = ml.open(tmp_path / f"s-{name}").snapshot().read()
        assert batch.energy.tolist() == [-7.0 - k for _ in range(3) for k in range(4)]
        kbar = -0.1 * units.GPa  # VASP's stress is positive where the crystal is compressed
        np.testing.assert_allclose(batch.stress[0], np.array([10, 20, 30, 3, 2, 1]) * kbar, rtol=1e-6)
        assert len(set(batch.root.tolist())) == 3  # the frames of a material belong together
        theirs = core.Structure.from_dict(entries["mp-2"]["mp-2-0-3"]["structure"])
        np.testing.assert_allclose(batch.positions[-2:], theirs.cart_coords, atol=1e-12)
        np.testing.assert_allclose(batch.cell[-1], theirs.lattice.matrix)
    report = ml.import_files(tmp_path / "a.json", tmp_path / "t", keys={"energy": "corrected_total_energy"})
    assert ml.open(tmp_path / "t").snapshot().read().energy[0] == -7.5
    entries["mp-0"]["mp-0-0-0"]["structure"]["sites"][0]["species"][0]["occu"] = 0.5
    (tmp_path / "b.json").write_text(json.dumps(entries))
    with pytest.raises(DataError, match="mp-0, mp-0-0-0: sites are occupied in part"):
        ml.import_files(tmp_path / "b.json", tmp_path / "u")


def test_ani_has_several_teachers(tmp_path: Path) -> None:
    water = molecule("H2O")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("H2O1")
        group["atomic_numbers"] = water.numbers.astype(np.uint8)
        group["coordinates"] = (water.positions + RNG.normal(0, 0.02, (5, 3, 3))).astype(np.float32)
        group["wb97x_dz.energy"] = np.full(5, -76.4)
        group["wb97x_dz.forces"] = np.full((5, 3, 3), 0.01, np.float32)
        group["ccsd(t)_cbs.energy"] = np.array([-76.3, np.nan, -76.3, np.nan, np.nan])
        group["wb97x_dz.quadrupole"] = np.zeros((5, 6))
    report = ml.import_files(tmp_path / "a.h5", tmp_path / "s", batch_samples=2)
    snap = ml.open(tmp_path / "s").snapshot()
    batch = snap.read()
    assert sorted(snap.teachers) == ["ccsd-t-_cbs", "wb97x_dz"]
    np.testing.assert_allclose(batch.label("energy", "wb97x_dz"), -76.4 * units.Hartree)
    np.testing.assert_allclose(batch.label("forces", "wb97x_dz"), 0.01 * units.Hartree, rtol=1e-6)  # hartree/angstrom
    assert np.isfinite(batch.label("energy", "ccsd-t-_cbs")).tolist() == [True, False, True, False, False]
    assert len(set(batch.root.tolist())) == 1
    assert fates(report)["wb97x_dz.quadrupole"] == "left out"


def test_ani_2x(tmp_path: Path) -> None:
    kinds = [molecule("H2O"), molecule("CO2")]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("003")
        which = [0, 1, 1, 0, 1]
        group["species"] = np.array([kinds[k].numbers for k in which])
        group["coordinates"] = np.array([kinds[k].positions for k in which]) + RNG.normal(0, 0.02, (5, 3, 3))
        group["energies"] = np.arange(5.0)
        group["forces"] = RNG.normal(size=(5, 3, 3))
    ml.import_files(tmp_path / "a.h5", tmp_path / "s", teacher="wb97x")
    batch = ml.open(tmp_path / "s").snapshot().read()
    formulas = {a.get_chemical_formula(): i for i, a in enumerate(batch.to_ase())}
    assert len(batch) == 5
    assert set(formulas) == {"H2O", "CO2"}
    np.testing.assert_allclose(sorted(batch.energy / units.Hartree), np.arange(5.0))


def test_npz(tmp_path: Path) -> None:
    ethanol = molecule("CH3CH2OH")
    shape = (6, 9, 3)
    positions = ethanol.positions + RNG.normal(0, 0.02, shape)
    np.savez(
        tmp_path / "rmd17.npz", nuclear_charges=ethanol.numbers, coords=positions, energies=np.full(6, -1000.0),
        forces=np.ones(shape), old_indices=np.arange(6),
    )  # fmt: skip
    report = ml.import_files(tmp_path / "rmd17.npz", tmp_path / "s")
    batch = ml.open(tmp_path / "s").snapshot().read()
    np.testing.assert_allclose(batch.energy, -1000 * units.kcal / units.mol)
    assert fates(report)["old_indices"] == "left out"
    assert len(set(batch.root.tolist())) == 1  # one trajectory
    np.savez(tmp_path / "own.npz", pos=positions, z=ethanol.numbers, U=np.arange(6.0))
    with pytest.raises(DataError, match=r"positions(.|\n)*pos, z; name them with keys="):
        ml.import_files(tmp_path / "own.npz", tmp_path / "t", require=("energy",))
    options = {"keys": {"positions": "pos", "numbers": "z", "energy": "U"}, "units": {"energy": "hartree"}}
    ml.import_files(tmp_path / "own.npz", tmp_path / "t", require=("energy",), **options)
    np.testing.assert_allclose(ml.open(tmp_path / "t").snapshot().read().energy, np.arange(6.0) * units.Hartree)
    padded = np.zeros((2, 5), int)
    padded[0, :3], padded[1] = molecule("H2O").numbers, molecule("CH4").numbers
    places = np.zeros((2, 5, 3))
    places[0, :3], places[1] = molecule("H2O").positions, molecule("CH4").positions
    np.savez(tmp_path / "qm9.npz", charges=padded, positions=places, U0=[-76.4, -40.5])
    keys = {"positions": "positions", "numbers": "charges", "energy": "U0"}
    ml.import_files(tmp_path / "qm9.npz", tmp_path / "u", require=("energy",), keys=keys, units={"energy": "hartree"})
    assert ml.open(tmp_path / "u").snapshot().read().n_atoms.tolist() == [3, 5]
    np.savez(tmp_path / "pickled.npz", R=np.array([{}], dtype=object), z=np.array([1]))
    with pytest.raises(DataError, match="plain arrays"):
        ml.import_files(tmp_path / "pickled.npz", tmp_path / "v")


@pytest.mark.parametrize("fmt", ["deepmd/npy", "deepmd/npy/mixed"])
def test_deepmd(tmp_path: Path, fmt: str) -> None:
    dpdata = pytest.importorskip("dpdata")
    n, cell = 5, np.eye(3) * 5.6
    atoms = bulk("NaCl", "rocksalt", 5.6, cubic=True)
    order = np.argsort(atoms.numbers, kind="stable")
    atoms = atoms[order]
    data = {
        "atom_names": ["Na", "Cl"], "atom_numbs": [4, 4], "atom_types": np.repeat([0, 1], 4), "orig": np.zeros(3),
        "cells": np.repeat(cell[None], n, 0), "coords": atoms.positions + RNG.normal(0, 0.03, (n, 8, 3)),
        "energies": np.arange(n) - 30.0, "forces": RNG.normal(size=(n, 8, 3)), "virials": RNG.normal(0, 0.1, (n, 3, 3)),
    }  # fmt: skip
    data["virials"] = (data["virials"] + data["virials"].transpose(0, 2, 1)) / 2
    system = dpdata.LabeledSystem(data={**data, "nopbc": False})
    if fmt == "deepmd/npy":
        system.to(fmt, str(tmp_path / "d"))
    else:
        dpdata.MultiSystems(system).to(fmt, str(tmp_path / "d"))
    ml.import_files(tmp_path / "d", tmp_path / "s", root="file", check_stress=False)
    batch = ml.open(tmp_path / "s").snapshot().read()
    assert batch.energy.tolist() == (np.arange(n) - 30.0).tolist()
    np.testing.assert_allclose(batch.forces.reshape(n, 8, 3), data["forces"], rtol=1e-5, atol=1e-5)
    stress = -data["virials"] / 5.6**3
    np.testing.assert_allclose(batch.stress[:, 3], stress[:, 1, 2], rtol=1e-4, atol=1e-6)
    assert sorted(set(batch.numbers.tolist())) == [11, 17]
    assert batch.pbc.all()


def test_mace_hdf5(tmp_path: Path) -> None:
    atoms = bulk("Cu", cubic=True)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        batch = file.create_group("config_batch_0")
        for i in range(12):
            group = batch.create_group(f"config_{i}")
            group["atomic_numbers"], group["positions"] = atoms.numbers, atoms.positions
            group["cell"], group["pbc"] = atoms.cell.array, atoms.pbc
            values, weights = group.create_group("properties"), group.create_group("property_weights")
            values["energy"], values["forces"], values["stress"] = float(i), RNG.normal(size=(4, 3)), np.zeros((3, 3))
            weights["energy"], weights["forces"], weights["stress"] = 1.0, 1.0, 0.0
            group["head"], group["config_type"], group["charges"] = "pbe", "Default", "None"
    report = ml.import_files(tmp_path / "a.h5", tmp_path / "s", columns=["head"])
    batch = ml.open(tmp_path / "s").snapshot().read()
    assert batch.energy.tolist() == list(map(float, range(12)))  # in the order of the numbers
    assert "stress" not in batch.labels["dft"]  # zeros that weigh nothing are no label
    assert batch.strings("head") == ["pbe"] * 12
    assert fates(report)["config_type"] == "left out"


def test_dipoles_of_mace_have_no_unit(tmp_path: Path) -> None:
    water = molecule("H2O")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for i in range(2):
            group = file.create_group(f"config_batch_0/config_{i}")
            group["atomic_numbers"], group["positions"], group["cell"], group["pbc"] = (
                water.numbers, water.positions, "None", [False] * 3
            )  # fmt: skip
            values, weights = group.create_group("properties"), group.create_group("property_weights")
            values["energy"], values["dipole"], values["charges"] = -1.0, [0.0, 0.0, 1.85], np.array([-0.6, 0.3, 0.3])
            weights["energy"], weights["dipole"], weights["charges"] = 1.0, [float(i)] * 3, 1.0
    report = ml.import_files(tmp_path / "a.h5", tmp_path / "s", require=("energy",))
    batch = ml.open(tmp_path / "s").snapshot().read()
    assert fates(report)["dipole"] == "left out"
    assert "dipole" not in batch.labels["dft"]
    assert any("does not say their unit" in text for text in report.warnings)
    np.testing.assert_allclose(batch.labels["dft"]["charges"], [-0.6, 0.3, 0.3] * 2, rtol=1e-6)
    named: dict[str, Any] = {"keys": {"dipole": "dipole"}, "units": {"dipole": "Debye"}}
    report = ml.import_files(tmp_path / "a.h5", tmp_path / "t", require=("energy",), **named)
    assert not any("does not say their unit" in text for text in report.warnings)
    dipole = ml.open(tmp_path / "t").snapshot().read().labels["dft"]["dipole"]
    np.testing.assert_allclose(dipole, [[0, 0, 1.85 * units.Debye]] * 2)  # also where it weighs nothing


def test_parquet_and_arrow(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    atoms = bulk("NaCl", "rocksalt", 5.6, cubic=True)
    rows = [
        {
            "immutable_id": f"mp-{i // 2}", "species_at_sites": atoms.get_chemical_symbols(),
            "cartesian_site_positions": (atoms.positions + 0.01 * i).tolist(), "lattice_vectors": atoms.cell.tolist(),
            "energy": -30.0 - i, "forces": RNG.normal(size=(8, 3)).tolist(), "functional": "pbe",
            "stress_tensor": np.zeros((3, 3)).tolist() if i else None,
        }
        for i in range(6)
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows)
    (tmp_path / "set").mkdir()
    pq.write_table(table.slice(0, 4), tmp_path / "set" / "train-0.parquet")
    pq.write_table(table.slice(4), tmp_path / "set" / "train-1.parquet")
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    for name in ("set", "a.arrow"):
        report = ml.import_files(tmp_path / name, tmp_path / f"s-{name}", columns=["functional"])
        batch = ml.open(tmp_path / f"s-{name}").snapshot().read()
        assert batch.energy.tolist() == [-30.0 - i for i in range(6)]
        assert len(set(batch.root.tolist())) == 3
        assert batch.strings("functional") == ["pbe"] * 6
        assert batch.pbc.all()
        assert fates(report)["immutable_id"] == "left out"
    other = pa.table({"z": [[8, 1, 1]], "where": [molecule("H2O").positions.tolist()], "y": [-1.0]})
    pq.write_table(other, tmp_path / "o.parquet")
    with pytest.raises(DataError, match=r"got z, where, y; name them with keys="):
        ml.import_files(tmp_path / "o.parquet", tmp_path / "t")
    keys = {"positions": "where", "energy": "y"}
    ml.import_files(tmp_path / "o.parquet", tmp_path / "t", keys=keys, require=("energy",), units={"energy": "hartree"})
    assert ml.open(tmp_path / "t").snapshot().read().energy[0] == pytest.approx(-units.Hartree)
