"""The acceptance table: targets of a dataset. A line without a measured value fails, and says what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.analysis.validation.fingerprints import CUTOFF
from mlffstore.analysis.validation.policy import QUANTITIES
from mlffstore.data.splits import SPLITS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlffstore.analysis.validation.measure import Measured
    from mlffstore.analysis.validation.policy import Policy
    from mlffstore.data.schema import Array

#: A value, or None if it was not measured, and a note: the reason why, or the meaning of the value.
Figure = tuple[float | None, str]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the acceptance table.

    Attributes
    ----------
    quantity, unit, target : str
    value : float or None
        None if it was not measured.
    passed : bool
        False if the value was not measured.
    note : str
        The reason why the value was not measured and what to do about it, or the meaning of the value.
    """

    quantity: str
    unit: str
    target: str
    value: float | None
    passed: bool
    note: str = ""

    @property
    def mark(self) -> str:
        """``pass`` or ``FAIL``."""
        return "pass" if self.passed else "FAIL"

    @property
    def figure(self) -> str:
        """The value and the note as text."""
        value = "not measured" if self.value is None else number(self.value)
        return f"{value}: {self.note}" if self.note else value


def number(value: float) -> str:
    """Return a figure as text."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def table(
    policy: Policy,
    measured: Measured,
    failed: Mapping[str, Array],
    invalid: Array,
    nbytes: int | None,
    diversity: Callable[[], float],
) -> list[Line]:
    """Return the lines of a policy's acceptance table.

    Parameters
    ----------
    policy : Policy
    measured : Measured
    failed : mapping of str to ndarray of bool
        For each check which samples fail it, shape (S,).
    invalid : ndarray of bool
        Which samples fail a check of severity error, shape (S,).
    nbytes : int or None
        Size of the dataset; None if it is not known.
    diversity : callable
        It measures the diversity score and is called if the table has such a line.
    """
    figures = _figures(policy, measured, failed, invalid, nbytes)
    out = []
    for name, limits in policy.acceptance.items():
        value, note = (diversity(), "needs several environments") if name == "diversity" else figures[name]
        if value is not None and np.isnan(value):
            value = None
        passed = value is not None and limits.get("min", -np.inf) <= value <= limits.get("max", np.inf)
        words = [f"{word} {limits[k]:g}" for k, word in (("min", "at least"), ("max", "at most")) if k in limits]
        shown = "" if name == "diversity" and value is not None else note
        out.append(Line(name, QUANTITIES[name], ", ".join(words), value, bool(passed), shown))
    return out


def _figures(
    policy: Policy, measured: Measured, failed: Mapping[str, Array], invalid: Array, nbytes: int | None
) -> dict[str, Figure]:
    s, splits = measured.samples, _split_counts(measured.samples)
    n_atoms, closest = s["n_atoms"], float(s["d_min"].min())
    worst = [sketch.quantile(0.99) for sketch in measured.forces if sketch.n]
    no_forces = "no sample has forces; label the samples, or leave this line out of the policy"
    no_size = "the size of a Dataset is not known; validate the store or snapshot, or pass nbytes="
    out: dict[str, Figure] = {
        "samples": (len(n_atoms), ""),
        "elements": (len(np.unique(measured.elements)), ""),
        "n_atoms_min": (float(n_atoms.min()), ""),
        "n_atoms_max": (float(n_atoms.max()), ""),
        "periodic_fraction": (float((~s["molecule"]).mean()), ""),
        "invalid_fraction": (float(invalid.mean()), ""),
        "leaked_samples": _leaked(policy, s, failed),
        "force_p99_eV_per_angstrom": (max(worst), "") if worst else (None, no_forces),
        "d_min_angstrom": (closest, "") if closest < np.inf else (CUTOFF, "no pair of atoms is closer"),
        "gigabytes": (None, no_size) if nbytes is None else (nbytes / 1e9, ""),
    }
    for split in ("train", "val", "test"):
        out[f"samples_{split}"] = (float(splits[split]), "") if splits else (None, "the dataset has no split; keep it")
    return out


def _leaked(policy: Policy, s: Mapping[str, Array], failed: Mapping[str, Array]) -> Figure:
    missing = [name for name in ("split", "root", "content_hash") if name not in s]
    if missing:
        return None, f"the dataset has no {', '.join(missing)}; keep it"
    if policy.checks["leakage"].severity == "off":
        return None, "the policy turns the check leakage off"
    return float(failed["leakage"].sum()), ""


def _split_counts(s: Mapping[str, Array]) -> dict[str, int]:
    """Return the number of samples in each split."""
    if "split" not in s:
        return {}
    counts = np.bincount(s["split"], minlength=len(SPLITS))
    return {name: int(counts[i]) for i, name in enumerate(SPLITS)}
