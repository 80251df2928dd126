"""Faults that a review of the seeds and samplers found."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.data import covalent_radii
from ase.io import write

import mlffstore as ml
from mlffstore.errors import DataError
from mlffstore_generators.samplers.base import sound
from mlffstore_generators.seeds import get_seeds
from mlffstore_generators.seeds.base import NoSeedError

COPPER = {"name": "crystals", "elements": ["Cu", "Al", "Ni"], "elemental": 1.0, "max_atoms": 32}


def reasons_of(seeds, n=6):
    """Return why draws give no seed; empty for those that do."""
    out = []
    for k in range(n):
        try:
            seeds.draw(np.random.default_rng(k))
            out.append("")
        except NoSeedError as error:
            out.append(str(error))
    return out


@pytest.mark.parametrize("state", [{"charge": 1, "multiplicity": 2}, {"charge": 0, "multiplicity": 3}])
@pytest.mark.parametrize("kind", ["slabs", "defects", "relaxed"])
def test_a_charge_or_spin_is_not_handed_to_what_is_made_of_a_crystal(tmp_path, state, kind):
    salt = bulk("CuAu", "rocksalt", 5.2)
    salt.info.update(state)
    write(tmp_path / "q.extxyz", salt)
    host = {"name": "files", "paths": [str(tmp_path / "q.extxyz")]}
    options = {
        "slabs": {"name": "slabs", "host": host},
        "defects": {"name": "defects", "min_atoms": 8, "distance": 5.0, "host": host},
        "relaxed": {"name": "relaxed", "seeds": host, "teacher": "emt", "min_atoms": 8, "force": 1e9, "pressure": 1e9},
    }
    why = "the host has a charge or a spin, which cannot be told for what is made of it"
    assert set(reasons_of(get_seeds(options[kind]))) <= {why, "teacher: emt knows no charge, the sample has +1 e"}
    salt.info.update(charge=0, multiplicity=1)
    write(tmp_path / "q.extxyz", salt)
    assert "" in reasons_of(get_seeds(options[kind]))


@pytest.mark.parametrize("kind", ["slabs", "defects"])
def test_hosts_that_are_no_crystals_and_options_that_they_make_void(kind):
    assert set(reasons_of(get_seeds({"name": kind, "host": "molecules"}), 3)) <= {
        "the host is no crystal",
        "size outside the limits",
    }
    with pytest.raises(DataError, match="elemental and classes among the options of the host"):
        get_seeds({"name": kind, "host": COPPER, "elemental": 1.0, "classes": {"halide": 1.0}})


def test_elements_of_defects_hold_for_their_host_too():
    seeds = get_seeds({"name": "defects", "host": COPPER, "elements": ["Cu", "Au"]})
    for k in range(12):
        try:
            assert set(seeds.draw(np.random.default_rng(k)).atoms.symbols) <= {"Cu", "Au", "H", "C"}
        except NoSeedError:
            continue


def test_a_relaxation_that_breaks_bonds_gives_no_seed():
    ions = {"name": "clusters", "kind": "salt", "max_atoms": 22, "molecules": [2, 2]}
    plain, relaxed = get_seeds(ions), get_seeds({"name": "relaxed", "seeds": ions, "teacher": "gfn2-xtb", "force": 5.0})
    outcomes = {}
    for k in (2, 4, 5, 8, 10, 11):
        try:
            outcomes[k] = sound(relaxed.draw(np.random.default_rng(k)).atoms, plain.draw(np.random.default_rng(k)))
        except NoSeedError as error:
            outcomes[k] = str(error)
    assert "bonds changed in the relaxation" in outcomes.values()
    assert True in outcomes.values()
    assert False not in outcomes.values()


def test_frames_of_one_formula_share_their_root(tmp_path):
    bent, copper = molecule("CH3CH2OH"), bulk("Cu")
    other = bent.copy()
    other.rotate_dihedral(2, 1, 0, 3, 40)
    write(tmp_path / "a.extxyz", [bent, other, molecule("H2O"), copper, copper * (2, 1, 1)])
    seeds = get_seeds({"name": "files", "paths": [str(tmp_path / "a.extxyz")]})
    roots = {}
    for k in range(60):
        seed = seeds.draw(np.random.default_rng(k))
        roots.setdefault(seed.atoms.get_chemical_formula(), set()).add(int(seed.root))
    assert len(roots["C2H6O"]) == len(roots["Cu"] | roots["Cu2"]) == 1
    assert len({root for some in roots.values() for root in some}) == 3


@pytest.mark.parametrize("parallel", [1, 16])
def test_rattle_relax_makes_as_many_whatever_is_done_side_by_side(parallel):
    generator = ml.get_generator("rattle-relax", seeds=COPPER, teacher="emt", frames=1, parallel=parallel, steps=1)
    assert len(generator.generate(np.random.default_rng(0), 60).batch) == 60


def test_rattle_relax_keeps_what_came_before_a_refusal(monkeypatch):
    from mlffstore_generators.samplers import relax

    calls, label = [], relax.label

    def refusing(teacher, frames):
        labels = label(teacher, frames)
        calls.append(len(frames))
        if len(calls) == 45:
            labels.ok[0] = False
            labels = type(labels)(
                labels.energy, labels.forces, labels.stress, labels.ok, ("not converged",) * len(frames)
            )
        return labels

    monkeypatch.setattr(relax, "label", refusing)
    generator = ml.get_generator("rattle-relax", seeds=COPPER, teacher="emt", frames=6)
    made = generator.generate(np.random.default_rng(0), 6)
    assert len(made.batch) == 6
    assert made.skipped["teacher: not converged"] == 1
    assert len(np.unique(made.batch.root)) == 2


def test_rattled_frames_of_dynamics_are_examined():
    generator = ml.get_generator(
        "md", seeds={"name": "molecules", "max_atoms": 20}, teacher="mmff94", temperatures=[300], equilibration_fs=30,
        interval_fs=30, rattle=[0.3, 0.4], frames=2,
    )  # fmt: skip
    for frame in generator.generate(np.random.default_rng(0), 8).batch.to_ase():
        radii = covalent_radii[frame.numbers]
        ratio = frame.get_all_distances() / (radii[:, None] + radii[None])
        bonded = ratio[~np.eye(len(frame), dtype=bool)]
        assert bonded.min() > 0.5


def test_options_that_would_do_nothing_are_refused():
    with pytest.raises(DataError, match="mmff94 has no options"):
        ml.get_generator("md", teacher="mmff94", teacher_options={"variant": "MMFF94s"})
    for seeds in (
        {"name": "clusters", "solvent": -3.0},
        {"name": "liquids", "mixture": 7.0},
        {"name": "liquids", "tolerance": -1.8},
    ):
        with pytest.raises(DataError):
            get_seeds(seeds)


def test_atoms_have_the_spin_of_their_ground_state_and_dimers_do_not_touch():
    seeds = get_seeds({"name": "few-atoms", "kinds": ["atom"]})
    spins = {}
    for k in range(100):
        atoms = seeds.draw(np.random.default_rng(k)).atoms
        spins[str(atoms.symbols)] = atoms.info["multiplicity"]
    assert {name: spins[name] for name in ("H", "C", "N", "O", "F")} == {"H": 2, "C": 3, "N": 4, "O": 3, "F": 2}
    dimers = get_seeds({"name": "few-atoms", "kinds": ["dimer"], "distance": [0.4, 0.8]})
    for k in range(60):
        try:
            atoms = dimers.draw(np.random.default_rng(k)).atoms
        except NoSeedError:
            continue
        assert atoms.get_distance(0, 1) >= 0.5


def test_one_atom_has_no_modes():
    generator = ml.get_generator(
        "normal-modes", seeds={"name": "few-atoms", "kinds": ["atom"]}, teacher="gfn2-xtb", frames=4
    )
    with pytest.raises(DataError, match="nothing to vibrate against"):
        generator.generate(np.random.default_rng(0), 2)


def test_a_packing_that_takes_too_long_is_no_other_structure(monkeypatch):
    """A structure depends on the seed alone, not on how busy the machine is."""
    import subprocess

    pytest.importorskip("packmol")
    run = subprocess.run

    def slow(*arguments, **options):
        return run(*arguments, **options | {"timeout": 1e-6})

    monkeypatch.setattr(subprocess, "run", slow)
    with pytest.raises(DataError, match="packmol did not end"):
        get_seeds({"name": "liquids", "max_atoms": 120}).draw(np.random.default_rng(3))
