"""Properties and strings of files: taken by name with units, ASE's results by themselves, and what has no place is named."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from ase import units
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

import mlffstore as ml
from mlffstore.errors import DataError
from mlffstore.importing.spool import Block, Spool
from tests.command import cli
from tests.samples import metal_frames
from tests.signals import POLARIZABILITY, QUADRUPOLES, assert_same, signals

RNG = np.random.default_rng(5)


def frames(**results):
    out = []
    for name in ("H2O", "CH4", "NH3"):
        atoms = molecule(name)
        n = len(atoms)
        given = {key: make(n) for key, make in results.items()}
        atoms.calc = SinglePointCalculator(atoms, energy=-float(n), forces=RNG.normal(size=(n, 3)), **given)
        atoms.info |= {"REF_dipole": RNG.normal(size=3), "alpha": RNG.normal(size=(3, 3)), "config_type": f"gas {name}"}
        atoms.arrays["REF_charges"] = RNG.normal(size=n)
        atoms.arrays["hess"] = RNG.normal(size=(n, 3))
        atoms.arrays["features"] = RNG.normal(size=(n, 4))
        half = RNG.normal(size=(n, 3, 3))
        atoms.arrays["quadrupole"] = (half + half.swapaxes(1, 2)).reshape(n, 9)
        atoms.arrays["residue"] = np.array(["A", "B"] * n)[:n]
        out.append(atoms)
    out[1].info.pop("config_type")
    return out


@pytest.mark.parametrize("suffix", ["extxyz", "db"])
def test_named_properties_are_converted(tmp_path, suffix):
    given = frames()
    if suffix == "db":
        from ase.db import connect

        with connect(tmp_path / "a.db") as database:
            for atoms in given:
                database.write(atoms, data=atoms.info | {k: v for k, v in atoms.arrays.items() if k not in
                                                         ("numbers", "positions", "residue")})  # fmt: skip
    else:
        write(tmp_path / "a.extxyz", given)
    keys = {
        "dipole": "REF_dipole", "charges": "REF_charges", "hessian_product": "hess", "embedding": "features",
        POLARIZABILITY.name: "alpha", QUADRUPOLES.name: "quadrupole",
    }  # fmt: skip
    columns = ["config_type"] + (["residue"] if suffix == "extxyz" else [])
    report = ml.import_files(
        tmp_path / f"a.{suffix}", tmp_path / "s", keys=keys, columns=columns,
        units={"dipole": "Debye", "hessian_product": "hartree/bohr^2"},
    )  # fmt: skip
    fates = {use.name: (use.fate, use.column) for use in report.keys}
    assert fates["REF_dipole"] == ("converted", "dipole")
    assert fates["REF_charges"] == ("renamed", "charges")
    assert fates["config_type"] == ("kept", "config_type")
    batch = ml.open(tmp_path / "s").snapshot().read()
    joined = {name: np.concatenate([a.arrays[name] for a in given]) for name in ("REF_charges", "hess", "features")}
    close = {"rtol": 1e-6, "atol": 1e-7}
    np.testing.assert_allclose(batch.label("dipole"), [a.info["REF_dipole"] * units.Debye for a in given], **close)
    np.testing.assert_allclose(batch.label("charges"), joined["REF_charges"], **close)
    np.testing.assert_allclose(
        batch.label("hessian_product"), joined["hess"] * units.Hartree / units.Bohr**2, rtol=1e-6, atol=1e-5
    )
    np.testing.assert_allclose(batch.label("embedding"), joined["features"], **close)
    np.testing.assert_allclose(batch.label(POLARIZABILITY.name), [a.info["alpha"] for a in given], **close)
    assert batch.strings("config_type") == ["gas H2O", None, "gas NH3"]
    if suffix == "extxyz":
        assert batch.strings("residue")[:4] == ["A", "B", "A", "A"]


def test_a_tensor_that_is_not_symmetric_is_refused(tmp_path):
    atoms = frames()[0]
    atoms.arrays["quadrupole"][1, 1] += 5.0
    write(tmp_path / "a.extxyz", atoms)
    with pytest.raises(DataError, match=r"quadrupole.*expected a symmetric matrix"):
        ml.import_files(tmp_path / "a.extxyz", tmp_path / "s", keys={QUADRUPOLES.name: "quadrupole"})
    cell = metal_frames(1)[0]
    cell.calc = SinglePointCalculator(cell, energy=0.0, forces=np.zeros((len(cell), 3)), stress=np.zeros(6))
    cell.calc.results["stress"] = np.array([[1.0, 0.2, 0], [0.5, 1, 0], [0, 0, 1]])
    with pytest.raises(DataError, match="stress: expected a symmetric matrix"):
        ml.create(tmp_path / "t").append([cell], teacher="dft")


def test_results_of_ase_are_labels(tmp_path):
    given = frames(
        dipole=lambda n: RNG.normal(size=3), charges=lambda n: RNG.normal(size=n), magmoms=lambda n: RNG.normal(size=n),
        energies=lambda n: RNG.normal(size=n), magmom=lambda n: 0.0,
    )  # fmt: skip
    write(tmp_path / "a.traj", given)
    report = ml.import_files(tmp_path / "a.traj", tmp_path / "s", columns=["magmoms"])
    batch = ml.open(tmp_path / "s").snapshot().read()
    assert set(batch.labels["dft"]) == {"energy", "forces", "dipole", "charges", "atomic_energies"}
    np.testing.assert_allclose(
        batch.label("atomic_energies"), np.concatenate([a.calc.results["energies"] for a in given])
    )
    assert batch.user["magmoms"].unit == "Bohr magneton"  # asked for as a column
    fates = {use.name: use.fate for use in report.keys}
    assert fates["energies"] == "renamed"
    assert fates["magmom"] == "left out"
    given[0].calc.results["dipole"] = np.ones(2)  # what no dipole is
    write(tmp_path / "b.traj", given)
    report = ml.import_files(tmp_path / "b.traj", tmp_path / "t")
    assert ("dipole", "left out", 1) in {(use.name, use.fate, use.samples) for use in report.keys}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keys": {"dipole": "features"}}, r"expected dipole of shape \(3\), got shape"),
        ({"keys": {"charges": "REF_dipole"}}, "expected charges of shape"),
        ({"keys": {"dipole": "config_type"}}, "expected dipole of shape"),
        ({"keys": {"dipole": "REF_dipoles"}}, "to hold the dipole of a sample"),
        ({"keys": {"spin_density": "features"}}, "keys: expected some of"),
        ({"units": {"dipole": "hartree"}}, "another quantity"),
        ({"keys": {"dipole": "REF_dipole"}, "require": ("magmoms",)}, "expected magmoms, got none"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, options, message):
    write(tmp_path / "a.extxyz", frames()[::2])
    with pytest.raises(DataError, match=message):
        ml.import_files(tmp_path / "a.extxyz", tmp_path / "s", **options)


def test_the_command(tmp_path):
    write(tmp_path / "a.extxyz", frames())
    cli("import", tmp_path / "a.extxyz", tmp_path / "s", "--key", "dipole=REF_dipole", "--units", "dipole=Debye",
        "--column", "config_type")  # fmt: skip
    assert set(ml.open(tmp_path / "s").snapshot().read().labels["dft"]) == {"energy", "forces", "dipole"}


def test_data_sets_of_spice(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for name in ("H2O", "CH4"):
            atoms, group = molecule(name), file.create_group(name)
            n = len(atoms)
            group["atomic_numbers"], group["conformations"] = (
                atoms.numbers,
                np.stack([atoms.positions] * 4) / units.Bohr,
            )
            group["dft_total_energy"], group["dft_total_gradient"] = np.ones(4), np.zeros((4, n, 3))
            group["scf_dipole"], group["mbis_charges"] = RNG.normal(size=(4, 3)), RNG.normal(size=(4, n, 1))
            group["scf_dipole"].attrs["units"] = "e*bohr"
        dipole = file["H2O/scf_dipole"][...]
    keys = {"dipole": "scf_dipole", "charges": "mbis_charges"}
    with pytest.raises(DataError, match="states the unit 'e\\*bohr' of the dipole"):
        ml.import_files(tmp_path / "a.hdf5", tmp_path / "s", keys=keys)
    ml.import_files(tmp_path / "a.hdf5", tmp_path / "s", keys=keys, units={"dipole": "e*bohr"})
    batch = ml.open(tmp_path / "s").snapshot().read()
    water = batch.take(batch.n_atoms == 3)
    np.testing.assert_allclose(water.label("dipole"), dipole * units.Bohr)
    assert batch.label("charges").shape == (batch.n_atoms_total,)
    with pytest.raises(DataError, match="expected charges of shape"):
        ml.import_files(tmp_path / "a.hdf5", tmp_path / "t", keys={"charges": "scf_dipole"})


@pytest.mark.parametrize("teacher", ["a", ["a", "b"]])
def test_a_release_of_ours_comes_back(tmp_path, teacher):
    store = ml.create(tmp_path / "d.zarr", splits={"train": 1.0, "val": 0.0, "test": 0.0})
    info = {"a": {"fingerprint": "a 1"}, "b": {"fingerprint": "b 2"}}
    store.append(signals(), require=(), teachers=info)
    store.append(signals(1).take([1]), require=())
    path = ml.get_exporter("hdf5")(store.snapshot(), tmp_path / "out.h5", teacher=teacher)
    report = ml.import_files(path, tmp_path / "s", require=())
    again, before = ml.open(tmp_path / "s").snapshot(), store.snapshot().read()
    names = [teacher] if isinstance(teacher, str) else teacher
    expected = before.structures()
    for name in names:
        expected = expected.with_properties(name, before.labels[name], before.properties)
        assert again.teacher_info(name)["fingerprint"] == info[name]["fingerprint"]
    assert_same(expected, again.read())
    np.testing.assert_array_equal(again.read().root, before.root)
    np.testing.assert_array_equal(again.read().content_hash, before.content_hash)
    assert not [use for use in report.keys if use.fate == "left out"]
    with pytest.raises(DataError, match="names its own"):
        ml.import_files(path, tmp_path / "t", keys={"dipole": "d"})
    assert ml.import_files(path, tmp_path / "s", require=()).skipped == 5


def test_blocks_that_wait_on_disk_keep_their_properties():
    with Spool(memory_nbytes=0) as spool:
        for seed in range(2):
            spool.add(Block(signals(seed)))
        for seed, block in enumerate(spool.take()):
            assert_same(signals(seed), block.accepted)
