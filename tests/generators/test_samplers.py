"""Samplers: right physics, sane frames, the same structures anywhere."""

from __future__ import annotations

import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule

import mlffstore as ml
from mlffstore.contracts.protocols import Generator
from mlffstore.contracts.registry import shared_teacher
from mlffstore.data.batch import SampleBatch
from mlffstore.errors import DataError
from mlffstore_generators.samplers.langevin import Ensemble
from mlffstore_generators.seeds.base import Seed
from tests.generators.bonds import Bonds

CRYSTALS = {
    "name": "crystals",
    "elements": ["Cu", "Al", "Ni", "Pd", "Ag", "Au", "Pt"],
    "elemental": 1.0,
    "max_atoms": 32,
}
METALS = {"name": "crystals", "elements": ["Cu", "Al", "Ni"], "elemental": 1.0, "max_atoms": 16}
SMALL = {"name": "molecules", "min_atoms": 5, "max_atoms": 16}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rattle", {"seeds": SMALL}),
        ("rattle", {"seeds": CRYSTALS}),
        ("scan", {"seeds": SMALL}),
        ("scan", {"seeds": "clusters"}),
        ("scan", {"seeds": CRYSTALS}),
        ("normal-modes", {"seeds": CRYSTALS, "teacher": "emt", "temperatures": [300]}),
        ("md", {"seeds": CRYSTALS, "teacher": "emt", "equilibration_fs": 20, "interval_fs": 10, "temperatures": [500]}),
        ("rattle-relax", {"seeds": CRYSTALS, "teacher": "emt"}),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.get("seeds", ""))[:22],
)
def test_contract(name, options):
    generator = ml.get_generator(name, frames=3, **options)
    assert isinstance(generator, Generator)
    made = generator.generate(np.random.default_rng(4), 7)
    batch = made.batch
    assert len(batch) == 7
    assert len(set(batch.root.tolist())) >= 2
    assert len(set(batch.content_hash.tolist())) == 7
    assert np.isfinite(batch.positions).all()
    assert all(batch.sampler)
    record = generator.provenance()
    assert record["generator"] == name
    assert all(source["licence"] for source in record["seeds"])
    again = generator.generate(np.random.default_rng(4), 7).batch
    assert np.array_equal(again.content_hash, batch.content_hash)


def test_frames_keep_the_labels_that_the_dynamics_had():
    options = {"seeds": CRYSTALS, "teacher": "emt", "equilibration_fs": 20, "interval_fs": 10}
    made = ml.get_generator("md", **options).generate(np.random.default_rng(1), 6)
    stored = made.batch.astype("float32")
    again = ml.get_teacher("emt").label(stored.structures())
    assert made.teacher.name == "emt"
    assert np.array_equal(stored.labels["emt"]["energy"], again.energy)
    assert np.array_equal(stored.labels["emt"]["forces"], again.forces)
    assert np.array_equal(stored.labels["emt"]["stress"], again.stress)


# -- dynamics ---------------------------------------------------------------------------------------------------------


class Well:
    """An exact harmonic well, to see what the integrator does: E = k |x - x0|^2 / 2 of every atom."""

    def __init__(self, k, rest):
        from mlffstore.contracts.protocols import TeacherInfo

        self.k, self.rest = k, rest
        self.info = TeacherInfo(
            "well", None, frozenset({"molecule", "periodic"}), ("energy", "forces"), "float64", True, "none", "well"
        )

    def label(self, batch):
        from mlffstore.contracts.protocols import TeacherLabels

        move = batch.positions - np.tile(self.rest, (len(batch), 1))
        energy = 0.5 * self.k * np.add.reduceat((move**2).sum(1), batch.offsets[:-1])
        return TeacherLabels(energy, -self.k * move, None, np.ones(len(batch), bool), ("",) * len(batch))


def test_langevin_samples_the_canonical_distribution():
    """Kinetic and potential energy of each degree of freedom are kT/2, and the distribution of positions is Gaussian."""
    atoms = molecule("H2O")
    atoms.symbols[:] = "C"
    n, temperature, k = 200, 400.0, 5.0
    rngs = [np.random.default_rng([7, i]) for i in range(n)]
    run = Ensemble([atoms] * n, rngs, Well(k, atoms.positions), np.full(n, temperature), np.full(n, 1.0), friction=0.05)
    kinetic, positions = [], []
    for step in range(1500):
        run.step()
        if step >= 300 and step % 20 == 0:
            kinetic.append(run.temperatures().mean())
            positions.append((run.positions - np.tile(atoms.positions, (n, 1))).ravel())
    x = np.concatenate(positions)
    # 200 x 9 coordinates, some 20 independent times: a standard error of 0.75 % of a variance; four of them.
    assert np.mean(kinetic) == pytest.approx(temperature, rel=0.03)
    assert k * x.var() == pytest.approx(units.kB * temperature, rel=0.03)
    assert (x**4).mean() / x.var() ** 2 == pytest.approx(3.0, rel=0.06)


@pytest.mark.slow
def test_langevin_agrees_with_ase():
    """The same start, teacher and thermostat: temperature and potential energy of rattled copper as ASE's integrator has."""
    from ase.calculators.emt import EMT
    from ase.md.langevinbaoab import LangevinBAOAB

    atoms, temperature = bulk("Cu", cubic=True) * (2, 2, 1), 600.0
    n = 12
    rngs = [np.random.default_rng([3, i]) for i in range(n)]
    run = Ensemble([atoms] * n, rngs, ml.get_teacher("emt"), np.full(n, temperature), np.full(n, 2.0), friction=0.02)
    ours = []
    for step in range(400):
        run.step()
        if step >= 150:
            ours.append((run.temperatures(), run.energy.copy()))
    theirs = []
    for i in range(n):
        one = atoms.copy()
        one.calc = EMT()
        rng = np.random.default_rng([5, i])
        one.set_momenta(rng.normal(size=(len(one), 3)) * np.sqrt(one.get_masses() * units.kB * temperature)[:, None])
        dynamics = LangevinBAOAB(one, 2.0 * units.fs, temperature_K=temperature, T_tau=units.fs / 0.02, rng=rng)
        for step in range(400):
            dynamics.run(1)
            if step >= 150:
                theirs.append((one.get_temperature(), one.get_potential_energy()))
    heat, energy = np.array(ours)[:, 0].mean(), np.array(ours)[:, 1].mean()
    other_heat, other_energy = np.array(theirs).mean(axis=0)
    rest = ml.get_teacher("emt").label(SampleBatch.from_ase([atoms])).energy[0]
    # 12 runs of 0.5 ps with 48 coordinates: a standard error of about 2 % for each side.
    assert heat == pytest.approx(other_heat, rel=0.08)
    assert energy - rest == pytest.approx(other_energy - rest, rel=0.1)


def test_a_trajectory_does_not_depend_on_its_companions():
    teacher = ml.get_teacher("emt")
    frames = [bulk("Cu", cubic=True), bulk("Al", cubic=True) * (2, 1, 1)]

    def positions(which):
        run = Ensemble(
            [frames[i] for i in which], [np.random.default_rng([1, i]) for i in which], teacher,
            np.full(len(which), 500.0), np.full(len(which), 1.0),
        )  # fmt: skip
        for _ in range(30):
            run.step()
        return {i: run.frame(k).positions for k, i in enumerate(which)}

    alone, together = positions([1]), positions([0, 1])
    assert np.array_equal(alone[1], together[1])


def test_frames_do_not_depend_on_how_many_trajectories_run_side_by_side():
    """Frames are due at different times; what is rounded for one must not touch the others."""
    options = {"seeds": METALS, "teacher": "emt", "frames": 2, "temperatures": [300.0, 900.0], "equilibration_fs": 20.0}

    def made(parallel):
        generator = ml.get_generator("md", **options, interval_fs=20.0, distance=0.08, parallel=parallel)
        return generator.generate(np.random.default_rng(3), 8).batch

    alone, together = made(1), made(4)
    assert np.array_equal(alone.content_hash, together.content_hash)
    assert np.array_equal(alone.labels["emt"]["energy"], together.labels["emt"]["energy"])


def test_a_ramp_starts_cold_and_ends_at_the_temperature():
    """10 ps^-1 of friction follow a ramp of 1 ps with a lag of 0.1 ps: no frame before its end, hot after it."""
    atoms = bulk("Cu", cubic=True) * (2, 2, 1)
    n, hot = 8, 900.0
    # Springs, which cost nothing: that of a copper atom to its place is some 5 eV/angstrom^2.
    run = Ensemble(
        [atoms] * n, [np.random.default_rng([9, i]) for i in range(n)], Bonds(np.full(16, 5.0), atoms.positions),
        np.full(n, 300.0), np.full(n, 2.0), friction=0.05,
    )  # fmt: skip
    seen = []
    for step in range(1, 301):
        run.heat(np.full(n, 300.0) + 600.0 * min(step / 200, 1))
        run.step()
        seen.append(run.temperatures().mean())
    # 8 x 48 degrees of freedom, averaged over 50 steps: a standard error below 5 %; the kinetic energy starts at 300 K.
    assert np.mean(seen[:10]) < 400
    assert np.mean(seen[80:120]) == pytest.approx(600, rel=0.2)
    assert np.mean(seen[-50:]) == pytest.approx(hot, rel=0.15)
    generator = ml.get_generator(
        "md",
        seeds=METALS,
        teacher="emt",
        temperatures=[600.0],
        frames=1,
        ramp_fs=40.0,
        equilibration_fs=0.0,
        distance=0.0,
        masses="natural",
    )
    steps = []
    settle = Ensemble.settle
    try:
        Ensemble.settle = lambda self, stored: (steps.append((self.temperature[0], stored.any())), settle(self, stored))
        generator.generate(np.random.default_rng(0), 1)
    finally:
        Ensemble.settle = settle
    temperatures = [one for one, _ in steps]
    assert temperatures[0] == pytest.approx(300 + 300 / 40)
    assert temperatures[-1] == 600.0
    assert [stored for _, stored in steps].index(True) >= 39


def test_a_trajectory_that_explodes_stops_and_says_why():
    hot = {"seeds": SMALL, "teacher": "emt", "temperatures": [20000.0], "parallel": 2}
    with pytest.raises(DataError, match="trajectory stopped: "):
        ml.get_generator("md", **hot).generate(np.random.default_rng(0), 1)


# -- modes ------------------------------------------------------------------------------------------------------------


def phonon_of(atoms, teacher):
    from mlffstore_generators.samplers.modes import hessian
    from mlffstore_generators.samplers.teacher import relaxed

    at_rest = relaxed(atoms, teacher, 1e-3, 500)
    return at_rest, hessian(at_rest, teacher)


@pytest.fixture(scope="module")
def water():
    pytest.importorskip("phonopy")
    return phonon_of(molecule("CH3OH"), shared_teacher("gfn2-xtb", {}))


def test_modes_of_a_molecule_are_vibrations(water):
    """3N - 6 of them above 1 THz; stretches of O-H and C-H where a spectroscopist looks for them."""
    from mlffstore_generators.samplers.modes import CUTOFF_THZ, modes

    atoms, phonon = water
    frequencies, _ = modes(phonon)
    assert np.count_nonzero(np.abs(frequencies) > CUTOFF_THZ) == 3 * len(atoms) - 6
    wavenumbers = np.sort(frequencies * 33.356)
    assert wavenumbers[-1] == pytest.approx(3681, rel=0.1)  # O-H stretch of methanol, NIST
    assert wavenumbers[-4:-1] == pytest.approx([2844, 2960, 3000], rel=0.1)  # C-H stretches


@pytest.mark.parametrize("name", ["H2O", "CH4", "CO2", "HCN", "C2H2"])
def test_rotations_are_no_vibrations_at_a_loose_minimum(name):
    """At 0.01 eV/angstrom rotations had up to 50 cm^-1, real and imaginary, and water twelve times its thermal energy."""
    from mlffstore_generators.samplers.modes import hessian, modes
    from mlffstore_generators.samplers.teacher import relaxed

    pytest.importorskip("phonopy")
    teacher = ml.get_teacher("gfn2-xtb")
    start = molecule(name)
    start.rattle(0.01, seed=1)  # so that linear molecules are left a little bent
    atoms = relaxed(start, teacher, 0.01, 300)
    phonon = hessian(atoms, teacher)
    frequencies, vectors = modes(phonon)
    n_rigid = 5 if name in ("CO2", "HCN", "C2H2") else 6
    order = np.argsort(np.abs(frequencies))
    assert np.abs(frequencies[order[:n_rigid]]).max() < 1e-3  # THz
    assert frequencies[order[n_rigid:]].min() > 5.0
    masses = phonon.primitive.masses
    arms = atoms.positions - np.average(atoms.positions, axis=0, weights=masses)
    # Of a linear molecule that is a little bent, rotation about its axis is left to the bending modes.
    tolerance = 1e-6 if n_rigid == 6 else 2e-3
    for vector in vectors[order[n_rigid:]]:  # mass-weighted: no momentum, and none of rotation
        moved = vector * np.sqrt(masses)[:, None]
        np.testing.assert_allclose(moved.sum(axis=0), 0, atol=1e-6)
        np.testing.assert_allclose(np.cross(arms, moved).sum(axis=0), 0, atol=tolerance)


@pytest.mark.parametrize("which", ["molecule", "crystal"])
def test_thermal_draws_have_kt_over_two_in_each_mode(which, water):
    from mlffstore_generators.samplers.modes import CUTOFF_THZ, displacements, modes

    if which == "molecule":
        atoms, phonon = water
    else:
        atoms, phonon = phonon_of(bulk("Al", cubic=True) * (2, 1, 1), shared_teacher("emt", {}))
    temperature, n = 300.0, 6000
    u = displacements(phonon, temperature, n, seed=3)
    force_constants = phonon.force_constants
    energy = 0.5 * np.einsum("sia,ijab,sjb->s", u, force_constants, u)
    frequencies, vectors = modes(phonon)
    real = np.count_nonzero(frequencies > CUTOFF_THZ)
    # The energy of a mode is a chi-square: 6,000 draws of some ten modes give 1 % or better.
    assert energy.mean() == pytest.approx(0.5 * real * units.kB * temperature, rel=0.03)
    # No rigid motion is left: neither the centre of mass moves nor, for the molecule, does it rotate.
    mass = atoms.get_masses()
    centre = np.einsum("i,sia->sa", mass, u) / mass.sum()
    assert np.abs(centre).max() < 1e-4
    if which == "molecule":
        arm = atoms.positions - mass @ atoms.positions / mass.sum()
        turn = np.einsum("i,sia->sa", mass, np.cross(arm[None], u))
        # Weighed against what a random displacement of this size would carry. Finite differences about a structure with
        # forces of up to 1e-3 eV/A mix a little rotation into the softest mode, the torsion of the methyl group.
        scale = np.sqrt((mass**2 * (arm**2).sum(1)).sum()) * u.std()
        assert np.abs(turn).max() < 1e-2 * scale
    # Each mode by itself.
    weighted = np.einsum("mia,sia->sm", vectors, u * np.sqrt(mass)[None, :, None])
    stiffness = (2 * np.pi * frequencies * 1e12) ** 2 / 9.648533212331e27
    per_mode = 0.5 * stiffness * (weighted**2).mean(axis=0)
    kept = frequencies > CUTOFF_THZ
    assert per_mode[kept] == pytest.approx(0.5 * units.kB * temperature, rel=0.08)


def test_quantum_draws_reach_the_zero_point(water):
    from mlffstore_generators.samplers.modes import CUTOFF_THZ, displacements, modes

    _, phonon = water
    u = displacements(phonon, 1.0, 4000, seed=1, scheme="quantum")
    energy = 0.5 * np.einsum("sia,ijab,sjb->s", u, phonon.force_constants, u)
    frequencies, _ = modes(phonon)
    zero_point = 0.25 * 4.135667696e-3 * frequencies[frequencies > CUTOFF_THZ].sum()  # half of h f / 2 is potential
    assert energy.mean() == pytest.approx(zero_point, rel=0.03)


def test_ani1_draws_stay_below_their_energy(water):
    """The shares add up to less than one: the energy is below 3/2 N kT, and spread over modes at random."""
    from mlffstore_generators.samplers.modes import displacements

    atoms, phonon = water
    u = displacements(phonon, 500.0, 500, seed=2, scheme="ani1")
    energy = 0.5 * np.einsum("sia,ijab,sjb->s", u, phonon.force_constants, u)
    limit = 1.5 * len(atoms) * units.kB * 500.0
    assert (energy < 1.001 * limit).all()
    assert energy.mean() == pytest.approx(limit / 2, rel=0.1)  # a uniform share of it
    assert np.linalg.norm(displacements(phonon, 5000.0, 50, 2, "ani1", 0.2), axis=2).max() <= 0.2 + 1e-9


# -- others -----------------------------------------------------------------------------------------------------------


def test_a_scan_moves_one_side_of_one_bond():
    from mlffstore_generators.samplers.scan import Scan

    atoms = molecule("C2H6")
    bonds = np.array([(0, 1), *((0, h) for h in (2, 3, 4)), *((1, h) for h in (5, 6, 7))])
    seed = Seed(atoms, "test", bonds)
    frames, label = Scan(frames=8).sample(seed, np.random.default_rng(3), 8)
    assert label == "scan-bond"
    lengths = np.array([[f.get_distance(*bond) for bond in bonds] for f in frames])
    moving = np.ptp(lengths, axis=0) > 1e-9
    assert moving.sum() == 1
    ratio = lengths[:, moving][:, 0] / atoms.get_distance(*bonds[moving][0])
    assert 0.85 <= ratio.min() < ratio.max() <= 1.8
    assert np.diff(ratio) == pytest.approx((1.8 - 0.85) / 8)


def test_volumes_of_a_scan_are_those_asked_for():
    from mlffstore_generators.samplers.scan import Scan

    seed = Seed(bulk("NaCl", "rocksalt", a=5.64, cubic=True), "test")
    frames, label = Scan(frames=6, volume=(0.9, 1.1)).sample(seed, np.random.default_rng(0), 6)
    ratio = np.array([frame.get_volume() for frame in frames]) / seed.atoms.get_volume()
    assert label == "scan-volume"
    assert np.diff(ratio) == pytest.approx(0.2 / 6)


def test_rattle_relax_goes_downhill(tmp_path):
    from ase.io import write

    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    write(tmp_path / "cu.extxyz", atoms)
    seeds = {"name": "files", "paths": [str(tmp_path / "cu.extxyz")], "licence": "CC0-1.0"}
    options = {"seeds": seeds, "teacher": "emt", "steps": 8, "strain": 0.0, "amplitude": (0.15, 0.15), "frames": 5}
    made = [
        ml.get_generator("rattle-relax", **options, parallel=n).generate(np.random.default_rng(0), 20) for n in (1, 4)
    ]
    # Side by side or one after the other: EMT labels a structure without regard to the others.
    assert np.array_equal(made[0].batch.content_hash, made[1].batch.content_hash)
    assert len(set(made[0].batch.content_hash.tolist())) == 20
    teacher = ml.get_teacher("emt")
    rest = teacher.label(SampleBatch.from_ase([atoms])).energy[0]
    energy = teacher.label(made[0].batch).energy - rest
    start = []
    for i in range(20):
        rattled = atoms.copy()
        rattled.positions += np.random.default_rng(i).normal(0, 0.15, rattled.positions.shape)
        start.append(rattled)
    before = teacher.label(SampleBatch.from_ase(start)).energy - rest
    assert 0 < np.median(energy) < np.median(before)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("md", {"temperatures": [0]}, "positive temperatures"),
        ("md", {"timestep_fs": 9}, "4 fs"),
        ("normal-modes", {"scheme": "wigner"}, "thermal, quantum, ani1"),
        ("rattle", {"amplitude": [0, 1]}, "positive"),
        ("scan", {"bond": [2, 1]}, "rising"),
        ("rattle-relax", {"steps": 0}, "positive steps"),
        ("rattle", {"frames": 41}, "1 to 40 frames"),
    ],
)
def test_bad_options_are_told(name, options, words):
    with pytest.raises(DataError, match=words):
        ml.get_generator(name, **options)
