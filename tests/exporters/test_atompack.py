"""Files of atompack, by its own reader and writer where the package is installed."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

import mlffstore as ml
from mlffstore.errors import DataError
from mlffstore.release.selection import select
from mlffstore_exporters.atompack import export_atompack

atompack = pytest.importorskip("atompack", reason="needs atompack-db")


def test_atompack_reads_every_sample(store, tmp_path):
    snap = store.snapshot()
    out = export_atompack(snap, tmp_path / "out", teacher="emt")
    for split, index in select(snap, ("emt",)).items():
        batch = snap.read(index, teacher="emt")
        place = {root: i for i, root in enumerate(batch.root.tolist())}
        frames = [
            atoms for path in out.glob(f"{split}*.atp") for atoms in atompack.Database.open(str(path)).to_ase_batch()
        ]
        assert len(frames) == len(batch)
        for atoms in frames:
            i = place.pop(int(atoms.info["root"], 16))
            rows = slice(batch.offsets[i], batch.offsets[i + 1])
            assert np.array_equal(atoms.numbers, batch.numbers[rows])
            assert np.array_equal(atoms.positions.astype("f4"), batch.positions[rows])
            assert np.array_equal(atoms.cell.array, batch.cell[i])
            assert np.array_equal(atoms.pbc, batch.pbc[i])
            assert atoms.get_potential_energy() == batch.energy[i]
            assert np.array_equal(atoms.get_forces().astype("f4"), batch.forces[rows])
            if np.isfinite(batch.stress[i]).all():
                assert np.array_equal(atoms.get_stress().astype("f4"), batch.stress[i])
            else:
                assert "stress" not in atoms.calc.results
            assert atoms.info["charge"] == batch.charge[i]
            assert atoms.info["multiplicity"] == batch.multiplicity[i]
            assert atoms.info["source"] == batch.source[i]


def test_files_of_atompack_are_imported(tmp_path):
    frames = []
    for i in range(5):
        atoms = bulk("Cu", cubic=True, a=3.5 + 0.05 * i) if i < 4 else molecule("H2O")
        atoms.rattle(0.02, seed=i)
        calculator, names = EMT(), ("energy", "forces", "stress")[: 3 if i < 4 else 2]
        labels = {name: calculator.get_property(name, atoms) for name in names}
        atoms.calc = SinglePointCalculator(atoms, **labels)
        atoms.info |= {"temperature": 100.0 * i, "origin": f"run {i}"}
        frames.append(atoms)
    frames[-1].info["charge"] = 0
    database = atompack.Database(str(tmp_path / "a.atp"), compression="lz4")
    for atoms in frames:
        one = atompack.from_ase(atoms)
        one.set_property("site", np.arange(len(atoms)), scope="atom")
        database.add_molecule(one)
    database.flush()
    columns = {"temperature": "K", "origin": "1", "site": "1"}
    report = ml.import_files(
        tmp_path / "a.atp", tmp_path / "s", columns=columns, create_options={"precision": "float64"}
    )
    assert report.samples == len(atompack.Database.open(str(tmp_path / "a.atp")))
    batch = ml.open(tmp_path / "s").snapshot().read()
    for i, atoms in enumerate(frames):
        rows = slice(batch.offsets[i], batch.offsets[i + 1])
        assert batch.numbers[rows].tolist() == atoms.numbers.tolist()
        np.testing.assert_allclose(batch.positions[rows], atoms.positions, atol=1e-6)  # ASE's bridge writes float32
        assert batch.energy[i] == atoms.get_potential_energy()
        np.testing.assert_allclose(batch.forces[rows], atoms.get_forces(), atol=1e-6)
        if i < 4:
            np.testing.assert_allclose(batch.stress[i], atoms.get_stress(), rtol=1e-6, atol=1e-9)
    assert np.isnan(batch.stress[4]).all()
    assert batch.columns["temperature"].tolist() == [0.0, 100.0, 200.0, 300.0, 400.0]
    assert batch.strings("origin") == [f"run {i}" for i in range(5)]
    assert batch.columns["site"].tolist() == [k for atoms in frames for k in range(len(atoms))]


def test_a_cell_without_periodicity_is_told(tmp_path):
    database = atompack.Database(str(tmp_path / "a.atp"))
    database.add_molecule(atompack.Molecule.from_arrays(np.zeros((1, 3)), np.array([18], np.uint8), cell=np.eye(3) * 5))
    database.flush()
    report = ml.import_files(tmp_path / "a.atp", tmp_path / "s", require=())
    assert any("do not say along which vectors" in text for text in report.warnings)
    assert ml.open(tmp_path / "s").snapshot().read().pbc.all()


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "a.atp").write_bytes(b"ATPK\x02 and nothing more")
    with pytest.raises(DataError, match="expected a file of atompack"):
        ml.import_files(tmp_path / "a.atp", tmp_path / "s")
    assert not (tmp_path / "s").exists()
