"""Right data that look odd pass, and what was measured as wrong fails whatever else the policy says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator

import mlffstore as ml
from mlffstore.analysis.choosing.environments import environments
from mlffstore.contracts.conformance import check

if TYPE_CHECKING:
    from pathlib import Path


def store_of(path: Path, frames: list[Atoms], root: Any = None) -> ml.Store:
    store = ml.create(path)
    store.append(ml.SampleBatch.from_ase(frames, root=root), require=())
    return store


@pytest.mark.parametrize("severity", ["error", "warning", "off"])
def test_energies_that_do_not_fit_fail_whatever_another_check_says(tmp_path: Path, severity: str) -> None:
    frames = []
    for k in range(40):  # every second energy is 5 eV too high
        atoms = bulk("Cu", cubic=True) * (2, 1, 1)
        atoms.rattle(0.05, seed=k)
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy() + 5.0 * (k % 2), atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    store = store_of(tmp_path / "s", frames)
    found = ml.validate(store, {"checks": {"energy_units": {"severity": severity}}})
    assert not found.ok
    states = {one.check: one.state for one in found.checks}
    assert states["pair_energies"] == ("nothing" if severity == "error" else "fail")


def test_charges_are_other_energy_surfaces(tmp_path: Path) -> None:
    """Molecules and their vertical cations: the same positions, and energies 10 eV apart."""
    teacher, rng, frames = ml.get_teacher("gfn2-xtb"), np.random.default_rng(0), []
    for _ in range(20):
        moved = rng.normal(0, 0.05, (9, 3))
        for charge in (0, 1):
            atoms = molecule("CH3CH2OH")
            atoms.positions += moved
            atoms.info.update(charge=charge, multiplicity=1 + charge)
            frames.append(atoms)
    store = store_of(tmp_path / "s", frames, np.repeat(np.arange(1, 21, dtype=np.uint64), 2))
    store.add_labels(teacher)
    found = ml.validate(store)
    assert found.ok, [problem.text for problem in found.problems]
    assert "energy_work" not in {finding.check for finding in found.findings}
    assert {one.check: one.state for one in found.checks}["energy_units"] == "pass"  # each surface was compared


def test_slabs_of_large_atoms(tmp_path: Path) -> None:
    rng, frames = np.random.default_rng(0), []
    for _ in range(40):
        atoms = fcc111("Pb", (2, 2, 3), a=4.95, vacuum=8.0)
        atoms.positions += rng.normal(0, 0.08, atoms.positions.shape)
        atoms.calc = LennardJones(sigma=3.12, epsilon=0.25, rc=7.0, smooth=True)
        atoms.get_forces()
        frames.append(atoms)
    found = ml.validate(store_of(tmp_path / "s", frames))
    assert found.ok, [problem.text for problem in found.problems]
    assert not {"near_duplicate", "ideal_leakage"} & {finding.check for finding in found.findings}


def test_copies_of_a_slab_are_found_whatever_its_third_vector(tmp_path: Path) -> None:
    frames = []
    for vacuum in (6.0, 8.0, None):
        atoms = fcc111("Cu", (2, 2, 3), vacuum=vacuum or 5.0)
        atoms.rattle(0.1, seed=1)
        if vacuum is None:
            atoms.cell[2] = 0.0
        frames.append(atoms)
    flags = ml.validate(store_of(tmp_path / "s", frames))
    assert len(flags.failed("near_duplicate")) == 2


@pytest.mark.parametrize("vector", [None, "zero"])
def test_environments_of_slabs_do_not_depend_on_the_supercell(vector: str | None) -> None:
    means = []
    for pbc in ([1, 1, 0], [1, 1, 1]):
        for n in (1, 2):
            atoms = fcc111("Cu", (n, n, 3), vacuum=8.0)
            atoms.pbc = pbc
            if vector == "zero" and pbc[2] == 0:
                atoms.cell[2] = 0.0
            means.append(environments([atoms])[0].mean())
    np.testing.assert_allclose(means, means[0], rtol=1e-6)


def test_isolated_atoms_are_no_domain_of_diversity(tmp_path: Path) -> None:
    frames = []
    for k in range(12):
        atoms = bulk("Cu", cubic=True) * (2, 1, 1)
        atoms.rattle(0.1, seed=k)
        frames.append(atoms)
    scores = []
    for k, isolated in enumerate(([], ["Cu"], ["Cu", "Au", "Ag"])):
        store = store_of(tmp_path / str(k), frames + [Atoms(symbol) for symbol in isolated])
        (line,) = ml.validate(store, {"acceptance": {"diversity": {"min": 0.1}}}).acceptance
        assert line.passed
        scores.append(line.value)
    assert scores[0] == scores[1] == scores[2]


def test_ions_repel_their_distant_copies() -> None:
    ammonium = molecule("NH3") + Atoms("H", [[0, 0, 1.15]])
    ammonium.info.update(charge=1, multiplicity=1)
    found = check(ml.get_teacher("gfn2-xtb"), [ammonium])
    copies = [one for one in found if one.name.startswith("two distant copies")]
    assert copies
    assert all(one.passed is None for one in copies)  # there is nothing to compare


def test_a_shared_proton_is_no_odd_bond(tmp_path: Path) -> None:
    positions = [[0, 0, 0.06], [-1.193, 0, 0], [1.193, 0, 0], [-1.66, 0.79, -0.25], [-1.66, -0.79, -0.25]]
    positions += [[1.66, 0.79, 0.25], [1.66, -0.79, 0.25]]
    atoms = Atoms("HOOHHHH", positions, info={"charge": 1, "multiplicity": 1})
    assert not len(ml.validate(store_of(tmp_path / "s", [atoms])).failed("odd_bonds"))


def test_a_hydrogen_between_two_carbons_is_odd(tmp_path: Path) -> None:
    atoms = Atoms("CHCHHHHHH", [[-1.25, 0, 0], [0, 0, 0], [1.25, 0, 0], [-1.7, 1, 0], [-1.7, -0.5, 0.9], [-1.7, -0.5, -0.9],
                                [1.7, 1, 0], [1.7, -0.5, 0.9], [1.7, -0.5, -0.9]])  # fmt: skip
    assert len(ml.validate(store_of(tmp_path / "s", [atoms])).failed("odd_bonds")) == 1


@pytest.mark.parametrize("seed", [0, 2])
def test_few_strained_crystals_are_not_called_wrong(tmp_path, seed):
    """With too few pairs for the third derivatives, the slope of right labels was -0.4 to 0.6, and its error small."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(12):
        atoms = bulk("Cu", cubic=True) * (4, 4, 4)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0, 0.03, (3, 3))), scale_atoms=True)
        atoms.rattle(0.05, rng=rng)
        atoms.calc = EMT()
        atoms.get_potential_energy()
        atoms.get_stress()
        frames.append(atoms)
    store = ml.create(tmp_path / "d.zarr")
    store.append(frames, teacher="emt")
    found = ml.validate(store).compute()
    assert [one.state for one in found.checks if one.check == "energy_units"] == ["not measured"]
    assert found.ok
