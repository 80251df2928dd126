"""MMFF94 as an ASE calculator, for sampling only: its bonds cannot break, so a molecule stays the molecule it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.units import kcal, mol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms


class MMFF(Calculator):  # type: ignore[misc]  # ASE has no types
    """Energy (eV) and forces (eV/angstrom) of RDKit's MMFF94 for one molecule.

    Parameters
    ----------
    molecule : rdkit.Chem.Mol
        The molecule, with explicit hydrogens and a conformer.
    properties : rdkit MMFFMolProperties
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(self, molecule: Any, properties: Any) -> None:
        from rdkit.Chem import rdForceFieldHelpers

        super().__init__()
        # Without a cutoff: a sum that is cut is not differentiable where an atom crosses it.
        self._field = rdForceFieldHelpers.MMFFGetMoleculeForceField(
            molecule, properties, nonBondedThresh=1e6, ignoreInterfragInteractions=False
        )
        self._field.Initialize()

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """Return what has changed: only positions matter to a molecule. ASE's own comparison costs more than MMFF94."""
        same = self.atoms is not None and np.array_equal(self.atoms.positions, atoms.positions)
        return [] if same else ["positions"]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute energy and forces."""
        super().calculate(atoms, properties, system_changes)
        flat = self.atoms.positions.ravel().tolist()
        scale = kcal / mol
        self.results["energy"] = self._field.CalcEnergy(flat) * scale
        self.results["forces"] = -np.array(self._field.CalcGrad(flat)).reshape(-1, 3) * scale
