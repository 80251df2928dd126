"""Figures of the labels of every sample: sizes, sums, and which labels are incomplete."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.analysis.statistics.sketch import Sketch
from mlffstore.data.ragged import reduce_rows

if TYPE_CHECKING:
    from mlffstore.data.schema import Array
    from mlffstore.lazy.blocks import Block

#: Figures of the forces. Units: see `label_figures`.
_OF_FORCES = ("force_max", "force_rms", "net_force", "net_torque", "torque_share")


def label_figures(block: Block, molecule: Array) -> tuple[dict[str, Array], list[Sketch]]:
    """Return figures of the labels, and a sketch of the norms of the forces of each teacher.

    Returns
    -------
    dict of str to ndarray, shape (S, T)
        ``energy`` (eV), ``partial`` (a part of a label is missing or infinite), ``force_max``, ``force_rms`` (over the
        atoms), ``net_force`` per atom (eV/angstrom), ``net_torque`` per atom (eV), ``torque_share`` (of what random forces
        of this size would have, 1), ``zero_forces`` (share of the atoms whose force is exactly 0), ``stress_max``,
        ``mean_stress`` (eV/angstrom^3). NaN where there is no label.
    list of Sketch
        One per teacher.
    """
    energy, n, starts = block.energy, len(block), block.starts
    n_teachers = energy.shape[1]
    n_atoms = np.diff(starts)
    shape = (n, n_teachers)
    out = {"energy": energy.astype(np.float64), "partial": np.isinf(energy)}
    out |= {name: np.full(shape, np.nan, np.float32) for name in (*_OF_FORCES, "zero_forces", "stress_max")}
    out["mean_stress"] = np.full(shape, np.nan, np.float32)
    sketches = [Sketch.of(np.zeros(0))] * n_teachers
    x = block["positions"].astype(np.float64)
    arm = x - np.repeat(np.add.reduceat(x, starts[:-1]) / n_atoms[:, None], n_atoms, axis=0)
    reach = np.einsum("ij,ij->i", arm, arm)
    for t in range(n_teachers):
        if "forces" in block:
            f = block["forces"][:, t].astype(np.float64)
            square = np.einsum("ij,ij->i", f, f)
            size = np.sqrt(square)
            missing = np.add.reduceat(np.isnan(size).astype(np.int64), starts[:-1])
            infinite = np.asarray(np.isinf(f).any(axis=1))
            # A sample without forces or without an energy is no error; one that lacks a part of its forces is.
            out["partial"][:, t] |= (missing > 0) & (missing < n_atoms)
            out["partial"][:, t] |= reduce_rows(np.logical_or, infinite, starts)
            with np.errstate(invalid="ignore", divide="ignore"):
                out["force_max"][:, t] = reduce_rows(np.maximum, size, starts)
                out["force_rms"][:, t] = np.sqrt(np.add.reduceat(square, starts[:-1]) / n_atoms)
                out["net_force"][:, t] = np.linalg.norm(np.add.reduceat(f, starts[:-1]), axis=1) / n_atoms
                torque = np.linalg.norm(_torque(arm, f, starts), axis=1)
                # A random direction has two thirds of its square across the arm.
                chance = np.sqrt(np.add.reduceat(reach * square, starts[:-1]) * 2 / 3)
                out["torque_share"][:, t] = np.where(molecule & (n_atoms > 2), torque / chance, np.nan)
                out["zero_forces"][:, t] = np.add.reduceat((size == 0).astype(np.int64), starts[:-1]) / n_atoms
            out["zero_forces"][missing > 0, t] = np.nan
            out["net_torque"][:, t] = np.where(molecule, torque / n_atoms, np.nan)
            sketches[t] = Sketch.of(size)
        if "stress" in block:
            s = block["stress"][:, t].astype(np.float64)
            missing_s = np.isnan(s)
            out["partial"][:, t] |= (missing_s.any(axis=1) & ~missing_s.all(axis=1)) | np.isinf(s).any(axis=1)
            out["stress_max"][:, t] = np.abs(s).max(axis=1)
            out["mean_stress"][:, t] = s[:, :3].mean(axis=1)
    return out, sketches


def _torque(arm: Array, f: Array, starts: Array) -> Array:
    """Return the torque about the centre of each sample, shape (S, 3), eV."""
    cross = np.empty_like(arm)
    for a, b, c in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        cross[:, a] = arm[:, b] * f[:, c] - arm[:, c] * f[:, b]
    return np.asarray(np.add.reduceat(cross, starts[:-1]))
