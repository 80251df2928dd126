"""The mean stress of crystals against their volume: whether stresses are tension positive and in eV/angstrom^3.

This module interprets the numbers. The message to the user is up to the caller: an import names its own
options, a validation its own checks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlffstore.data.limits import MAX_STRESS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array

#: Bulk moduli of solids, eV/angstrom^3: from solid noble gases (about 1 GPa) to diamond (443 GPa), with a wide margin.
BULK_MODULUS = (0.001, 10.0)
#: Groups, and samples per group, that are remembered of a data set; more would not change the verdict.
_MAX_GROUPS, _MAX_PER_GROUP = 2000, 64


@dataclass(frozen=True, slots=True)
class StressFinding:
    """Evidence of the convention of the stresses of a data set.

    Attributes
    ----------
    fault : {"sign", "unit", "size", "doubt", ""}
        What is wrong beyond doubt: the sign, the unit by the stiffness, the unit by the size alone, or nothing. "doubt" if
        the stresses fall as the volume grows, but too little to tell.
    modulus : float
        Bulk modulus that follows from the stresses as they are, eV/angstrom^3; NaN if too few crystals were strained.
    evidence : str
        The figures behind the finding, as a part of a sentence.
    """

    fault: Literal["sign", "unit", "size", "doubt", ""]
    modulus: float
    evidence: str


class StressCheck:
    """Gathers volumes and mean stresses and tells whether they can be tension positive eV/angstrom^3.

    A crystal that is stretched pulls back: with tension positive the mean stress s = tr(stress)/3 rises with the
    volume, and ``ds / d(ln V)`` is the bulk modulus. Samples of one chemical formula and number of atoms form a group;
    groups with at least 5 samples whose volumes spread by more than 1 % count. Phases of one composition, slabs with
    more or less vacuum and crystals stretched beyond their ideal strength break the rule a little, so an error needs all
    of: Spearman's rank correlation below -0.5 on the whole, two standard errors from none (its variance without
    correlation is 1/(n-1)), a slope of at least the smallest bulk modulus, and a slope of more than three times the
    median stress (for s ~ 1/V, as with vacuum, the ratio is 1).

    Parameters
    ----------
    modulus : (float, float), optional
        Smallest and largest bulk modulus that counts, eV/angstrom^3.
    """

    def __init__(self, modulus: tuple[float, float] = BULK_MODULUS) -> None:
        self.modulus = modulus
        self._groups: dict[bytes, list[tuple[float, float]]] = {}
        #: Largest component of a stress, eV/angstrom^3, and the place of its sample; only `add` notes it.
        self.largest = (0.0, "")

    def add(self, batch: SampleBatch, teacher: str, path: Any, where: Sequence[str]) -> None:
        """Remember the samples that have a stress and are periodic in three directions.

        Parameters
        ----------
        batch : SampleBatch
        teacher : str
            The teacher whose stresses count.
        path : path
            The file of the samples, for messages.
        where : sequence of str
            The place of each sample in the file, for messages.
        """
        if "stress" not in batch.labels.get(teacher, {}):
            return
        stress = batch.labels[teacher]["stress"].astype(np.float64)
        volume = np.abs(np.linalg.det(batch.cell))
        counted = np.flatnonzero(np.isfinite(stress).all(axis=1) & batch.pbc.all(axis=1) & (volume > 0)).tolist()
        for i in counted:
            largest = float(np.abs(stress[i]).max())
            if largest > self.largest[0]:
                self.largest = (largest, f"{path}, {where[i]}")
        keys = [np.bincount(batch.numbers[batch.offsets[i] : batch.offsets[i + 1]]).tobytes() for i in counted]
        self.gather(keys, volume[counted], stress[counted, :3].mean(axis=1))

    def gather(self, keys: Sequence[bytes], volume: Array, mean_stress: Array) -> None:
        """Remember volumes and mean stresses of S samples.

        Parameters
        ----------
        keys : sequence of bytes, length S
            Equal keys mean equal chemical formulas.
        volume : ndarray, shape (S,)
            Volumes of the cells, angstrom^3.
        mean_stress : ndarray, shape (S,)
            A third of the trace of the stress, eV/angstrom^3.
        """
        for key, v, s in zip(keys, np.log(volume).tolist(), mean_stress.tolist(), strict=True):
            if key in self._groups or len(self._groups) < _MAX_GROUPS:
                points = self._groups.setdefault(key, [])
                if len(points) < _MAX_PER_GROUP:
                    points.append((v, s))

    def finding(self) -> StressFinding:
        """Return what is wrong beyond doubt, with the bulk modulus and the evidence."""
        groups = [figures for points in self._groups.values() if (figures := _correlate(points)) is not None]
        low, high = self.modulus
        modulus, evidence = float("nan"), ""
        if groups:
            n, rho, slope, typical = np.array(groups).T
            weight = n - 1
            overall = float((rho * weight).sum() / weight.sum())
            score = float((rho * weight).sum() / np.sqrt(weight.sum()))
            modulus = float(np.median(slope))
            sure = abs(overall) > 0.5 and abs(score) > 2 - 1e-9
            evidence = (
                f"over {len(groups)} compositions ({int(n.sum())} samples) the mean stress changes by {modulus:.3g} eV/A^3 "
                f"per unit of ln V (rank correlation {overall:.2f}; this is the bulk modulus, {low} to {high:g} in solids)"
            )
            steep = np.median(np.abs(slope) / np.maximum(typical, 1e-12)) > 3
            if sure and overall < 0 and modulus < -low:
                return StressFinding("sign" if steep else "doubt", modulus, evidence)
            if sure and overall > 0 and modulus > high:
                return StressFinding("unit", modulus, evidence)
        if float(np.median(np.abs(self.mean_stresses()) if self.mean_stresses() else [0])) > MAX_STRESS:
            return StressFinding("size", modulus, f"more than {MAX_STRESS:g} (480 GPa) in most samples")
        return StressFinding("", modulus, evidence)

    def mean_stresses(self) -> list[float]:
        """Return the mean stresses that are remembered, eV/angstrom^3."""
        return [stress for points in self._groups.values() for _, stress in points]


def _correlate(points: list[tuple[float, float]]) -> tuple[float, float, float, float] | None:
    """Return number of samples, rank correlation, slope and median |stress| of a group, or None for too little data."""
    from scipy.stats import spearmanr

    log_volume, stress = np.array(points).T
    if len(points) < 5 or np.ptp(log_volume) < 0.01 or np.ptp(stress) == 0:
        return None
    rho = float(spearmanr(log_volume, stress).statistic)
    slope = float(np.polyfit(log_volume - log_volume.mean(), stress, 1)[0])
    return float(len(points)), rho, slope, float(np.median(np.abs(stress)))
