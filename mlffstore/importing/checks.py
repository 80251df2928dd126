"""Physics that betrays a bad conversion while it can still be stopped: stress of the wrong sign or unit, lost hydrogens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.errors import DataError
from mlffstore.ragged import reduce_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

    from mlffstore.batch import SampleBatch

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

    def __init__(self, sign: str) -> None:
        self.sign = sign
        self._groups: dict[bytes, list[tuple[float, float]]] = {}
        self._largest = (0.0, "")

    def add(self, batch: SampleBatch, teacher: str, path: Any, where: Sequence[str]) -> None:
        """Remember the samples that have a stress and are periodic in three directions."""
        if "stress" not in batch.labels.get(teacher, {}):
            return
        stress = batch.labels[teacher]["stress"].astype(np.float64)
        counted = np.isfinite(stress).all(axis=1) & batch.pbc.all(axis=1)
        mean = stress[:, :3].mean(axis=1)
        volume = np.abs(np.linalg.det(batch.cell))
        for i in np.flatnonzero(counted & (volume > 0)).tolist():
            largest = float(np.abs(stress[i]).max())
            if largest > self._largest[0]:
                self._largest = (largest, f"{path}, {where[i]}")
            group = np.bincount(batch.numbers[batch.offsets[i] : batch.offsets[i + 1]]).tobytes()
            if group in self._groups or len(self._groups) < _MAX_GROUPS:
                points = self._groups.setdefault(group, [])
                if len(points) < _MAX_PER_GROUP:
                    points.append((float(np.log(volume[i])), float(mean[i])))

    def verdict(self) -> list[str]:
        """Return warnings.

        Raises
        ------
        DataError
            If the sign or the unit of the stress is wrong beyond doubt.
        """
        found = [stats for points in self._groups.values() if (stats := _correlate(points)) is not None]
        if found:
            n, rho, slope, typical = np.array(found).T
            weight = n - 1
            overall = float((rho * weight).sum() / weight.sum())
            score = float((rho * weight).sum() / np.sqrt(weight.sum()))
            modulus = float(np.median(slope))
            sure = abs(overall) > 0.5 and abs(score) > 2 - 1e-9
            evidence = (
                f"over {len(found)} compositions ({int(n.sum())} samples) the mean stress changes by {modulus:.3g} eV/A^3 "
                f"per unit of ln V (rank correlation {overall:.2f}; this is the bulk modulus, {BULK_MODULUS[0]} to "
                f"{BULK_MODULUS[1]:g} in solids). "
            )
            steep = np.median(np.abs(slope) / np.maximum(typical, 1e-12)) > 3
            unit = f"units={{'stress': 'GPa'}} ({modulus:.3g} GPa would be plausible)"
            if sure and overall < 0 and modulus < -BULK_MODULUS[0] and steep:
                other = "compression" if self.sign == "tension" else "tension"
                also = f"; the size is wrong too: pass {unit.replace('-', '')}" if modulus < -BULK_MODULUS[1] else ""
                raise DataError(
                    f"stress: expected a stretched crystal to pull back (tension positive), got the reverse: {evidence}"
                    f"The stress looks like it is {other} positive: pass stress_sign={other!r}{also}, or "
                    "check_stress=False if it is right"
                )
            if sure and overall > 0 and modulus > BULK_MODULUS[1]:
                raise DataError(
                    f"stress: expected eV/A^3, got a crystal too stiff: {evidence}It looks like another unit: pass "
                    f"{unit}, or check_stress=False if it is right"
                )
        means = [s for points in self._groups.values() for _, s in points]
        if means and float(np.median(np.abs(means))) > MAX_STRESS:
            raise DataError(
                f"stress: expected eV/A^3, got more than {MAX_STRESS:g} (480 GPa) in most samples; pass "
                "units={'stress': 'GPa'} (or 'kbar') if that is their unit, or check_stress=False if it is right"
            )
        if self._largest[0] > MAX_STRESS:
            return [
                f"{self._largest[1]}: a stress of {self._largest[0]:.3g} eV/A^3 is larger than {MAX_STRESS:g} (480 GPa)"
            ]
        if len(means) >= 5 and not np.any(means):
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


def lacks_hydrogen(atoms: Atoms) -> bool:
    """Whether a molecule looks as if its hydrogens had been lost.

    Only for samples that are periodic nowhere, have carbon and no hydrogen. A carbon is bare when both hold:

    - its neighbours leave a place free: none; one, unless it is a multiple bond to N, O or S (CO, cyanide, CS); two
      that are not in line; three that are not in one plane with it (angles adding up to less than 342 degrees: 360 in a
      plane, 348 in C60, 328 in a tetrahedron);
    - its bonds do not add up: Pauling's bond orders ``exp((r_single - d) / 0.3)`` (J. Am. Chem. Soc. 69, 542 (1947); the
      single bond is the sum of Cordero's covalent radii, which ASE has) sum to less than 3.8. A full carbon has 4 to 5,
      a stripped aromatic one 3.3, a stripped aliphatic one 1 to 3.

    The sample lacks hydrogen when a sixth of its carbons are bare (a third where everything is carbon, as in fullerenes,
    whose curved faces come closest), so that one stretched bond does not condemn a large molecule. CO2, CS2, CCl4, C2F6
    and C60 pass. So do CH4, HCN and H2CO without hydrogen, which are then a carbon atom, cyanide and CO. Carbon
    clusters, carbenes and other species with free valences do not pass.
    """
    import vesin
    from ase.data import covalent_radii

    numbers = atoms.numbers
    carbons = np.flatnonzero(numbers == 6)
    if atoms.pbc.any() or len(atoms) < 2 or not len(carbons) or (numbers == 1).any():
        return False
    radii = covalent_radii[numbers]
    cutoff = 1.25 * float(covalent_radii[6] + radii.max())  # bonds stretched by a quarter still count
    first, second, distance, vector = vesin.NeighborList(cutoff=cutoff, full_list=True).compute(
        points=atoms.positions, box=np.zeros((3, 3)), periodic=False, quantities="ijdD"
    )
    single = radii[first] + radii[second]
    bonded = (distance < 1.25 * single) & (numbers[first] == 6)
    first, second, distance, vector = first[bonded], second[bonded], distance[bonded], vector[bonded]
    order = np.exp((single[bonded] - distance) / 0.3)
    bare = sum(_bare(vector[first == c], order[first == c], numbers[second[first == c]]) for c in carbons)
    share = 3 if len(carbons) == len(atoms) else 6
    return bool(share * bare >= len(carbons))


def _bare(vectors: Any, orders: Any, neighbours: Any) -> bool:
    n = len(vectors)
    if n > 3 or orders.sum() > 3.8:
        return False
    if n < 2:
        return n == 0 or not (orders[0] > 1.4 and neighbours[0] in (7, 8, 16))
    unit = vectors / np.linalg.norm(vectors, axis=1)[:, None]
    cosines = (unit @ unit.T)[np.triu_indices(n, 1)]
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1))).sum()
    return bool(angles < (150 if n == 2 else 342))
