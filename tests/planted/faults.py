"""The table of planted faults: what each is called, which checks name it, and what no check can know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.planted import label_faults as labels
from tests.planted import structure_faults as structures

if TYPE_CHECKING:
    from collections.abc import Callable

ENERGY = ("energy_units",)
FORCES = ("energy_units", "bond_stiffness", "force_units")
STRESS = ("stress_units", "stress_stiffness")
SHUFFLED = ("energy_units", "pair_energies", "force_sums", "energy_alignment", "repeated_warnings")
COPIES = ("leakage", "near_leakage", "ideal_leakage")
ONE_HOST = "all samples are of one crystal, which is in every split already"


@dataclass(frozen=True)
class Fault:
    """A fault: what spoils a dataset, and the checks that name it.

    `unseen` is the reason why data alone may not show it; empty if it should be found on every set that can have it.
    """

    text: str
    spoil: Callable[[Any], Any]
    checks: tuple[str, ...]
    unseen: str = ""

    @property
    def name(self) -> str:
        return self.spoil.__name__


FAULTS = (
    Fault("energies in hartree", labels.energy_in_hartree, ENERGY),
    Fault("energies in rydberg", labels.energy_in_rydberg, ENERGY),
    Fault("energies in kcal/mol", labels.energy_in_kcal, ENERGY),
    Fault("energies in kJ/mol", labels.energy_in_kj, ENERGY),
    Fault("energies in meV", labels.energy_in_mev, ENERGY),
    Fault("energies per atom", labels.energy_per_atom, ("energy_per_atom", *ENERGY)),
    Fault("energies per atom in a fifth of the samples", labels.energy_per_atom_of_a_fifth,
          ("energy_outlier", "pair_energies", "repeated_warnings")),
    Fault("energies of the next sample", labels.energy_of_the_next_sample, SHUFFLED),
    Fault("energies shuffled", labels.energy_shuffled, SHUFFLED),
    Fault("all-electron energies in single precision", labels.energy_in_float32, ("energy_resolution",)),
    Fault("energies to one decimal", labels.energy_of_one_decimal, ("energy_resolution",)),
    Fault("another zero of energy in half of the samples", labels.energy_offset_in_half_of_each_root,
          ("pair_energies", "energy_outlier", *ENERGY),
          "samples farther than 0.5 Å apart hide an offset of 3 eV"),
    Fault("energies of two samples exchanged", labels.energy_of_two_samples_exchanged, ("energy_work", "energy_outlier"),
          "two samples of equal composition without a close third one"),
    Fault("one energy off by 3 eV per atom", labels.energy_of_one_sample_off, ("energy_outlier", "energy_work")),
    Fault("forces in kcal/mol/Å", labels.forces_in_kcal, FORCES),
    Fault("forces in hartree/bohr", labels.forces_in_atomic_units, FORCES),
    Fault("forces in rydberg/bohr", labels.forces_in_rydberg_per_bohr, FORCES),
    Fault("forces in eV/bohr", labels.forces_in_ev_per_bohr, FORCES),
    Fault("forces in meV/Å", labels.forces_in_mev, FORCES),
    Fault("gradients for forces", labels.gradients_for_forces, FORCES),
    Fault("forces permuted within each sample", labels.forces_permuted_in_each_sample, SHUFFLED),
    Fault("forces moved by one atom", labels.forces_moved_by_one_atom, SHUFFLED),
    Fault("forces all zero", labels.forces_all_zero, ("zero_forces",)),
    Fault("forces of a third of the atoms zero (constraints)", labels.forces_zero_where_constrained, ("zero_forces",)),
    Fault("energies in hartree, forces in hartree/bohr", labels.energy_and_forces_in_atomic_units, FORCES),
    Fault("energies and forces in kcal/mol", labels.energy_and_forces_in_kcal, FORCES,
          "crystals without stress whose forces are small: only their size is odd"),
    Fault("stress in GPa", labels.stress_in_gpa, STRESS),
    Fault("stress in kbar", labels.stress_in_kbar, STRESS),
    Fault("stress of the opposite sign", labels.stress_of_the_opposite_sign, STRESS),
    Fault("stress in the order xx yy zz xy xz yz", labels.stress_in_another_voigt_order, ("stress_shear",)),
    Fault("positions in bohr, cell in Å", structures.positions_in_bohr, ("length_units", "close_atoms")),
    Fault("positions and cell in bohr", structures.lengths_in_bohr, ("length_units",)),
    Fault("numbers permuted in each sample", structures.numbers_permuted_in_each_sample,
          ("odd_bonds", "unbound_atoms", "touching_atoms"), "alloys: any order of the metals is possible"),
    Fault("numbers permuted in one sample", structures.numbers_permuted_in_one_sample,
          ("odd_bonds", "unbound_atoms", "few_hydrogens"), "alloys: any order of the metals is possible"),
    Fault("two elements exchanged everywhere", structures.species_exchanged,
          ("odd_bonds", "bond_stiffness"), "alloys: the other alloy is possible too"),
    Fault("molecules cut by the walls of a box", structures.molecules_cut_by_the_boundary, ("unbound_atoms",)),
    Fault("two hydrogens of each molecule lost", structures.hydrogens_lost_in_pairs, ("few_hydrogens",)),
    Fault("all hydrogens lost", structures.hydrogens_lost, ("hydrogen_free", "missing_hydrogens")),
    Fault("two atoms 0.3 Å apart", structures.atoms_overlap, ("close_atoms",)),
    Fault("two lattice vectors exchanged", structures.cell_left_handed, ("cell_left_handed",)),
    Fault("a coordinate that is NaN", structures.position_missing, ("not_finite",)),
    Fault("charge off by two", structures.charge_off_by_two, ("teacher_energy",), "the labels are those of another charge"),
    Fault("multiplicity off by one", structures.wrong_multiplicity, ("electron_parity",)),
    Fault("triplets for singlets", structures.triplet_for_singlet, ("teacher_energy",), "triplets are possible"),
    Fault("copies in another split", structures.copy_in_another_split, COPIES),
    Fault("supercells in another split", structures.supercell_in_another_split, COPIES),
    Fault("copies with other lattice vectors in another split", structures.other_lattice_vectors_in_another_split, COPIES),
    Fault("turned copies, atoms in another order, in another split", structures.turned_in_another_split, COPIES),
    Fault("mirror images in another split", structures.mirrored_in_another_split, COPIES),
    Fault("shifted copies in another split", structures.shifted_in_another_split, COPIES),
    Fault("crystals with a vacancy in another split", structures.defect_in_another_split, ("host_leakage",), ONE_HOST),
    Fault("slabs of crystals in another split", structures.slab_in_another_split, ("host_leakage",), ONE_HOST),
)  # fmt: skip


def found(validation, clean):
    """Return the checks that fail and did not on the clean data: name -> "error" or "warning"."""
    before = _failing(clean)
    return {name: how for name, how in _failing(validation).items() if before.get(name) != how}


def _failing(validation):
    out = {}
    for finding in validation.findings:
        out[finding.check] = (finding.severity, finding.n_samples)
    for line in validation.acceptance:
        if not line.passed:
            out[line.quantity] = ("error", 0)
    for problem in validation.problems:
        out[problem.check] = (problem.severity, 0)
    return out
