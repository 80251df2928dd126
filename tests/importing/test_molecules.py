"""SDF, SMILES, SPICE, and hydrogens that must not be lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ase.io
import h5py
import numpy as np
import pytest
from ase.build import molecule
from ase.collections import g2
from rdkit import Chem
from rdkit.Chem import rdDepictor, rdDistGeom

import mlffstore as ml
from mlffstore.data import hydrogens
from mlffstore.errors import DataError, UnitError
from mlffstore.importing.spice import read_spice
from tests.samples import molecule_frames

if TYPE_CHECKING:
    from pathlib import Path

    from ase import Atoms


def lacks_hydrogen(atoms: Atoms) -> bool:
    return bool(hydrogens.lacks_hydrogen(ml.SampleBatch.from_ase([atoms]))[0])


def sdf(path: Path, *smiles: str, hydrogens: bool) -> Path:
    """Write molecules with 3D coordinates, with or without their hydrogens."""
    with Chem.SDWriter(str(path)) as out:
        for text in smiles:
            mol = Chem.AddHs(Chem.MolFromSmiles(text))
            assert rdDistGeom.EmbedMolecule(mol, randomSeed=1) == 0
            mol.SetProp("E", "-1.5")
            out.write(mol if hydrogens else Chem.RemoveHs(mol))
    return path


def formulas(store: Path) -> list[str]:
    return [frame.get_chemical_formula() for frame in ml.open(store).snapshot()]


def test_sdf_gets_its_hydrogens(tmp_path: Path) -> None:
    bare = sdf(tmp_path / "bare.sdf", "CCO", "c1ccccc1", "C[NH3+]", hydrogens=False)
    with pytest.raises(DataError, match=r"require=\(\)"):
        ml.import_files(bare, tmp_path / "s")
    with pytest.raises(DataError, match=r"bare\.sdf, record 0, .*lacks 6"):
        ml.import_files(bare, tmp_path / "s", require=(), add_hydrogens=False)
    report = ml.import_files(bare, tmp_path / "s", require=())
    assert (report.samples, report.hydrogens_added) == (3, 6 + 6 + 6)
    assert formulas(tmp_path / "s") == ["C2H6O", "C6H6", "CH6N"]
    frames = list(ml.open(tmp_path / "s").snapshot())
    assert [frame.info["charge"] for frame in frames] == [0, 0, 1]
    for frame in frames:  # every hydrogen at a bond's length of something
        distances = frame.get_all_distances() + 9 * np.eye(len(frame))
        assert np.all((distances.min(axis=1) > 0.9)[frame.numbers == 1])
        assert np.all((distances.min(axis=1) < 1.2)[frame.numbers == 1])
    full = sdf(tmp_path / "full.mol", "CCO", hydrogens=True)
    report = ml.import_files(full, tmp_path / "t", require=("energy",), keys={"energy": "E"}, add_hydrogens=False)
    assert report.hydrogens_added == 0
    assert ml.open(tmp_path / "t").snapshot()[0].get_potential_energy() == -1.5


def test_a_drawing_is_no_structure(tmp_path: Path) -> None:
    mol = Chem.MolFromSmiles("CCO")
    rdDepictor.Compute2DCoords(mol)
    Chem.MolToMolFile(mol, str(tmp_path / "flat.mol"))
    with pytest.raises(DataError, match=r"flat\.mol, record 0: .*2D"):
        ml.import_files(tmp_path / "flat.mol", tmp_path / "s", require=())


def test_smiles(tmp_path: Path) -> None:
    (tmp_path / "a.smi").write_text("smiles name\nCCO ethanol\n\nC#N acid\n")
    report = ml.import_files(tmp_path / "a.smi", tmp_path / "s", require=())
    assert (report.samples, report.hydrogens_added) == (2, 7)
    assert formulas(tmp_path / "s") == ["C2H6O", "CHN"]
    (tmp_path / "b.smi").write_text("CC\nC(C(C\n")
    with pytest.raises(DataError, match=r"b\.smi, line 2"):
        ml.import_files(tmp_path / "b.smi", tmp_path / "s", require=())


def test_spice_layout(real: Path, tmp_path: Path) -> None:
    with h5py.File(real / "spice_des_monomers.hdf5") as source, h5py.File(tmp_path / "a.hdf5", "w") as part:
        for name in list(source)[::10]:
            source.copy(name, part)
        chosen = [np.asarray(group["conformations"]) for group in part.values()]
    report = ml.import_files(tmp_path / "a.hdf5", tmp_path / "s", require=(), batch_samples=7)
    assert report.samples == 3 * len(chosen)
    batch = ml.open(tmp_path / "s").snapshot().read()
    assert len(set(batch.root.tolist())) == len(chosen)
    assert batch.root.reshape(-1, 3).tolist() == [[first] * 3 for first in batch.content_hash[::3].tolist()]
    assert set(batch.source) == {"spice"}
    # This file says nanometers, unlike the published ones (bohr); float32 on both sides
    np.testing.assert_allclose(batch.positions, 10 * np.concatenate([x.reshape(-1, 3) for x in chosen]), rtol=1e-6)


def spice(path: Path, scale: float, unit: str | None) -> Path:
    water = molecule("H2O")
    with h5py.File(path, "w") as file:
        group = file.create_group("water")
        group["atomic_numbers"] = water.numbers
        group["conformations"] = water.positions[None] * scale
        group["dft_total_energy"] = [-76.4]
        group["dft_total_gradient"] = np.full((1, 3, 3), 0.01)
        if unit:
            group["conformations"].attrs["units"] = unit
    return path


def test_spice_labels_and_units(tmp_path: Path) -> None:
    ml.import_files(spice(tmp_path / "a.h5", 1 / 0.529177210903, None), tmp_path / "s", teacher="wb97m")
    frame = ml.open(tmp_path / "s").snapshot()[0]
    assert frame.get_potential_energy() == pytest.approx(-76.4 * 27.211386, abs=1e-4)  # CODATA, eight digits
    np.testing.assert_allclose(frame.get_forces(), -0.01 * 51.422067, rtol=1e-6)
    np.testing.assert_allclose(frame.positions, molecule("H2O").positions, atol=1e-6)
    with pytest.raises(DataError, match=r"b\.h5, molecule 'water': expected the closest atoms"):
        ml.import_files(spice(tmp_path / "b.h5", 1 / 0.529177210903, "nanometers"), tmp_path / "t")
    with pytest.raises(UnitError, match="parsec"):
        ml.import_files(spice(tmp_path / "c.h5", 1.0, "parsec"), tmp_path / "t")
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["x"] = np.zeros(3)
    with pytest.raises(DataError, match="SPICE layout"):
        ml.import_files(tmp_path / "d.h5", tmp_path / "t")


#: Without hydrogen these are a carbon atom, cyanide and CO, or nearly: no rule on one structure can tell.
_INDISTINGUISHABLE = {"C", "C#N", "C=O"}


def test_stripped_spice_molecules_are_recognised(real: Path) -> None:
    tried = 0
    for record in read_spice(real / "spice_des_monomers.hdf5"):
        if not record.where.endswith("conformation 0"):
            continue
        atoms = record.atoms
        assert not lacks_hydrogen(atoms), record.where
        carbon, hydrogen = atoms.numbers == 6, atoms.numbers == 1
        if (atoms.get_all_distances()[carbon][:, hydrogen] < 1.35).any() and record.molecule not in _INDISTINGUISHABLE:
            assert lacks_hydrogen(atoms[~hydrogen]), record.where
            tried += 1
    assert tried > 75


def test_molecules_without_hydrogen_by_nature_pass() -> None:
    rng = np.random.default_rng(0)
    for name in ("CO2", "CCl4", "C60", "CS2", "C2F4", "C2Cl4", "CF4", "OCS", "NCCN", "CF3CN", "CO", "C6H6", "CN"):
        for _ in range(20):
            atoms = molecule(name)
            atoms.positions += rng.normal(0, 0.02, atoms.positions.shape)  # bonds at room temperature vary by 0.03 A
            assert not lacks_hydrogen(atoms), name
    free = {"C2", "CCl"}  # radicals with two and three free valences
    assert {name for name in g2.names if lacks_hydrogen(molecule(name))} <= free


def test_a_stripped_file_is_refused(tmp_path: Path) -> None:
    frames = [frame for frame in molecule_frames(3) if len(frame) > 6]
    stripped = [frame[frame.numbers > 1] for frame in frames]
    ase.io.write(tmp_path / "a.xyz", stripped, format="extxyz")
    with pytest.raises(DataError, match=r"a\.xyz, frame 0: .*C6, whose carbons lack hydrogens"):
        ml.import_files(tmp_path / "a.xyz", tmp_path / "s", require=())
    assert ml.import_files(tmp_path / "a.xyz", tmp_path / "s", require=(), allow_no_hydrogen=True).samples == 1
