"""Pairs of samples: molecules are laid onto one another, crystals shifted, and slopes do not mind single wrong labels."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, fcc100, molecule
from ase.calculators.emt import EMT
from scipy.spatial.transform import Rotation

import mlffstore as ml
from mlffstore.analysis.validation import candidates
from mlffstore.analysis.validation.slopes import slopes
from mlffstore.analysis.validation.work import Work, compare
from mlffstore.data.geometry import invertible_cells
from mlffstore.data.kernels import invertible_cell
from mlffstore.data.ragged import offsets
from mlffstore.lazy.blocks import Block


def spring(positions, rest, k=30.0):
    """Return energy and forces of springs between all atoms."""
    one, two = np.triu_indices(len(positions), 1)
    vector = positions[one] - positions[two]
    length = np.linalg.norm(vector, axis=1)
    forces = np.zeros_like(positions)
    pull = -(k * (length - rest) / length)[:, None] * vector
    np.add.at(forces, one, pull)
    np.add.at(forces, two, -pull)
    return 0.5 * float((k * (length - rest) ** 2).sum()), forces


def block(frames, energies, forces):
    batch = ml.SampleBatch.from_ase(frames)
    columns = {name: batch.columns[name] for name in ("n_atoms", "numbers", "positions", "cell", "pbc")}
    columns |= {"energy": np.array(energies)[:, None], "forces": np.concatenate(forces)[:, None]}
    return Block(0, columns, offsets(batch.n_atoms))


@pytest.fixture
def turned():
    """Return conformations of a molecule, each turned and shifted at random, with exact labels."""
    seed, rng = molecule("CH3OH"), np.random.default_rng(0)
    one, two = np.triu_indices(len(seed), 1)
    rest = np.linalg.norm(seed.positions[one] - seed.positions[two], axis=1)
    frames, energies, forces = [], [], []
    for k in range(12):
        frame = seed.copy()
        x = seed.positions + rng.normal(0, 0.02, seed.positions.shape)
        energy, force = spring(x, rest)
        turn = Rotation.random(rng=k).as_matrix()
        frame.positions = x @ turn + rng.normal(0, 5, 3)
        frames.append(frame)
        energies.append(energy)
        forces.append(force @ turn)
    return block(frames, energies, forces)


def test_molecules_are_laid_onto_one_another(turned):
    work = compare(turned, np.arange(11), np.arange(1, 12))
    assert len(work.first) == 11  # all of them are close
    assert work.far.max() < 0.12
    assert work.energy == pytest.approx(work.force_work, abs=0.02)  # what the trapezoid rule leaves
    assert (work.curvature > 0).all()


def test_a_mirror_image_is_no_rotation(turned):
    """The mirror image of a chiral set of points cannot be laid onto it."""
    x = turned["positions"][:6].copy()
    x[3] += [0.4, 0.7, 0.2]
    mirrored = np.concatenate([x, x * [1, 1, -1]])
    columns = {**turned.columns, "positions": mirrored, "n_atoms": turned["n_atoms"][:2]}
    columns |= {name: turned[name][: 12 if name in ("numbers", "forces") else 2] for name in
                ("numbers", "forces", "cell", "pbc", "energy")}  # fmt: skip
    work = compare(Block(0, columns, offsets(columns["n_atoms"])), np.array([0]), np.array([1]))
    assert len(work.first) == 0 or work.far[0] > 0.2


def test_a_crystal_that_was_shifted_and_wrapped_is_the_same():
    rng, frames, energies, forces = np.random.default_rng(0), [], [], []
    for _ in range(6):
        atoms = bulk("Cu", cubic=True) * 2
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        atoms.calc = EMT()
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces())
        atoms.calc = None
        atoms.positions += rng.uniform(-10, 10, 3)
        atoms.wrap()
        frames.append(atoms)
    work = compare(block(frames, energies, forces), np.arange(5), np.arange(1, 6))
    assert len(work.first) == 5
    assert work.far.max() < 0.4
    assert work.energy == pytest.approx(work.force_work, abs=0.1)


def pairs(n, rng, *, unit=1.0):
    """Return works of n pairs that explain the energies to a tenth."""
    force, normal, shear = rng.normal(0, 1.0, n), rng.normal(0, 2.0, n), rng.normal(0, 0.5, n)
    energy = (force + normal + shear) * (1 + rng.normal(0, 0.1, n)) * unit
    ints, zeros = np.arange(n), np.zeros(n)
    teacher = np.zeros(n, np.uint8)
    return Work(
        ints, ints + n, teacher, energy, force, normal, shear, np.zeros((n, 3, 3)), *[zeros] * 5, np.full(n, 10)
    )


def test_the_slopes_are_those_of_the_labels():
    found = slopes(pairs(200, np.random.default_rng(0)), 0)
    for one in found.values():
        assert one.value == pytest.approx(1, abs=4 * one.error + 0.02)
        assert 0 < one.error < 0.1
    assert slopes(pairs(200, np.random.default_rng(0)), 1)["force_work"].n == 0


@pytest.mark.parametrize("unit", [1 / 27.2114, 23.06, -1.0])
def test_a_unit_is_a_slope(unit):
    found = slopes(pairs(100, np.random.default_rng(1), unit=unit), 0)
    assert found["force_work"].value / unit == pytest.approx(1, abs=0.1)
    assert found["normal_work"].value / unit == pytest.approx(1, abs=0.1)


def test_single_wrong_energies_do_not_move_the_slope():
    work = pairs(100, np.random.default_rng(2))
    work.energy[::10] += 500.0
    assert slopes(work, 0)["force_work"].value == pytest.approx(1, abs=0.15)


def test_shuffled_energies_have_no_correlation():
    work = pairs(100, np.random.default_rng(3))
    work.energy[:] = np.random.default_rng(4).permutation(work.energy)
    assert abs(slopes(work, 0)["normal_work"].correlation) < 0.4


def test_the_samples_that_are_read_are_bounded_and_drawn_by_the_seed(ds, monkeypatch):
    s = ml.validate(ds)._measured.samples
    everything, _ = candidates.choose(s, 0)
    assert len(everything) > 180
    monkeypatch.setattr(candidates, "MAX_SAMPLES", 40)
    some, group = candidates.choose(s, 0)
    assert len(some) <= 2 * (40 + 8)
    assert len(np.unique(group)) > 3
    assert candidates.choose(s, 0)[0].tolist() == some.tolist()
    assert candidates.choose(s, 1)[0].tolist() != some.tolist()


def test_one_large_group_gives_close_samples():
    """Of 5,000 frames of one system, those next to one another and those of similar shape."""
    rng, n = np.random.default_rng(0), 5000
    shape = rng.normal(size=(n, 6)).astype(np.float32)
    s = {
        "order": np.full(n, 7, np.uint64), "periodic": np.zeros(n, bool), "molecule": np.ones(n, bool),
        "n_atoms": np.full(n, 20, np.int32), "energy": np.zeros((n, 1)), "force_max": np.ones((n, 1)), "shape": shape,
        "root": np.arange(n).astype(np.uint64), "state": np.ones(n, np.uint64),
    }  # fmt: skip
    index, group = candidates.choose(s, 0)
    assert 600 < len(index) <= candidates.MAX_SAMPLES
    assert len(np.unique(group)) == 1
    nearest = np.sort(((shape[index][:, None] - shape[index][None]) ** 2).sum(axis=2), axis=1)[:, 1]
    others = rng.choice(n, len(index), replace=False)
    usual = np.sort(((shape[others][:, None] - shape[others][None]) ** 2).sum(axis=2), axis=1)[:, 1]
    assert np.median(nearest) < 0.8 * np.median(usual)


@pytest.mark.parametrize(("strain", "rattle"), [(0.03, 0.05), (0.005, 0.1)])
def test_units_of_strongly_strained_and_of_hot_crystals(tmp_path, strain, rattle):
    """The stiffness depends on the volume, which the trapezoid rule does not know; small works are lost in large ones."""
    rng, frames, roots = np.random.default_rng(1), [], []
    for k, symbol in enumerate(("Cu", "Al", "Ni", "Pd", "Ag", "Pt", "Au")):
        seed = bulk(symbol, cubic=True) * (2, 2, 1)
        for _ in range(8):
            frame = seed.copy()
            part = rng.normal(0, strain, (3, 3))
            frame.set_cell(frame.cell.array @ (np.eye(3) + (part + part.T) / 2), scale_atoms=True)
            frame.positions += rng.normal(0, rattle, frame.positions.shape)
            frame.calc = EMT()
            frame.get_forces(), frame.get_stress()
            frames.append(frame)
            roots.append(k)
    store = ml.create(tmp_path / "d.zarr")
    store.append(ml.SampleBatch.from_ase(frames, root=np.array(roots, np.uint64)))
    checks = {one.check: one for one in ml.validate(store).checks}
    assert checks["energy_units"].state == "pass", checks["energy_units"].text
    for name in ("stress_units", "stress_shear"):
        assert checks[name].state in ("pass", "not measured"), checks[name].text


@pytest.mark.parametrize(("kind", "pbc"), [("slab", (True, True, False)), ("wire", (False, False, True))])
def test_units_of_slabs_and_wires(tmp_path, kind, pbc):
    """Periodic in two directions and in one; the vector that is not periodic may be zero."""
    rng, frames = np.random.default_rng(0), []
    for symbol in ("Cu", "Al", "Ag"):
        seed = fcc100(symbol, (2, 2, 3)) if kind == "slab" else bulk(symbol, cubic=True) * (1, 1, 2)
        seed.set_cell(np.where(np.array(pbc)[:, None], seed.cell.array, 0.0))
        seed.pbc = pbc
        for _ in range(8):
            frame = seed.copy()
            frame.positions += rng.normal(0, 0.05, frame.positions.shape) + rng.uniform(-9, 9, 3)
            frame.wrap()
            frame.calc = EMT()
            frame.get_forces()
            frames.append(frame)
    store = ml.create(tmp_path / "d.zarr")
    store.append(ml.SampleBatch.from_ase(frames))
    found = {one.check: one for one in ml.validate(store).checks}["energy_units"]
    assert (found.state, found.n > 20) == ("pass", True), found.text
    ds = store.snapshot().to_xarray().load()
    ds.energy.values[:] *= 23.06
    found = {one.check: one for one in ml.validate(ds).checks}["energy_units"]
    assert (found.state, "energies in kcal/mol" in found.text) == ("fail", True)


def test_cells_are_completed_as_the_kernel_does():
    rng = np.random.default_rng(0)
    cell, pbc = rng.normal(0, 4, (60, 3, 3)), rng.integers(0, 2, (60, 3)).astype(bool)
    expected = np.array([invertible_cell(c, p, 1.0)[0] for c, p in zip(cell, pbc, strict=True)])
    assert np.abs(np.linalg.det(invertible_cells(cell, pbc))) == pytest.approx(np.abs(np.linalg.det(expected)))
