"""Generators: real chemistry, sane geometry, and the same structures for the same seed anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from ase.data import covalent_radii

import mlffstore as ml
from mlffstore.contracts.protocols import Generator
from mlffstore.data.geometry import smallest_distances


@pytest.fixture(scope="module")
def molecules():
    return ml.get_generator("molecules", max_atoms=30).generate(np.random.default_rng(3), 24).batch


@pytest.fixture(scope="module")
def crystals():
    return ml.get_generator("crystals", max_atoms=40).generate(np.random.default_rng(3), 80).batch


def test_molecules_have_hydrogens_and_their_bonds(molecules):
    from rdkit import Chem
    from rdkit.Chem import rdDetermineBonds

    good = 0
    for atoms in molecules.to_ase():
        assert 10 <= len(atoms) <= 30
        assert not atoms.pbc.any()
        if 6 in atoms.numbers:
            assert 1 in atoms.numbers
        block = f"{len(atoms)}\n\n" + "\n".join(
            f"{s} {x:.6f} {y:.6f} {z:.6f}" for s, (x, y, z) in zip(atoms.symbols, atoms.positions, strict=True)
        )
        mol = Chem.MolFromXYZBlock(block)
        try:
            rdDetermineBonds.DetermineBonds(mol, charge=atoms.info["charge"])
            good += all(atom.GetNumRadicalElectrons() == 0 for atom in mol.GetAtoms())
        except ValueError:
            pass
    # Perception from coordinates alone fails on some unusual groups and on bonds that are stretched by the dynamics.
    assert good >= 0.8 * len(molecules)


def test_crystals_are_periodic_varied_and_not_too_dense(crystals):
    assert crystals.pbc.all()
    assert len(set(crystals.numbers.tolist())) >= 20
    assert ((crystals.n_atoms >= 10) & (crystals.n_atoms <= 40)).all()
    assert (np.linalg.det(crystals.cell) > 0).all()
    limit = 0.75 * 2 * covalent_radii[1]
    assert (smallest_distances(crystals, 3.0) > limit).all()


def test_roots_join_the_frames_of_a_seed(molecules, crystals):
    for batch in (molecules, crystals):
        roots, counts = np.unique(batch.root, return_counts=True)
        assert counts.max() in (4, 8)  # an element may be drawn twice
        assert len(set(batch.content_hash.tolist())) == len(batch)
        assert len(roots) >= len(batch) // 4


def test_volumes_of_known_crystals(crystals):
    """The predictor is within 25 % of experiment: MgO in the rock salt prototype, scaled from NaCl."""
    import warnings

    from pymatgen.analysis.structure_prediction.volume_predictor import RLSVolumePredictor

    from mlffstore_generators.prototypes import prototypes

    rock_salt = dict(prototypes())["AB_cF8_225_a_b"]
    for cation, anion, a in (("Mg", "O", 4.21), ("K", "Br", 6.60), ("Pb", "S", 5.94)):
        structure = rock_salt.copy()
        structure.replace_species({"Na": cation, "Cl": anion})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            volume = RLSVolumePredictor(check_isostructural=False).predict(structure, rock_salt)
        assert volume / (a**3 / 4) == pytest.approx(1.0, abs=0.25)


@pytest.mark.slow  # pymatgen's module takes seconds of processor time to import, which is why its file is read instead
def test_prototypes_are_those_of_the_module_of_pymatgen():
    from mlffstore_generators.prototypes import imported_prototypes, prototypes

    imported = imported_prototypes()
    assert [tag for tag, _ in prototypes()] == sorted(
        tag for tag, one in imported.items() if 2 <= len(one.composition) <= 4
    )
    for tag, one in prototypes():
        assert one == imported[tag]
        assert np.array_equal(one.lattice.matrix, imported[tag].lattice.matrix)
        assert np.array_equal(one.frac_coords, imported[tag].frac_coords)
        assert [site.species for site in one] == [site.species for site in imported[tag]]


def test_mmff_forces_are_the_gradient():
    from mlffstore_generators.mmff import MMFF
    from mlffstore_generators.smiles import embed, to_atoms, with_hydrogens

    mol = with_hydrogens("CC(=O)NC")
    properties = embed(mol, seed=7)
    atoms = to_atoms(mol)
    atoms.rattle(0.05, seed=1)
    atoms.calc = MMFF(mol, properties)
    forces, h = atoms.get_forces(), 1e-4
    for i in (0, 5):
        values = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.calc = MMFF(mol, properties)
            moved.positions[i, 1] += sign * h
            values.append(moved.get_potential_energy())
        # truncation of order h^2 times the third derivative (about 1e3 eV/A^3): 1e-5
        assert -(values[0] - values[1]) / (2 * h) == pytest.approx(forces[i, 1], abs=1e-4)


@pytest.mark.parametrize("smiles", ["[Na+].[Cl-]", "C[CH2]", "[2H]C", "not a smiles"])
def test_seeds_that_give_no_structure_say_why(smiles):
    from mlffstore_generators.seeds.base import NoSeedError
    from mlffstore_generators.smiles import with_hydrogens

    with pytest.raises(NoSeedError):
        with_hydrogens(smiles)


@pytest.mark.parametrize("name", ["molecules", "crystals"])
def test_the_same_seed_gives_the_same_structures_in_another_process(name):
    code = (
        "import sys, numpy as np, mlffstore as ml\n"
        f"batch = ml.get_generator({name!r}, max_atoms=24).generate(np.random.default_rng(5), 4).batch\n"
        "print(batch.astype('float32').content_hash.tolist())\n"
        "print([name for name in ('torch', 'pymatgen.analysis.prototypes') if name in sys.modules], file=sys.stderr)\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    batch = ml.get_generator(name, max_atoms=24).generate(np.random.default_rng(5), 4).batch
    assert json.loads(done.stdout) == batch.astype("float32").content_hash.tolist()
    assert len(batch) == 4
    assert done.stderr.splitlines()[-1] == "[]", "each takes every worker seconds to import"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("molecules", {"min_atoms": 5, "max_atoms": 4}),
        ("molecules", {"timestep_fs": 3.0}),
        ("molecules", {"rattle": (0.1, 0.01)}),
        ("molecules", {"temperatures": ()}),
        ("crystals", {"strain": 0.5}),
        ("crystals", {"elemental": 2.0}),
        ("crystals", {"frames": 0}),
    ],
)
def test_options_are_checked(name, options):
    with pytest.raises(ml.errors.DataError, match=f"{name}: expected"):
        ml.get_generator(name, **options)


def test_provenance_names_licences():
    for name in ("molecules", "crystals"):
        generator = ml.get_generator(name)
        assert isinstance(generator, Generator)
        about = json.loads(json.dumps(generator.provenance()))
        assert all(seed["licence"] for seed in about["seeds"])


def test_impossible_options_give_up():
    with pytest.raises(ml.errors.DataError, match="widen"):
        ml.get_generator("crystals", elements=("Tl",), elemental=1.0, min_atoms=50, max_atoms=51).generate(
            np.random.default_rng(0), 1
        )
