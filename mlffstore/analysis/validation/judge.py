"""From figures to verdicts: which samples fail which check of a policy, and what is wrong with the dataset as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.splits import SPLITS
from mlffstore.data.stress import StressCheck
from mlffstore.lazy.inputs import altered_message

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
    "cell_too_flat",
)  # fmt: skip
#: Checks of the dataset as a whole.
DATASET_CHECKS = ("energy_units", "stress_units", "stress_stiffness", "force_units", "hydrogen_free", "atoms_moved")
#: Samples of an element set below which its energies have no robust spread.
_FEWEST = 10
#: eV per atom: no spread of energies counts as smaller than this.
_LEAST_SPREAD = 0.005


@dataclass(frozen=True, slots=True)
class DatasetProblem:
    """Something wrong with the dataset as a whole.

    Attributes
    ----------
    check : str
    severity : {"error", "warning"}
    text : str
        What was expected, what was there, and what to do.
    """

    check: str
    severity: str
    text: str


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
            "missing_hydrogens": s["bare"],
            "energy_outlier": _outliers(measured, policy),
            "energy_work": measured.work.suspects(n, rules["energy_work"]["max_ratio"]),
        }
    out["altered"] = s["altered"]
    out |= _copies(s, rules["near_duplicate"]["tolerance"])
    out |= {name: np.zeros(n, bool) for name in SAMPLE_CHECKS if name not in out}
    return {name: out[name] for name in SAMPLE_CHECKS}


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


def _copies(s: Mapping[str, Array], tolerance: float) -> dict[str, Array]:
    """Return duplicates, near-duplicates, and those of them that lie in different splits."""
    n = len(s["n_atoms"])
    split = s.get("split", np.zeros(n, np.uint8))
    out = {
        name: np.zeros(n, bool)
        for name in ("duplicate", "leakage", "near_duplicate", "near_leakage", "molecule_leakage")
    }
    if "content_hash" in s:
        again, across = _groups(s["content_hash"], split)
        out["duplicate"] = again & ~_firsts(s["content_hash"])  # the first of them is no duplicate
        out["leakage"] |= across
    if "root" in s:
        out["leakage"] |= _groups(s["root"], split)[1]
    graph = s["graph"]
    molecule = np.flatnonzero(graph)
    if len(molecule):
        out["molecule_leakage"][molecule] = _groups(graph[molecule], split[molecule])[1]
    near = _near(s, tolerance)
    again, across = _groups(near, split)
    exact = _groups(s["content_hash"], split)[0] if "content_hash" in s else np.zeros(n, bool)
    out["near_duplicate"] = again & ~_firsts(near) & ~exact
    out["near_leakage"] = across & ~out["leakage"]
    return out


def _firsts(key: Array) -> Array:
    out = np.zeros(len(key), bool)
    out[np.unique(key, return_index=True)[1]] = True
    return out


def _groups(key: Array, split: Array) -> tuple[Array, Array]:
    """Return which entries share their key with another, and which with one of another split."""
    order = np.argsort(key, kind="stable")
    begin = np.flatnonzero(np.concatenate([[True], key[order[1:]] != key[order[:-1]]]))
    size = np.diff(np.append(begin, len(key)))
    low, high = np.minimum.reduceat(split[order], begin), np.maximum.reduceat(split[order], begin)
    again, across = np.zeros(len(key), bool), np.zeros(len(key), bool)
    again[order] = np.repeat(size > 1, size)
    across[order] = np.repeat(low != high, size)
    return again, across


def _near(s: Mapping[str, Array], tolerance: float) -> Array:
    """Return a number for each sample that near-duplicates share: one composition, and shapes that agree to `tolerance`."""
    shape = s["shape"]
    order = np.lexsort((shape[:, 2], shape[:, 1], shape[:, 0], s["composition"]))
    a, b = shape[order[:-1]], shape[order[1:]]
    with np.errstate(invalid="ignore"):
        alike = (np.abs(a - b) <= tolerance * np.maximum(np.abs(a), 1e-3)).all(axis=1)
    alike &= s["composition"][order[:-1]] == s["composition"][order[1:]]
    out = np.empty(len(order), np.int64)
    out[order] = np.cumsum(np.concatenate([[True], ~alike]))
    return out


#: Checks of single samples -> the variables without which nothing can fail them.
_NEEDS = {
    "electron_parity": ("charge", "multiplicity"), "energy_work": ("root",), "duplicate": ("content_hash",),
    "leakage": ("split", "root", "content_hash"), "near_leakage": ("split",), "molecule_leakage": ("split",),
    "altered": ("charge", "multiplicity", "content_hash"),
}  # fmt: skip


def unmeasured(measured: Measured, policy: Policy) -> list[DatasetProblem]:
    """Return the checks that nothing could fail, because the dataset lacks variables that every store has."""
    out = []
    for check, names in _NEEDS.items():
        missing = [name for name in names if name not in measured.variables]
        if missing and policy.checks[check].severity != "off":
            text = f"not measured: the dataset has no {', '.join(missing)}; keep it, or turn the check off"
            out.append(DatasetProblem(check, policy.checks[check].severity, text))
    return out


def judge_dataset(
    measured: Measured, policy: Policy, teachers: Mapping[str, Mapping[str, Any]]
) -> list[DatasetProblem]:
    """Return what is wrong with the dataset as a whole: units and signs, lost hydrogens."""
    s, rules, out = measured.samples, policy.checks, []

    def complain(check: str, text: str) -> None:
        if rules[check].severity != "off":
            out.append(DatasetProblem(check, rules[check].severity, text))

    for t, teacher in enumerate(teachers):
        slopes = measured.work.slopes(t)
        for what, check in (("force", "energy_units"), ("stress", "stress_units")):
            slope, error = slopes.get(what, (1.0, 0.0))
            # Strain and rattle of clean data gave 0.57 to 1.14: the trapezoid rule is not exact. Units are further off.
            if slope + 3 * error < rules[check]["min_slope"] or slope - 3 * error > rules[check]["max_slope"]:
                complain(check, _explain(teacher, what, slope, error))
        force = s["force_max"][:, t]
        if np.isfinite(force).any() and float(np.nanmedian(force)) > rules["force_units"]["max_median_eV_per_angstrom"]:
            complain(
                "force_units",
                f"{teacher}: expected forces of a few eV/angstrom, got a median largest force of {np.nanmedian(force):.3g}; "
                "are they in kcal/mol/angstrom (divide by 23.06) or hartree/bohr (multiply by 51.42)?",
            )
        verdict = _stiffness(measured, t, rules["stress_stiffness"].limits)
        if verdict:
            complain("stress_stiffness", f"{teacher}: {verdict}")
    organic = int(s["organic"].sum())
    bald = int(s["hydrogen_free"].sum())
    if organic >= _FEWEST and bald > rules["hydrogen_free"]["max_fraction"] * organic:
        complain(
            "hydrogen_free",
            f"expected molecules with their hydrogens, got {bald} of {organic} molecules with carbon that have none at all; "
            "were they lost in a conversion (SDF and SMILES leave hydrogens out)?",
        )
    moved = int(s["altered"].sum())
    if moved > rules["atoms_moved"]["max_fraction"] * len(s["altered"]):
        complain("atoms_moved", altered_message(moved, len(s["altered"])))
    return out


_KNOWN_FACTORS = (
    (23.0605, "kcal/mol taken for eV"), (96.485, "kJ/mol taken for eV"), (1 / 27.2114, "hartree taken for eV"),
    (-1.0, "the opposite sign"), (1 / 160.2177, "GPa taken for eV/angstrom^3"), (-1 / 160.2177, "GPa, of the opposite sign"),
    (1 / 1602.177, "kbar taken for eV/angstrom^3"), (-1 / 1602.177, "kbar, of the opposite sign"),
    (1 / 51.422, "hartree/bohr taken for eV/angstrom"),
    (1 / 23.0605, "kcal/mol/angstrom taken for eV/angstrom"), (0.0, "labels that do not belong to these structures"),
)  # fmt: skip


def _explain(teacher: str, what: str, slope: float, error: float) -> str:
    best, meaning = min(_KNOWN_FACTORS, key=lambda known: abs(known[0] - slope) / max(abs(known[0]), 0.05))
    guess = f"; this looks like {meaning}" if abs(best - slope) < max(0.3 * abs(best), 3 * error, 0.02) else ""
    return (
        f"{teacher}: expected energies of one root to differ by the work of the {what}{'s' if what == 'force' else ''}, got "
        f"{slope:.4g} +- {error:.2g} times that{guess}. Convert the labels and import them again"
    )


def _stiffness(measured: Measured, t: int, limits: Mapping[str, float]) -> str:
    """Return what the slope of the mean stress with the volume says of its sign and unit; see `StressCheck`."""
    s = measured.samples
    stress, volume = s["mean_stress"][:, t], s["volume"]
    with np.errstate(invalid="ignore"):
        good = np.flatnonzero(np.isfinite(stress) & (volume > 0))
    check = StressCheck((limits["min_eV_per_angstrom3"], limits["max_eV_per_angstrom3"]))
    check.gather([key.tobytes() for key in s["composition"][good]], volume[good], stress[good])
    finding = check.finding()
    expected = {
        "sign": "expected a stretched crystal to pull back (tension positive), got the reverse: ",
        "unit": "expected eV/angstrom^3, got a crystal too stiff (GPa or kbar taken for eV/angstrom^3?): ",
        "size": "expected eV/angstrom^3, got stresses of ",
    }
    if not finding.fault:
        return ""
    return f"{expected[finding.fault]}{finding.evidence}. Convert the stress and import it again"


def split_counts(s: Mapping[str, Array]) -> dict[str, int]:
    """Return the number of samples in each split."""
    if "split" not in s:
        return {}
    counts = np.bincount(s["split"], minlength=len(SPLITS))
    return {name: int(counts[i]) for i, name in enumerate(SPLITS)}
