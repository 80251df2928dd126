"""Faults of labels: units, signs, arrays in another order, zeros, rounding."""

from __future__ import annotations

import numpy as np

from tests.planted.helpers import labelled_in_order, owners, periodic, rows, scale, starts

HARTREE, RYDBERG, KCAL, KJOULE, BOHR, GPA = 27.2114, 13.6057, 23.0605, 96.4853, 0.529177, 160.2177


def energy_in_hartree(ds):
    return scale(ds, energy=1 / HARTREE)


def energy_in_rydberg(ds):
    return scale(ds, energy=1 / RYDBERG)


def energy_in_kcal(ds):
    return scale(ds, energy=KCAL)


def energy_in_kj(ds):
    return scale(ds, energy=KJOULE)


def energy_in_mev(ds):
    return scale(ds, energy=1000.0)


def energy_per_atom(ds):
    ds.energy.values[:] /= ds.n_atoms.values[:, None]
    return ds


def energy_per_atom_of_a_fifth(ds):
    ds.energy.values[::5] /= ds.n_atoms.values[::5, None]
    return ds


def energy_of_the_next_sample(ds):
    for t, index in enumerate(labelled_in_order(ds)):
        ds.energy.values[index, t] = np.roll(ds.energy.values[index, t], -1)
    return ds


def energy_shuffled(ds):
    for t, index in enumerate(labelled_in_order(ds)):
        ds.energy.values[index, t] = np.random.default_rng(0).permutation(ds.energy.values[index, t])
    return ds


def energy_in_float32(ds):
    """All-electron totals, which are large."""
    ds.energy.values[:] = (ds.energy.values - 2e4 * ds.n_atoms.values[:, None]).astype(np.float32)
    return ds


def energy_of_one_decimal(ds):
    ds.energy.values[:] = np.round(ds.energy.values, 1)
    return ds


def energy_offset_in_half_of_each_root(ds):
    root, n = ds.root.values, ds.sizes["sample"]
    if len(np.unique(root)) > 0.7 * n:  # no roots: the halves of the dataset
        second = np.arange(n) % 2 == 1
    else:
        order = np.lexsort((np.arange(n), root))
        begin = np.flatnonzero(np.concatenate([[True], root[order[1:]] != root[order[:-1]]]))
        size = np.diff(np.append(begin, n))
        second = np.zeros(n, bool)
        second[order] = np.arange(n) - np.repeat(begin, size) >= np.repeat(size, size) / 2
    ds.energy.values[second] += 3.0
    return ds


def energy_of_two_samples_exchanged(ds):
    index = labelled_in_order(ds)[0]
    counts = ds.n_atoms.values[index]
    i, j = index[counts.argmin()], index[counts.argmax()]
    ds.energy.values[[i, j]] = ds.energy.values[[j, i]]
    return ds


def energy_of_one_sample_off(ds):
    i = labelled_in_order(ds)[0][7]
    ds.energy.values[i] += 3.0 * int(ds.n_atoms[i])
    return ds


def forces_in_kcal(ds):
    return scale(ds, forces=KCAL)


def forces_in_atomic_units(ds):
    return scale(ds, forces=BOHR / HARTREE)


def forces_in_rydberg_per_bohr(ds):
    return scale(ds, forces=BOHR / RYDBERG)


def forces_in_ev_per_bohr(ds):
    return scale(ds, forces=BOHR)


def forces_in_mev(ds):
    return scale(ds, forces=1000.0)


def gradients_for_forces(ds):
    return scale(ds, forces=-1.0)


def forces_permuted_in_each_sample(ds):
    rng = np.random.default_rng(0)
    for i in range(ds.sizes["sample"]):
        ds.forces.values[rows(ds, i)] = rng.permutation(ds.forces.values[rows(ds, i)])
    return ds


def forces_moved_by_one_atom(ds):
    ds.forces.values[:] = np.roll(ds.forces.values, 1, axis=0)
    return ds


def forces_all_zero(ds):
    ds.forces.values[:] *= 0.0
    return ds


def forces_zero_where_constrained(ds):
    """The first third of the atoms of each sample."""
    place = np.arange(ds.sizes["atom"]) - np.repeat(starts(ds)[:-1], ds.n_atoms.values)
    ds.forces.values[place < ds.n_atoms.values[owners(ds)] / 3] *= 0.0
    return ds


def energy_and_forces_in_atomic_units(ds):
    return scale(ds, energy=1 / HARTREE, forces=BOHR / HARTREE)


def energy_and_forces_in_kcal(ds):
    return scale(ds, energy=KCAL, forces=KCAL)


def stress_in_gpa(ds):
    return scale(ds, stress=GPA) if _has_stress(ds) else None


def stress_in_kbar(ds):
    return scale(ds, stress=10 * GPA) if _has_stress(ds) else None


def stress_of_the_opposite_sign(ds):
    return scale(ds, stress=-1.0) if _has_stress(ds) else None


def stress_in_another_voigt_order(ds):
    if not _has_stress(ds):
        return None
    ds.stress.values[:] = ds.stress.values[:, :, [0, 1, 2, 5, 4, 3]]
    return ds


def _has_stress(ds):
    return "stress" in ds and bool(np.isfinite(ds.stress.values[periodic(ds)]).any())
