"""Names that readers take for something of their own: a column of such a name is left out, and a warning names it.

The unit of a user column is not in the files of ASE or MACE, and a reader that knows the name has a unit of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data import electrons
from mlffstore.data.ase import IN_RESULTS
from mlffstore.data.blanks import without_values
from mlffstore.data.properties import known_properties
from mlffstore.data.schema import label_key

if TYPE_CHECKING:
    from collections.abc import Collection

    from ase import Atoms

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Axis

#: What `ase.io` makes results of a calculator (`ase.calculators.calculator.all_properties`).
_RESULTS = frozenset(
    (
        "energy", "forces", "stress", "stresses", "dipole", "charges", "magmom", "magmoms", "free_energy", "energies",
        "dielectric_tensor", "born_effective_charges", "polarization",
    )
)  # fmt: skip
#: Arrays of the atoms to which ASE gives a meaning and a unit.
_ARRAYS = frozenset(("initial_charges", "initial_magmoms", "masses", "momenta", "tags"))


def of_electrons(name: str) -> str:
    """Return the reason why no column may have a name under which readers look for charge or spin, or nothing."""
    role = electrons.role(name)
    what = "number of unpaired electrons" if role == "unpaired" else role
    return "" if what is None else f"readers take it for the {what} of the sample; rename it"


def of_labels(name: str) -> str:
    """Return the reason why no user column may have a name that readers take for charge, spin or a label, or nothing."""
    if name in known_properties():
        return "readers take it for a label, in another unit; rename it"
    return of_electrons(name)


def ase_frames(batch: SampleBatch, teacher: str, left_out: dict[str, str], reserved: Collection[str]) -> list[Atoms]:
    """Return a batch as ASE frames without the columns that a reader of them takes for something else.

    Parameters
    ----------
    batch : SampleBatch
    teacher : str
        Teacher whose labels are written.
    left_out : dict of str to str
        The columns that are left out are added, name -> reason.
    reserved : collection of str
        Names that have a meaning in the format of the file.
    """
    labels = {name: batch.property_of(name).axis for name in batch.labels.get(teacher, {}) if name not in IN_RESULTS}
    out = {name: _of_ase(name, column.axis, reserved) or of_labels(name) for name, column in batch.user.items()}
    out |= {
        name: "ASE takes it for a result, in a unit of its own; rename it" for name in batch.user if name in _RESULTS
    }
    out |= {name: _of_ase(name, axis, reserved) or of_electrons(name) for name, axis in labels.items()}
    taken = {name: reason for name, reason in out.items() if reason}
    left_out |= taken
    keys = [name if name in batch.user else label_key(name, teacher) for name in taken]
    rest = without_values(batch, keys, np.arange(len(batch))) if keys else batch
    return rest.to_ase(teacher if teacher in rest.labels else None)


def _of_ase(name: str, axis: Axis, reserved: Collection[str]) -> str:
    if name in reserved:
        return "the format gives this name a meaning of its own"
    is_label = name in IN_RESULTS.values() and name not in IN_RESULTS
    if is_label or (axis == "atom" and name in _ARRAYS):
        return "ASE gives this name a meaning and a unit of its own; rename it"
    return ""
