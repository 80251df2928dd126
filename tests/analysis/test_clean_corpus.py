"""Clean data of many kinds: no error, and no copies where there are none."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

import mlffstore as ml
from mlffstore.store.labelling import label_batch

POOR = {
    "octachlorocyclopentene": "ClC1=C(Cl)C(Cl)(Cl)C(Cl)(Cl)C1(Cl)Cl",
    "octachloropentadiene": "ClC(Cl)=C(Cl)C(Cl)=C(Cl)C(Cl)(Cl)Cl",
    "hexachlorobenzene": "Clc1c(Cl)c(Cl)c(Cl)c(Cl)c1Cl",
    "tetracyanoethylene": "N#CC(C#N)=C(C#N)C#N",
    "chloranil": "ClC1=C(Cl)C(=O)C(Cl)=C(Cl)C1=O",
    "perfluorobutane": "FC(F)(F)C(F)(F)C(F)(F)C(F)(F)F",
    "phosgene": "O=C(Cl)Cl",
    "tetraiodoethylene": "IC(I)=C(I)I",
}


def stored(path, frames, teacher, root=None):
    pytest.importorskip("tblite")
    model = ml.get_teacher(teacher)
    batch = ml.SampleBatch.from_ase(frames)
    if root is not None:
        batch = batch.with_columns(root=np.asarray(root, np.uint64))
    batch, labels = label_batch(model, batch.astype("float32"))
    assert labels.ok.all()
    store = ml.create(path)
    store.append(batch, teachers={model.info.name: model.info.to_json()})
    return store


def rattled(frame, rng, size, n):
    frames = []
    for _ in range(n):
        copy = frame.copy()
        copy.positions += rng.normal(0, size, copy.positions.shape)
        frames.append(copy)
    return frames


def complaints(validation):
    return [problem.text for problem in validation.problems] + [
        f"{one.check} {one.examples}" for one in validation.findings if one.severity == "error"
    ]


def test_hot_water(tmp_path):
    """Forces of 2.8 eV/angstrom rms per component, up to 45."""
    rng, water = np.random.default_rng(0), Atoms()
    for place in ((0, 0, 0), (2.9, 0, 0), (0, 2.9, 0.3), (2.9, 2.9, 0)):
        one = molecule("H2O")
        one.rotate(rng.uniform(0, 360), rng.normal(size=3))
        one.positions += place
        water += one
    store = stored(tmp_path / "d.zarr", rattled(water, rng, 0.05, 60), "gfn2-xtb")
    forces = store.snapshot().read().labels["gfn2-xtb"]["forces"]
    assert np.sqrt((forces**2).mean()) > 2.5
    found = ml.validate(store)
    assert found.ok, complaints(found)
    assert not found.invalid.any()
    line = next(one for one in found.checks if one.check == "energy_units")
    assert line.state == "pass"


def test_molecules_poor_in_hydrogen(tmp_path, thorough):
    chem = pytest.importorskip("rdkit.Chem")
    from rdkit.Chem import AllChem

    rng, frames, roots = np.random.default_rng(1), [], []
    for k, smiles in enumerate(POOR.values()):
        mol = chem.MolFromSmiles(smiles)
        assert AllChem.EmbedMolecule(mol, randomSeed=7) == 0
        AllChem.UFFOptimizeMolecule(mol)
        atoms = Atoms([atom.GetAtomicNum() for atom in mol.GetAtoms()], mol.GetConformer().GetPositions())
        n = 3 if thorough else 1  # GFN2-xTB takes a fifth of a second for each
        for size in (0.01, 0.03, 0.05):
            frames += rattled(atoms, rng, size, n)
            roots += [k] * n
    found = ml.validate(stored(tmp_path / "d.zarr", frames, "gfn2-xtb", roots))
    assert found.ok, complaints(found)
    assert not found.invalid.any()


def test_a_carbon_whose_bonds_one_conformation_stretches_has_not_lost_a_hydrogen(tmp_path):
    """C2Cl4 flattened at one carbon, its bonds stretched as at thousands of kelvin; the other conformations vote."""
    good = Atoms(
        "C2Cl4",
        [(0, 0.67, 0), (0, -0.67, 0), (1.45, 1.6, 0), (-1.45, 1.6, 0), (1.45, -1.6, 0), (-1.45, -1.6, 0)],
    )
    bad = good.copy()
    bad.positions[[0, 2, 3]] = [(0, 0.87, 0), (1.6, 1.77, 1.0), (-1.6, 1.77, 1.0)]
    frames = [bad, *rattled(good, np.random.default_rng(0), 0.02, 9)]
    store = ml.create(tmp_path / "d.zarr")
    store.append(ml.SampleBatch.from_ase(frames).astype("float32"), require=())
    assert not len(ml.validate(store).failed("missing_hydrogens"))
    alone = ml.create(tmp_path / "alone.zarr")
    alone.append(ml.SampleBatch.from_ase(frames[:1]).astype("float32"), require=())
    assert ml.validate(alone).failed("missing_hydrogens").tolist() == [0]


def test_atoms_in_vacuum(tmp_path):
    frames = []
    for symbol in ("Cu", "Al", "Ni", "Ag", "Au"):
        frames.append(Atoms(symbol, [[0, 0, 0]]))
        frames.append(Atoms(symbol, [[0, 0, 0]], cell=[12, 13, 14], pbc=True))
        for _ in range(5):
            frames += rattled(bulk(symbol, cubic=True), np.random.default_rng(len(frames)), 0.05, 1)
    for frame in frames:
        frame.info["multiplicity"] = 1 + int(frame.numbers.sum() % 2)
    found = ml.validate(stored(tmp_path / "d.zarr", frames, "emt"))
    assert found.ok, complaints(found)
    assert not found.invalid.any()


def test_a_slow_trajectory_of_an_import_without_roots(tmp_path):
    """Frames a few hundredths of an angstrom apart, each its own root."""
    atoms, rng, frames = molecule("CH3CH2OH"), np.random.default_rng(2), []
    for _ in range(40):
        atoms.positions += rng.normal(0, 0.008, atoms.positions.shape)
        frames.append(atoms.copy())
    found = ml.validate(stored(tmp_path / "d.zarr", frames, "gfn2-xtb"))
    assert found.ok, complaints(found)
    assert next(one for one in found.checks if one.check == "energy_units").state == "pass"


@pytest.mark.parametrize("symbol", ["Cs", "K", "Ca", "Na", "Ar"])
def test_rattled_crystals_of_large_atoms_are_no_copies(tmp_path, symbol):
    """Nearest neighbours of caesium are 5.2 angstrom apart, beyond the usual cutoff."""
    seed = bulk(symbol, cubic=True) * 2
    store = ml.create(tmp_path / "d.zarr")
    store.append(ml.SampleBatch.from_ase(rattled(seed, np.random.default_rng(0), 0.05, 12)), require=())
    found = ml.validate(store)
    assert not len(found.failed("near_duplicate"))
    assert next(one for one in found.checks if one.check == "length_units").problem == ""
    again = seed.copy()
    again.positions = again.positions[::-1] + 1.3
    store.append(ml.SampleBatch.from_ase([seed, again, bulk(symbol, cubic=True)]), require=())
    assert ml.validate(store).failed("near_duplicate").tolist() == [13, 14]
