"""SDF, SMILES, and hydrogens that must not be lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.collections import g2
from rdkit import Chem
from rdkit.Chem import rdDepictor, rdDistGeom

import mlffstore as ml
from mlffstore.data import hydrogens
from mlffstore.errors import DataError
from mlffstore.importing.properties import PropertyReader
from mlffstore.importing.spice import read_spice
from mlffstore.importing.state import StateReader
from mlffstore.importing.stated import StatedUnits
from mlffstore.importing.wording import Wording
from tests.samples import molecule_frames

if TYPE_CHECKING:
    from pathlib import Path


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


#: Without hydrogen these are a carbon atom, cyanide and CO, or nearly: no rule on one structure can tell.
_INDISTINGUISHABLE = {"C", "C#N", "C=O"}


def test_stripped_spice_molecules_are_recognised(real: Path) -> None:
    tried = 0
    none = PropertyReader({}, {}, StatedUnits({}, Wording()))
    for one in read_spice(real / "spice_des_monomers.hdf5", StateReader({}, "multiplicity", Wording()), none):
        atoms = Atoms(one.numbers, one.positions[0])
        assert not lacks_hydrogen(atoms), one.name
        carbon, hydrogen = atoms.numbers == 6, atoms.numbers == 1
        if (atoms.get_all_distances()[carbon][:, hydrogen] < 1.35).any() and one.name not in _INDISTINGUISHABLE:
            assert lacks_hydrogen(atoms[~hydrogen]), one.name
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
