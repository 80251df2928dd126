"""MMFF94 for sampling only: its bonds cannot break, so a molecule stays the molecule it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.units import kcal, mol

from mlffstore.contracts.protocols import TeacherLabels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

    from mlffstore.data.batch import SampleBatch
    from mlffstore_generators.seeds.base import Seed


def force_field(molecule: Any, properties: Any) -> Any:
    """Return RDKit's MMFF94 of one molecule or of several together, without a cutoff.

    A sum that is cut is not differentiable where an atom crosses the cutoff.
    """
    from rdkit.Chem import rdForceFieldHelpers

    field = rdForceFieldHelpers.MMFFGetMoleculeForceField(
        molecule, properties, nonBondedThresh=1e6, ignoreInterfragInteractions=False
    )
    field.Initialize()
    return field


class MMFFForces:
    """A follower of many molecules: energy (eV) and forces (eV/angstrom) of MMFF94; see `Follower`."""

    def __init__(self) -> None:
        self._fields: dict[int, Any] = {}
        self._reasons: dict[int, str] = {}

    def add(self, key: int, seed: Seed) -> None:
        """Let a seed be known by a key."""
        from rdkit.Chem import rdForceFieldHelpers

        if seed.molecule is None:
            self._reasons[key] = "mmff94 knows molecules with bonds only"
            return
        properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(seed.molecule)
        if properties is None:
            self._reasons[key] = "no MMFF94 parameters"
            return
        self._fields[key] = force_field(seed.molecule, properties)

    def label(self, batch: SampleBatch, keys: Sequence[int]) -> TeacherLabels:
        """Return energies and forces; `keys` says which seed each sample is of."""
        energy, ok = np.full(len(batch), np.nan), np.zeros(len(batch), bool)
        forces = np.full(batch.positions.shape, np.nan)
        for i, key in enumerate(keys):
            field = self._fields.get(key)
            if field is None:
                continue
            atoms = slice(batch.offsets[i], batch.offsets[i + 1])
            flat = batch.positions[atoms].ravel().tolist()
            energy[i] = field.CalcEnergy(flat) * (kcal / mol)
            forces[atoms] = -np.array(field.CalcGrad(flat)).reshape(-1, 3) * (kcal / mol)
            ok[i] = True
        return TeacherLabels(energy, forces, None, ok, tuple(self._reasons.get(key, "") for key in keys))


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
        super().__init__()
        self._field = force_field(molecule, properties)

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
