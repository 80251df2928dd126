"""Presets: the keys, units and signs of a convention under one name. Detection proposes one; only the caller chooses it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlffstore.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mlffstore.importing.wording import Wording


@dataclass(frozen=True, slots=True)
class Preset:
    """A convention.

    Attributes
    ----------
    about : str
        Whose it is, and where it is written down.
    keys : mapping of str to tuple of str
        Label -> names that hold it, of which the first that a sample has counts. Charge and multiplicity are read under the
        names in use in any case.
    units : mapping of str to str
        Units other than those of the store.
    stress_sign : {"tension", "compression"}
        What a positive normal stress means. A virial is -stress times volume in all of these conventions.
    spin : {"multiplicity", "unpaired"}
        What a value under a name with "spin" means.
    marks : tuple of str
        Names that only files of this convention have: if one is there, the preset is proposed.
    """

    about: str
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    stress_sign: str = "tension"
    spin: str = "multiplicity"
    marks: tuple[str, ...] = ()


PRESETS: dict[str, Preset] = {
    "mace": Preset(
        "MACE: mace/tools/default_keys.py",
        {"energy": ("REF_energy",), "forces": ("REF_forces",), "stress": ("REF_stress",),
         "charges": ("REF_charges",)},
        marks=("REF_energy", "REF_forces", "REF_stress"),
    ),
    "nequip": Preset(
        "NequIP and Allegro: ASE's results, or total_energy in older files",
        {"energy": ("total_energy", "energy"), "forces": ("forces", "force"), "stress": ("stress",)},
        marks=("total_energy",),
    ),
    "gap": Preset(
        "GAP and QUIP: gap_fit's energy_parameter_name, force_parameter_name and virial_parameter_name",
        {"energy": ("dft_energy", "energy"), "forces": ("dft_force", "dft_forces", "force", "forces"),
         "virial": ("dft_virial", "virial")},
        marks=("dft_energy", "dft_force", "dft_virial", "virial"),
    ),
    "castep": Preset(
        "CASTEP results in extended XYZ, as libAtoms' workflow writes them",
        {"energy": ("CASTEP_energy", "castep_energy"), "forces": ("CASTEP_forces", "castep_forces"),
         "stress": ("CASTEP_stress", "castep_stress")},
        marks=("CASTEP_energy", "CASTEP_forces", "castep_energy", "castep_forces"),
    ),
    "fairchem": Preset(
        "fairchem (OMol25, OMat24, OC20): ASE's results; charge and spin, which is 2S+1, in the data of a row",
        {"energy": ("energy",), "forces": ("forces",), "stress": ("stress",)},
    ),
    "mattersim": Preset(
        "MatterSim: ASE's results, stress in eV/angstrom^3",
        {"energy": ("energy",), "forces": ("forces",), "stress": ("stress",)},
    ),
}  # fmt: skip


def find_preset(name: str | None, wording: Wording) -> Preset | None:
    """Return a preset by its name.

    Raises
    ------
    DataError
        If there is none of this name.
    """
    if name is None:
        return None
    if name not in PRESETS:
        raise DataError(f"{wording.name('preset')}: expected one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]


def propose(names: Collection[str]) -> str | None:
    """Return the preset whose marks are among the names of the keys of a file, None if there is none.

    Examples
    --------
    >>> propose({"REF_energy", "REF_forces"}), propose({"dft_energy"}), propose({"energy"})
    ('mace', 'gap', None)
    """
    counts = {name: len(set(preset.marks) & set(names)) for name, preset in PRESETS.items()}
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] else None
