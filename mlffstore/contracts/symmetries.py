"""Checks of a teacher on structures whose labels follow from those of others: permuted, moved, rotated, repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.contracts.derivatives import stress_limit
from mlffstore.data.voigt import IN_MATRIX, IN_VOIGT

if TYPE_CHECKING:
    import numpy.typing as npt
    from ase import Atoms

    from mlffstore.contracts.examination import Examination, Floats
    from mlffstore.contracts.protocols import TeacherLabels
    from mlffstore.data.properties import Property


def permuted(exam: Examination) -> None:
    """Permute atoms: the energy is the same and the forces are permuted."""
    orders = [exam.rng.permutation(int(n)) for n in exam.batch.n_atoms]
    labels = exam.label(exam.changed(lambda i: exam.frame(i)[orders[i]]), "permuted atoms")
    forces = [forces[order] for forces, order in exam.forces_with(orders)]
    exam.compare("permuted atoms", labels, exam.labels.energy, np.concatenate(forces))
    more = exam.transformed(lambda spec, values, i: values[orders[i]] if spec.axis == "atom" else values)
    exam.compare_more("permuted atoms", labels, more)


def translated(exam: Examination) -> None:
    """Move structures: the labels are the same. What the energy changes by is the noise of the examination."""
    shift = exam.rng.normal(0, 3, (len(exam.batch), 3))

    def move(i: int) -> Atoms:
        frame = exam.frame(i)
        frame.positions += shift[i]
        return frame

    labels = exam.label(exam.changed(move), "moved samples")
    exam.compare("translated", labels, exam.labels.energy, exam.labels.forces)
    # The dipole of a charged sample moves with it.
    displaced = exam.transformed(
        lambda spec, values, i: values + exam.batch.charge[i] * shift[i] if spec.name == "dipole" else values
    )
    exam.compare_more("translated", labels, displaced)
    exam.force_noise = max(exam.force_noise, float(np.abs(labels.forces - exam.labels.forces).max()))
    change = float(np.abs(labels.energy - exam.labels.energy).max()) + 50 * exam.epsilon  # at least that of 50 eV
    exam.noise = min(exam.resolution, change)


def rotated(exam: Examination) -> None:
    """Rotate structures: the energy is the same, and forces and stress turn with the structure."""
    from scipy.spatial.transform import Rotation

    rotations = list(Rotation.random(len(exam.batch), exam.rng).as_matrix())

    def turn(i: int) -> Atoms:
        frame = exam.frame(i)
        frame.set_cell(frame.cell.array @ rotations[i])
        frame.positions = frame.positions @ rotations[i]
        return frame

    labels = exam.label(exam.changed(turn), "rotated samples")
    forces = np.concatenate([forces @ rotation for forces, rotation in exam.forces_with(rotations)])
    if exam.info.equivariant:
        exam.compare("rotated", labels, exam.labels.energy, forces)
    else:
        gap = np.abs(labels.forces - forces).max()
        exam.report("rotated: forces", gap, "eV/angstrom", "not equivariant by construction: reported")
        exam.report("rotated: energy", np.abs(labels.energy - exam.labels.energy).max(), "eV", "reported")
    expected = exam.transformed(lambda spec, values, i: turned(spec, values, rotations[i]))
    exam.compare_more("rotated", labels, expected, judged=exam.info.equivariant)
    if "stress" not in exam.info.properties or not exam.periodic.any():
        return
    gap = _rotated_stress_gap(exam, labels, rotations)
    if exam.info.equivariant:
        exam.judge("rotated: stress", gap, stress_limit(exam), "eV/angstrom^3")
    else:
        exam.report("rotated: stress", gap, "eV/angstrom^3", "reported")


def _rotated_stress_gap(exam: Examination, labels: TeacherLabels, rotations: list[npt.NDArray[np.float64]]) -> float:
    from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress

    assert labels.stress is not None
    assert exam.labels.stress is not None
    largest = 0.0
    for i in np.flatnonzero(exam.periodic):
        full = voigt_6_to_full_3x3_stress(exam.labels.stress[i].astype(float))
        expected = full_3x3_to_voigt_6_stress(rotations[i].T @ full @ rotations[i])
        largest = max(largest, float(np.abs(labels.stress[i] - expected).max()))
    return largest


def images(exam: Examination) -> None:
    """Replace atoms of crystals by periodic images: the labels are the same."""
    if not exam.periodic.any():
        exam.skip("periodic images", "labels no crystals")
        return

    def move(i: int) -> Atoms:
        frame = exam.frame(i)
        if frame.pbc.all():
            frame.positions += exam.rng.integers(-2, 3, (len(frame), 3)) @ frame.cell.array
        return frame

    labels = exam.label(exam.changed(move), "images")
    exam.compare("periodic images", labels, exam.labels.energy, exam.labels.forces, 2)
    exam.compare_more("periodic images", labels, exam.transformed(lambda spec, values, i: values), 2)


def supercell(exam: Examination) -> None:
    """Double crystals along one vector: the energy doubles and the forces are the same."""
    only = exam.periodic
    if not only.any():
        exam.skip("supercell", "labels no crystals")
        return
    labels = exam.label(exam.changed(lambda i: exam.frame(i) * (1, 1, 2), only), "supercells")
    forces = [np.tile(forces, (2, 1)) for forces, periodic in exam.forces_with(only.tolist()) if periodic]
    exam.compare("supercell", labels, 2 * exam.labels.energy[only], np.concatenate(forces), 3)
    exam.compare_more("supercell", labels, exam.transformed(_doubled, only), 3)


def _doubled(spec: Property, values: Floats, _: int) -> Floats:
    """Return the values of two cells: those of the system add up, or stay if they are averages."""
    if spec.axis == "atom":
        return np.tile(values, (2, *[1] * (values.ndim - 1)))
    # Members of a committee that differ by some energy per cell differ by twice that of two cells.
    return 2 * values if spec.extensive or spec.name == "energy_std" else values


def turned(spec: Property, values: Floats, rotation: Floats) -> Floats:
    """Return values of a property in a structure whose positions, as rows, were multiplied by a rotation from the right."""
    if spec.turns == "vector":
        return values @ rotation
    if spec.turns != "tensor":
        return values
    if spec.shape[-1] == "voigt":
        matrices = values[..., IN_VOIGT].reshape(*values.shape[:-1], 3, 3)
        return np.asarray((rotation.T @ matrices @ rotation).reshape(*values.shape[:-1], 9)[..., IN_MATRIX])
    return np.asarray(rotation.T @ values @ rotation)


def distant_copies(exam: Examination) -> None:
    """Put two molecules 40 angstrom apart: the energy is twice that of one."""
    only = ~exam.batch.pbc.any(axis=1)
    if not only.any():
        exam.skip("two distant copies", "labels no molecules")
        return

    def double(i: int) -> Atoms:
        frame = exam.frame(i)
        other = frame.copy()
        other.positions += [40.0, 0.0, 0.0]
        both = frame + other
        both.info = {"charge": 0, "multiplicity": 1}
        return both

    # Open shells couple: two doublets are a singlet or a triplet, whose energies differ in some methods.
    # Two ions repel at any distance.
    closed = only & (exam.batch.multiplicity == 1) & (exam.batch.charge == 0)
    if not closed.any():
        exam.skip("two distant copies", "only open shells and ions among the samples")
        return
    labels = exam.label(exam.changed(double, closed), "two copies")
    difference = np.abs(labels.energy - 2 * exam.labels.energy[closed]).max()
    exam.judge(
        "two distant copies: energy", difference, 3 * exam.energy_limit + 1e-3, "eV", "1e-3 for long-range tails"
    )
