"""Physics that betrays a bad conversion while it can still be stopped: stress of the wrong sign or unit, lost hydrogens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.limits import MAX_STRESS
from mlffstore.data.ragged import reduce_rows
from mlffstore.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.stress import StressCheck
    from mlffstore.importing.wording import Wording

#: eV/angstrom and eV per atom beyond which a label is remarked on: no bond is so strong, no atom so deep
#: (all-electron uranium is -7.6e5 eV).
_MAX_FORCE, _MAX_ENERGY = 1e3, 1e6


def stress_warnings(check: StressCheck, sign: str, wording: Wording) -> list[str]:
    """Return warnings about the stresses of an import, with the options that they name in the words of an interface.

    Parameters
    ----------
    check : StressCheck
        The stresses, as they would be stored.
    sign : {"tension", "compression"}
        The option `stress_sign` of the import.
    wording : Wording

    Raises
    ------
    DataError
        If the sign or the unit of the stress is wrong beyond doubt.
    """
    finding = check.finding()
    modulus, evidence = finding.modulus, finding.evidence
    gpa, unchecked = wording.option("units", {"stress": "GPa"}), wording.option("check_stress", False)
    if finding.fault == "sign":
        other = "compression" if sign == "tension" else "tension"
        also = (
            f"; the size is wrong too: pass {gpa} ({-modulus:.3g} GPa would be plausible)"
            if modulus < -check.modulus[1]
            else ""
        )
        raise DataError(
            f"stress: expected a stretched crystal to pull back (tension positive), got the reverse: {evidence}. "
            f"The stress looks like it is {other} positive: pass {wording.option('stress_sign', other)}{also}, or "
            f"{unchecked} if it is right"
        )
    if finding.fault == "unit":
        raise DataError(
            f"stress: expected eV/A^3, got a crystal too stiff: {evidence}. It looks like another unit: pass "
            f"{gpa} ({modulus:.3g} GPa would be plausible), or {unchecked} if it is right"
        )
    if finding.fault == "size":
        raise DataError(
            f"stress: expected eV/A^3, got {evidence}; pass {gpa} (or kbar) if that is its unit, or {unchecked} if it is "
            "right"
        )
    largest, place = check.largest
    if largest > MAX_STRESS:
        return [f"{place}: a stress of {largest:.3g} eV/A^3 is larger than {MAX_STRESS:g} (480 GPa)"]
    if len(check.mean_stresses()) >= 5 and not np.any(check.mean_stresses()):
        return ["every stress is exactly zero: the program that wrote the files may not have computed it"]
    return []


def remarks(batch: SampleBatch, teacher: str, path: Any, where: Sequence[str]) -> list[str]:
    """Return remarks on labels of an unlikely size: one each for energies and forces, naming the worst sample."""
    labels, out = batch.labels.get(teacher, {}), []
    if "energy" in labels:
        energy = np.nan_to_num(np.abs(labels["energy"] / batch.n_atoms))
        if len(energy) and energy.max() > _MAX_ENERGY:
            worst = int(energy.argmax())
            out.append(f"{path}, {where[worst]}: an energy of {energy[worst]:.3g} eV per atom; is it in eV?")
    if "forces" in labels:
        force = reduce_rows(np.maximum, np.nan_to_num(np.linalg.norm(labels["forces"], axis=1)), batch.offsets)
        if force.max() > _MAX_FORCE:
            worst = int(force.argmax())
            out.append(f"{path}, {where[worst]}: a force of {force[worst]:.3g} eV/A; is it in eV/A?")
    return out
