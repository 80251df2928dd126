"""Dynamics that samples positions cheaply: heavy masses, followers, the force field as a sampler, full batches."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule

import mlffstore as ml
from mlffstore.contracts.protocols import FollowingTeacher
from mlffstore.contracts.registry import shared_teacher
from mlffstore.data.batch import SampleBatch
from mlffstore.errors import DataError
from mlffstore_generators.samplers.langevin import Ensemble, sampling_masses
from tests.generators.bonds import Bonds

METALS = {"name": "crystals", "elements": ["Cu", "Al", "Ni"], "elemental": 1.0, "max_atoms": 16}
SMALL = {"name": "molecules", "min_atoms": 5, "max_atoms": 14}


@pytest.mark.parametrize(("symbols", "step"), [("CH4", 1.5), ("SiO2", 3.0)])
def test_positions_have_their_distribution_whatever_the_masses(symbols, step):
    """Bonds as stiff as C-H (33 eV/A^2): kT/2 in each coordinate and a Gaussian, with the timestep that production takes."""
    atoms = Atoms(symbols, positions=3.0 * np.random.default_rng(0).normal(size=(len(Atoms(symbols)), 3)))
    masses, temperature, n = sampling_masses(atoms.numbers), 400.0, 120
    assert set(masses[atoms.numbers == 1]) <= {4.0}
    stiffness = np.linspace(8.0, 33.0, len(atoms))
    run = Ensemble(
        [atoms] * n, [np.random.default_rng([5, i]) for i in range(n)], Bonds(stiffness, atoms.positions),
        np.full(n, temperature), np.full(n, step), friction=0.02, masses=[masses] * n,
    )  # fmt: skip
    moves, kinetic = [], []
    for k in range(600):
        run.step()
        if k >= 200 and k % 20 == 0:
            moves.append((run.positions - np.tile(atoms.positions, (n, 1))).reshape(n, -1, 3))
            kinetic.append(run.temperatures().mean())
    x = np.concatenate(moves)
    # 120 x 3 coordinates at some 10 independent times: a standard error of 2.4 % for the variance of an atom. BAOAB has the
    # configurations of a harmonic bond exactly at any stable timestep (Leimkuhler and Matthews 2013).
    share = stiffness * (x**2).mean(axis=(0, 2)) / (units.kB * temperature)
    assert share == pytest.approx(np.ones(len(atoms)), abs=0.1)
    scaled = x * np.sqrt(stiffness)[None, :, None]
    assert (scaled**4).mean() / scaled.var() ** 2 == pytest.approx(3.0, rel=0.08)
    # Velocities of BAOAB have an error of (w dt)^2 / 4 of the stiffest bond: 0.09 for C-H with 4 amu.
    assert np.mean(kinetic) == pytest.approx(temperature, rel=0.12)


@pytest.mark.slow
def test_heavy_hydrogen_keeps_the_energy_of_a_real_molecule():
    """Potential energy of water above its minimum: 3/2 kT of three modes, on GFN2-xTB."""
    from mlffstore_generators.samplers.teacher import relaxed

    teacher = shared_teacher("gfn2-xtb", {})
    atoms = relaxed(molecule("H2O"), teacher, 1e-3, 200)
    rest, n, temperature = teacher.label(SampleBatch.from_ase([atoms])).energy[0], 24, 400.0
    masses = [sampling_masses(atoms.numbers)] * n
    run = Ensemble(
        [atoms] * n, [np.random.default_rng([8, i]) for i in range(n)], teacher, np.full(n, temperature),
        np.full(n, 1.5), friction=0.02, masses=masses,
    )  # fmt: skip
    energies = []
    for k in range(500):
        run.step()
        if k >= 200:
            energies.append(run.energy - rest)
    # 24 trajectories of some 15 independent times and 3 modes: a standard error of 4 %.
    assert np.mean(energies) == pytest.approx(1.5 * units.kB * temperature, rel=0.15)


# -- followers ------------------------------------------------------------------------------------------------------------


def test_a_follower_says_what_the_teacher_says():
    teacher = ml.get_teacher("gfn2-xtb")
    assert isinstance(teacher, FollowingTeacher)
    follower, rng = teacher.following(), np.random.default_rng(0)
    frames = [molecule("CH3OH"), molecule("C2H6")]
    for step in range(12):
        for frame in frames:
            frame.positions += rng.normal(0, 0.01, frame.positions.shape)
        order = [0, 1] if step % 2 else [1, 0]  # a structure is known by its key, not by its place
        batch = SampleBatch.from_ase([frames[k] for k in order])
        cold, warm = teacher.label(batch), follower.label(batch, order)
        # The self-consistent charges converge to 1e-6 hartree from either side.
        assert np.abs(cold.energy - warm.energy).max() < 1e-5
        assert np.abs(cold.forces - warm.forces).max() < 2e-3


def test_a_follower_starts_anew_after_a_failure():
    teacher = ml.get_teacher("gfn2-xtb")
    follower, good = teacher.following(), SampleBatch.from_ase([molecule("H2O")])
    bad = molecule("H2O")
    bad.positions[:] = 0.0
    first = follower.label(good, [0])
    assert not follower.label(SampleBatch.from_ase([bad]), [0]).ok[0]
    again = follower.label(good, [0])
    assert again.ok[0]
    assert again.energy[0] == pytest.approx(first.energy[0], abs=1e-5)


def test_kept_frames_have_the_labels_that_the_teacher_gives_alone():
    """Charges that are carried along must not decide what is stored: the same structure has the same label anywhere."""
    options = {"seeds": SMALL, "frames": 2, "equilibration_fs": 30, "interval_fs": 15, "temperatures": [400]}
    made = ml.get_generator("md", **options).generate(np.random.default_rng(2), 3)
    stored = made.batch.astype("float32")
    again = ml.get_teacher("gfn2-xtb").label(stored.structures())
    assert np.array_equal(stored.labels["gfn2-xtb"]["energy"], again.energy)
    assert np.array_equal(stored.labels["gfn2-xtb"]["forces"], again.forces)


# -- cost -----------------------------------------------------------------------------------------------------------------


def test_calls_are_counted():
    options = {"seeds": METALS, "teacher": "emt", "frames": 3, "temperatures": [600], "distance": 0.0, "parallel": 2}
    made = ml.get_generator("md", **options, equilibration_fs=30, interval_fs=9).generate(np.random.default_rng(1), 6)
    # Two trajectories: the start, 10 steps of 3 fs until the first frame, 3 until each of the others.
    assert made.calls == {"emt": 2 * (1 + 10 + 2 * 3)}
    assert ml.get_generator("rattle", seeds=METALS).generate(np.random.default_rng(1), 4).calls == {}
    modes = ml.get_generator("normal-modes", seeds=METALS, teacher="emt", frames=4).generate(
        np.random.default_rng(1), 4
    )
    assert modes.calls["emt"] > 2


def test_where_a_trajectory_ends_the_next_begins():
    """Batches stay full, and the frames are the same as one after the other."""
    sizes = []

    class Watched(Ensemble):
        def drift(self):
            sizes.append(int(self.alive.sum()))
            super().drift()

    import mlffstore_generators.samplers.md as module

    options = {"seeds": METALS, "teacher": "emt", "frames": 2, "temperatures": [300, 900], "equilibration_fs": 12}
    options |= {"interval_fs": 12, "distance": 0.08}
    alone = ml.get_generator("md", **options, parallel=1).generate(np.random.default_rng(3), 12).batch
    before, module.Ensemble = module.Ensemble, Watched
    try:
        together = ml.get_generator("md", **options, parallel=3).generate(np.random.default_rng(3), 12).batch
    finally:
        module.Ensemble = before
    assert np.array_equal(alone.content_hash, together.content_hash)
    assert np.array_equal(alone.labels["emt"]["energy"], together.labels["emt"]["energy"])
    # Six trajectories of different lengths in three places: full until there is none left to begin.
    last = max(k for k, size in enumerate(sizes) if size == 3)
    assert set(sizes[: last + 1]) == {3}


# -- the force field as a sampler ------------------------------------------------------------------------------------------


def test_the_force_field_samples_and_the_teacher_labels():
    options = {"seeds": {**SMALL, "max_atoms": 24}, "teacher": "mmff94", "temperatures": [300], "frames": 4}
    made = ml.get_generator("md", **options, rattle=[0.01, 0.02]).generate(np.random.default_rng(5), 8)
    assert made.calls == {}
    assert made.teacher is None
    assert made.batch.labels == {}
    assert set(made.batch.sampler) == {"md-mmff94-300K"}
    labels = ml.get_teacher("gfn2-xtb").label(made.batch.structures())
    assert labels.ok.all()
    # Thermal motion at 300 K: a few eV/angstrom; torn bonds would have tens.
    assert 0.3 < np.sqrt((labels.forces**2).mean()) < 5
    with pytest.raises(DataError, match="mmff94 knows molecules with bonds only"):
        ml.get_generator("md", seeds=METALS, teacher="mmff94").generate(np.random.default_rng(0), 1)
    with pytest.raises(DataError, match="keep their labels"):
        ml.get_generator("md", rattle=[0.01, 0.02])
