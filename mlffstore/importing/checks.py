"""Physics that betrays a bad conversion while it can still be stopped: stress of the wrong sign or unit, lost hydrogens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.ragged import reduce_rows
from mlffstore.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlffstore.data.batch import SampleBatch
    from mlffstore.importing.wording import Wording

#: Bulk moduli of solids, eV/angstrom^3: from solid noble gases (about 1 GPa) to diamond (443 GPa), with a wide margin.
BULK_MODULUS = (0.001, 10.0)
#: Largest believable stress, eV/angstrom^3 (480 GPa): more than the centre of the Earth (364 GPa).
MAX_STRESS = 3.0
#: What is remembered of a data set; more would not change the verdict.
_MAX_GROUPS, _MAX_PER_GROUP = 2000, 64
#: eV/angstrom and eV per atom beyond which a label is remarked on: no bond is so strong, no atom so deep
#: (all-electron uranium is -7.6e5 eV).
_MAX_FORCE, _MAX_ENERGY = 1e3, 1e6


class StressCheck:
    """Gathers volumes and mean stresses and says when they cannot be tension positive eV/angstrom^3.

    A crystal that is stretched pulls back: with tension positive the mean stress s = tr(stress)/3 rises with the
    volume, and ``ds / d(ln V)`` is the bulk modulus. Samples of one chemical formula and number of atoms form a group;
    groups with at least 5 samples whose volumes spread by more than 1 % count. Phases of one composition, slabs with
    more or less vacuum and crystals stretched beyond their ideal strength break the rule a little, so an error needs all
    of: Spearman's rank correlation below -0.5 on the whole, two standard errors from none (its variance without
    correlation is 1/(n-1)), a slope of at least the smallest bulk modulus, and a slope of more than three times the
    median stress (for s ~ 1/V, as with vacuum, the ratio is 1).
    """

    def __init__(self, sign: str, modulus: tuple[float, float] = BULK_MODULUS) -> None:
        self.sign, self.modulus = sign, modulus
        self._groups: dict[bytes, list[tuple[float, float]]] = {}
        self._largest = (0.0, "")

    def add(self, batch: SampleBatch, teacher: str, path: Any, where: Sequence[str]) -> None:
        """Remember the samples that have a stress and are periodic in three directions."""
        if "stress" not in batch.labels.get(teacher, {}):
            return
        stress = batch.labels[teacher]["stress"].astype(np.float64)
        volume = np.abs(np.linalg.det(batch.cell))
        counted = np.flatnonzero(np.isfinite(stress).all(axis=1) & batch.pbc.all(axis=1) & (volume > 0)).tolist()
        for i in counted:
            largest = float(np.abs(stress[i]).max())
            if largest > self._largest[0]:
                self._largest = (largest, f"{path}, {where[i]}")
        keys = [np.bincount(batch.numbers[batch.offsets[i] : batch.offsets[i + 1]]).tobytes() for i in counted]
        self.gather(keys, volume[counted], stress[counted, :3].mean(axis=1))

    def gather(self, keys: Sequence[bytes], volume: Any, mean_stress: Any) -> None:
        """Remember volumes (angstrom^3) and mean stresses (eV/angstrom^3) of samples; equal keys mean equal formulas."""
        for key, v, s in zip(keys, np.log(volume).tolist(), mean_stress.tolist(), strict=True):
            if key in self._groups or len(self._groups) < _MAX_GROUPS:
                points = self._groups.setdefault(key, [])
                if len(points) < _MAX_PER_GROUP:
                    points.append((v, s))

    def finding(self) -> tuple[str, float, str]:
        """Return what is wrong beyond doubt ("sign", "unit", "size" or ""), the bulk modulus found, and the evidence."""
        found = [stats for points in self._groups.values() if (stats := _correlate(points)) is not None]
        low, high = self.modulus
        modulus, evidence = float("nan"), ""
        if found:
            n, rho, slope, typical = np.array(found).T
            weight = n - 1
            overall = float((rho * weight).sum() / weight.sum())
            score = float((rho * weight).sum() / np.sqrt(weight.sum()))
            modulus = float(np.median(slope))
            sure = abs(overall) > 0.5 and abs(score) > 2 - 1e-9
            evidence = (
                f"over {len(found)} compositions ({int(n.sum())} samples) the mean stress changes by {modulus:.3g} "
                "eV/A^3 "
                f"per unit of ln V (rank correlation {overall:.2f}; this is the bulk modulus, {low} to "
                f"{high:g} in solids)"
            )
            steep = np.median(np.abs(slope) / np.maximum(typical, 1e-12)) > 3
            if sure and overall < 0 and modulus < -low and steep:
                return "sign", modulus, evidence
            if sure and overall > 0 and modulus > high:
                return "unit", modulus, evidence
        if float(np.median(np.abs(self._means()) if self._means() else [0])) > MAX_STRESS:
            return "size", modulus, f"more than {MAX_STRESS:g} (480 GPa) in most samples"
        return "", modulus, evidence

    def _means(self) -> list[float]:
        return [s for points in self._groups.values() for _, s in points]

    def verdict(self, wording: Wording) -> list[str]:
        """Return warnings, with the options that they name in the words of an interface.

        Raises
        ------
        DataError
            If the sign or the unit of the stress is wrong beyond doubt.
        """
        wrong, modulus, evidence = self.finding()
        gpa, unchecked = wording.option("units", {"stress": "GPa"}), wording.option("check_stress", False)
        if wrong == "sign":
            other = "compression" if self.sign == "tension" else "tension"
            also = (
                f"; the size is wrong too: pass {gpa} ({-modulus:.3g} GPa would be plausible)"
                if modulus < -self.modulus[1]
                else ""
            )
            raise DataError(
                f"stress: expected a stretched crystal to pull back (tension positive), got the reverse: {evidence}. "
                f"The stress looks like it is {other} positive: pass {wording.option('stress_sign', other)}{also}, or "
                f"{unchecked} if it is right"
            )
        if wrong == "unit":
            raise DataError(
                f"stress: expected eV/A^3, got a crystal too stiff: {evidence}. It looks like another unit: pass "
                f"{gpa} ({modulus:.3g} GPa would be plausible), or {unchecked} if it is right"
            )
        if wrong == "size":
            raise DataError(
                f"stress: expected eV/A^3, got {evidence}; pass {gpa} (or kbar) if that is its unit, or {unchecked} "
                "if it is "
                "right"
            )
        if self._largest[0] > MAX_STRESS:
            return [
                f"{self._largest[1]}: a stress of {self._largest[0]:.3g} eV/A^3 is larger than {MAX_STRESS:g} (480 GPa)"
            ]
        if len(self._means()) >= 5 and not np.any(self._means()):
            return ["every stress is exactly zero: the program that wrote the files may not have computed it"]
        return []


def _correlate(points: list[tuple[float, float]]) -> tuple[float, float, float, float] | None:
    """Return the number of samples, rank correlation, slope and median |stress| of a group, or None if it says nothing."""
    log_volume, stress = np.array(points).T
    if len(points) < 5 or np.ptp(log_volume) < 0.01 or np.ptp(stress) == 0:
        return None
    rho = float(np.corrcoef(_ranks(log_volume), _ranks(stress))[0, 1])
    slope = float(np.polyfit(log_volume - log_volume.mean(), stress, 1)[0])
    return float(len(points)), rho, slope, float(np.median(np.abs(stress)))


def _ranks(values: Any) -> Any:
    """Return ranks from 1; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def remarks(batch: SampleBatch, teacher: str, path: Any, where: Sequence[str]) -> list[str]:
    """Return remarks on labels of an unlikely size: one each for energies and forces, naming the worst sample."""
    labels, out = batch.labels.get(teacher, {}), []
    if "energy" in labels:
        energy = np.nan_to_num(np.abs(labels["energy"] / batch.n_atoms))
        if len(energy) and energy.max() > _MAX_ENERGY:
            worst = int(energy.argmax())
            out.append(f"{path}, {where[worst]}: an energy of {energy[worst]:.3g} eV an atom; is it in eV?")
    if "forces" in labels:
        force = reduce_rows(np.maximum, np.nan_to_num(np.linalg.norm(labels["forces"], axis=1)), batch.offsets)
        if force.max() > _MAX_FORCE:
            worst = int(force.argmax())
            out.append(f"{path}, {where[worst]}: a force of {force[worst]:.3g} eV/A; is it in eV/A?")
    return out
