"""Checks of single samples: which samples fail which check of a policy, decided from their figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.analysis.validation.copies import find_copies

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlffstore.analysis.validation.measure import Measured
    from mlffstore.analysis.validation.policy import Policy
    from mlffstore.data.schema import Array

#: Checks of single samples, in the order of their bits.
SAMPLE_CHECKS = (
    "not_finite", "unlabelled", "close_atoms", "touching_atoms", "force_too_large", "force_large", "net_force",
    "net_torque", "stress_too_large", "cell_left_handed", "cell_angles", "cell_volume", "electron_parity",
    "missing_hydrogens", "energy_outlier", "energy_work", "duplicate", "near_duplicate", "leakage", "near_leakage",
    "molecule_leakage", "force_gradient", "teacher_energy", "teacher_stress", "altered",
    "cell_too_flat", "odd_bonds", "unbound_atoms", "few_hydrogens", "property_range", "property_sums", "ideal_leakage",
    "host_leakage", "teacher_properties",
)  # fmt: skip
#: What to do about samples that fail a check, where its name does not say so.
_ONE_ROOT = "give copies one root (--root on import), or remove some"
ADVICE = {
    "near_leakage": f"turned, reordered or repeated copies are in another split: {_ONE_ROOT}",
    "ideal_leakage": f"ideal or relaxed structures are in another split too: {_ONE_ROOT}",
    "host_leakage": "the same crystal, as it is or with defects, is in other splits: fine for a test within these crystals, "
    "not of others",
    "molecule_leakage": "the same molecule is in other splits: fine for a test within these molecules, not of others",
}  # fmt: skip
#: Samples of an element set below which its energies have no robust spread.
_FEWEST = 10
#: eV per atom: no spread of energies counts as smaller than this.
_LEAST_SPREAD = 0.005


def judge_samples(measured: Measured, policy: Policy, teachers: Mapping[str, Mapping[str, Any]]) -> dict[str, Array]:
    """Return for each check of single samples which of them fail it, shape (S,), bool."""
    s, rules = measured.samples, policy.checks
    n = len(s["n_atoms"])

    def any_teacher(bad: Array) -> Array:
        return np.asarray(bad.any(axis=1)) if bad.shape[1] else np.zeros(n, bool)

    def above(name: str, limit: float) -> Array:
        with np.errstate(invalid="ignore"):
            return any_teacher(s[name] > limit)

    angles, volume = rules["cell_angles"], rules["cell_volume"]
    labelled = ~np.isnan(s["energy"])
    bare = _bare_in_most_conformations(s)
    # Direct forces of a teacher that does not turn with the structure have a torque by nature.
    turns = np.array(
        [info.get("conservative", True) and info.get("equivariant", True) for info in teachers.values()], bool
    )
    with np.errstate(invalid="ignore"):
        torque = any_teacher((s["net_torque"] > rules["net_torque"]["max_eV_per_atom"]) & turns[None, :])
        out = {
            "not_finite": ~s["finite"] | any_teacher(s["partial"]),
            "unlabelled": ~any_teacher(labelled),
            "close_atoms": s["d_min"] < rules["close_atoms"]["min_angstrom"],
            "touching_atoms": s["contact"] < rules["touching_atoms"]["min_ratio"],
            "force_too_large": above("force_max", rules["force_too_large"]["max_eV_per_angstrom"]),
            "force_large": above("force_max", rules["force_large"]["max_eV_per_angstrom"]),
            "net_force": above("net_force", rules["net_force"]["max_eV_per_angstrom_per_atom"]),
            "net_torque": torque,
            "stress_too_large": above("stress_max", rules["stress_too_large"]["max_eV_per_angstrom3"]),
            "cell_left_handed": s["volume"] <= 0,
            "cell_angles": (s["angle_min"] < angles["min_degrees"]) | (s["angle_max"] > angles["max_degrees"]),
            "cell_volume": (s["volume_per_atom"] < volume["min_angstrom3_per_atom"])
            | (s["volume_per_atom"] > volume["max_angstrom3_per_atom"]),
            "cell_too_flat": s["too_flat"],
            "electron_parity": ~s["parity"],
            "missing_hydrogens": bare & s["hydrogen_free"],
            "energy_outlier": _outliers(measured, policy),
            "energy_work": above("work_ratio", rules["energy_work"]["max_ratio"]),
            "odd_bonds": s["odd_bonds"],
            "unbound_atoms": s["unbound"],
            "few_hydrogens": bare & ~s["hydrogen_free"],
        }
    out["altered"] = s["altered"]
    out |= find_copies(s, rules["near_duplicate"]["tolerance"])
    out |= {name: np.zeros(n, bool) for name in SAMPLE_CHECKS if name not in out}
    return {name: out[name] for name in SAMPLE_CHECKS}


def _bare_in_most_conformations(s: Mapping[str, Array]) -> Array:
    """Return which molecules have bare carbons, as have at least half of the samples with the same atoms in the same order.

    Hot dynamics stretch bonds in some conformations; hydrogens that were lost are lost in all of them.
    """
    bare = s["bare"]
    if not bare.any():
        return bare
    _, group = np.unique(s["order"], return_inverse=True)
    share = np.bincount(group.ravel(), bare) / np.bincount(group.ravel())
    return np.asarray(bare & (share[group.ravel()] >= 0.5))


def references(measured: Measured, energy: Array) -> tuple[Array, Array]:
    """Return the energy of each atomic number (256) by least squares of the smallest norm, and the residual per atom."""
    owner = np.repeat(np.arange(len(energy)), measured.n_elements)
    present = np.unique(measured.elements)
    column = np.zeros(256, np.int64)
    column[present] = np.arange(len(present))
    n_atoms = measured.samples["n_atoms"]
    good = np.isfinite(energy)
    keep = good[owner]
    # Normal equations of energies per atom: every sample counts the same, and the sums stay small.
    row, col, share = owner[keep], column[measured.elements[keep]], measured.counts[keep] / n_atoms[owner[keep]]
    normal, right = np.zeros((len(present),) * 2), np.zeros(len(present))
    np.add.at(right, col, share * energy[row] / n_atoms[row])
    for k in range(int(measured.n_elements.max(initial=0))):  # each element of a sample with the k-th next one
        same = row[: len(row) - k] == row[k:]
        a, b, product = col[: len(row) - k][same], col[k:][same], share[: len(row) - k][same] * share[k:][same]
        np.add.at(normal, (a, b), product)
        if k:
            np.add.at(normal, (b, a), product)
    solution = np.linalg.lstsq(normal, right, rcond=1e-10)[0]
    e0 = np.zeros(256)
    e0[present] = solution
    predicted = np.bincount(owner, measured.counts * e0[measured.elements], minlength=len(energy))
    return e0, (energy - predicted) / n_atoms


def _outliers(measured: Measured, policy: Policy) -> Array:
    """Return samples whose energy lies far from that of others with the same elements, or is impossible."""
    rule, s = policy.checks["energy_outlier"], measured.samples
    n = len(s["n_atoms"])
    out = np.zeros(n, bool)
    owner = np.repeat(np.arange(n), measured.n_elements)
    bits = np.zeros((n, 2), np.uint64)
    z = measured.elements.astype(np.uint64)
    for half in range(2):  # the set of elements as 128 bits
        in_half = z // np.uint64(64) == half
        np.bitwise_or.at(bits[:, half], owner[in_half], np.uint64(1) << (z[in_half] % np.uint64(64)))
    _, group = np.unique(bits, axis=0, return_inverse=True)
    for t in range(s["energy"].shape[1]):
        energy = s["energy"][:, t]
        good = np.flatnonzero(np.isfinite(energy))
        if len(good) < _FEWEST:
            continue
        residual = references(measured, energy)[1]
        value, code = residual[good], group.ravel()[good]
        order = np.lexsort((value, code))
        centre = _group_median(value, code, order)
        deviation = np.abs(value - centre)
        spread = 1.4826 * _group_median(deviation, code, np.lexsort((deviation, code)))
        many = np.bincount(code)[code] >= _FEWEST
        score = deviation / np.maximum(spread, _LEAST_SPREAD)
        with np.errstate(invalid="ignore"):
            out[good] |= many & (score > rule["max_robust_z"])
            out[good] |= (value < rule["min_eV_per_atom"]) | (value > rule["max_eV_per_atom"])
    return out


def _group_median(value: Array, code: Array, order: Array) -> Array:
    """Return for each entry the median of its group; `order` sorts by group, then value."""
    counts = np.bincount(code)
    begin = np.cumsum(counts) - counts
    ordered = value[order]
    some = counts > 0
    median = np.zeros(len(counts))
    low, high = begin[some] + (counts[some] - 1) // 2, begin[some] + counts[some] // 2
    median[some] = 0.5 * (ordered[low] + ordered[high])
    return np.asarray(median[code])
