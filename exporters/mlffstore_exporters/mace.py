"""MACE's HDF5 layout, as its `run_train` reads it: a folder of files for each split, and statistics.json."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_numbers
from ase.units import Debye

from mlffstore.data.labels import choose_teacher
from mlffstore.data.masks import user_rows, without_mask
from mlffstore.data.schema import CODED, LABELS
from mlffstore.errors import DataError
from mlffstore.release.selection import select
from mlffstore.runtime.documents import json_text
from mlffstore.runtime.paths import local_path
from mlffstore.store.presence import present
from mlffstore_exporters.folder import new_folder, other_labels, parts, tell_left_out
from mlffstore_exporters.meanings import of_electrons, of_labels

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import h5py

    from mlffstore.analysis.statistics import Statistics
    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array, Column
    from mlffstore.store.samples import Samples

logger = logging.getLogger(__name__)

#: Cutoffs, angstrom, of which the statistics count neighbours.
_CUTOFFS = (4.0, 5.0, 6.0)
#: The user column of strings that MACE has a place for.
_CONFIG_TYPE = "config_type"
#: The user column of numbers with which MACE weights a configuration; 1 where it is missing.
_WEIGHT = "weight"
_OWN_MEANING = "MACE gives this name a meaning of its own"
#: What MACE's reader takes for a value that is not there.
_MISSING = "None"
#: Labels beside energy, forces and stress that MACE trains on.
_WEIGHED = ("dipole", "charges")
#: Properties that MACE reads, in units that it chooses.
_MEANT_BY_MACE = frozenset(
    (
        "virials", "dipole", "charges", "polarizability", "magmom", "magforces", "elec_temp", "head",
        "total_charge", "total_spin",
    )
)  # fmt: skip


def export_mace(
    snapshot: Samples,
    path: str | os.PathLike[str],
    *,
    teacher: str | None = None,
    r_max: float = 5.0,
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Write the samples that a teacher labelled for ``mace_run_train --train_file=PATH/train --valid_file=PATH/val``.

    Parameters
    ----------
    snapshot : Samples
    path : path
        A new folder with train/, val/, test/ and ``statistics.json`` (``--statistics_file``).
    teacher : str, optional
        Teacher whose labels are used. It is required if there are several.
    r_max : {4, 5, 6}, optional
        Cutoff of the average number of neighbours in the statistics, angstrom.
    progress : callable, optional
        It is called with the number of samples written so far and the number of all samples.

    Returns
    -------
    Path

    Notes
    -----
    Each file has one ``config_batch_0``: MACE takes all batches of a file to be of one size. A label that a sample lacks
    is "None" with the weight 0. Stress is in ASE's order, sign and unit, which MACE shares. ``properties/total_charge`` is
    in e, ``properties/total_spin`` is the multiplicity 2S+1, as MACE's default of 1 implies. User columns are in
    ``properties`` too, one of strings named `config_type` is the type of the configurations, and one of numbers named
    `weight` their weight; roots, sources and samplers
    in the attributes of each file. A user column with a name that readers take for a label, the charge or the spin
    (`dipole`, `charges`, `spin`, ...) is left out, and a warning is logged: its unit could be another.
    Where the teacher gave no energies, those of the elements in ``statistics.json`` are 0, and a warning says so.
    """
    import h5py

    from mlffstore.analysis.statistics import statistics

    if r_max not in _CUTOFFS:
        raise DataError(f"r_max: expected one of {', '.join(f'{c:g}' for c in _CUTOFFS)} angstrom, got {r_max!r}")
    teacher_name, target = choose_teacher(snapshot.teachers, teacher), local_path(path)
    chosen = select(snapshot, (teacher_name,))
    exported = snapshot.to_xarray().mlff.isel(np.concatenate(list(chosen.values())))
    document = _statistics(statistics(exported), teacher_name, r_max)
    unfit = {name: _unfit(name, column) for name, column in snapshot.user_columns.items()}
    columns = {name: column for name, column in snapshot.user_columns.items() if not unfit[name]}
    with new_folder(target) as folder:
        for split, number, batch in parts(snapshot, chosen, teacher_name, progress):
            (folder / split).mkdir(exist_ok=True)
            with h5py.File(folder / split / f"{split}_{number}.h5", "w") as file:
                _write(file, batch, teacher_name, columns)
        (folder / "statistics.json").write_text(json_text(document))
    left_out = {name: _taken(name) for name in other_labels(snapshot, teacher_name, "") if name not in _WEIGHED} | unfit
    tell_left_out("mace", {name: reason for name, reason in left_out.items() if reason})
    return target


def _taken(name: str) -> str:
    """Return why no label but those with a weight may have a name, or nothing."""
    return _OWN_MEANING if name in _MEANT_BY_MACE else of_electrons(name)


def _unfit(name: str, column: Column) -> str:
    """Return why the layout has no place for a user column, or nothing."""
    if name == _WEIGHT:
        return "" if column.axis == "sample" and not column.shape and not column.coded else _OWN_MEANING
    if name == _CONFIG_TYPE:
        return "" if column.coded and column.axis == "sample" else "MACE reads one string for each sample"
    return _taken(name) or of_labels(name) or ("MACE reads numbers" if column.coded else "")


def _statistics(gathered: Statistics, teacher: str, r_max: float) -> dict[str, Any]:
    """Return the content of MACE's statistics file.

    Without energies in the split train, the energies of the elements are 0: MACE asks for numbers, and adds them to
    energies that it does not train on. Elements of samples without an energy get the mean energy per atom, since MACE
    takes no other elements than those that are listed.
    """
    whole, within = gathered.to_dict(), f"within_{r_max:g}_angstrom"
    if whole["teachers"][teacher]["samples_with_energy_by_split"]["train"]:
        normal = gathered.normalisation(teacher)
        energies = {int(z): energy for z, energy in normal["mace"]["E0s"].items()}
        lacking = [symbol for symbol in whole["elements"] if atomic_numbers[symbol] not in energies]
        energies |= {atomic_numbers[symbol]: normal["energy_eV_per_atom"]["mean"] for symbol in lacking}
        if lacking:
            logger.warning(
                "no sample of the split train has an energy of %r and %s: statistics.json has the mean energy per atom for "
                "these elements", teacher, ", ".join(lacking),
            )  # fmt: skip
        neighbours, mean, std = normal["neighbours"][within], normal["mace"]["mean"], normal["mace"]["std"]
    else:
        energies = {atomic_numbers[symbol]: 0.0 for symbol in whole["elements"]}
        forces = whole["teachers"][teacher]["force_component_eV_per_angstrom"]["by_split"]
        neighbours, mean, std = whole["neighbours"][within], 0.0, forces.get("train", {}).get("rms", 1.0)
        logger.warning(
            "no sample of the split train has an energy of %r: the energies of the elements in statistics.json are 0; train "
            "with --energy_weight=0", teacher,
        )  # fmt: skip
    return {
        "atomic_energies": str(energies),
        "avg_num_neighbors": neighbours,
        "mean": mean,
        "std": std,
        "atomic_numbers": str(sorted(energies)),
        "r_max": r_max,
    }


def _write(file: h5py.File, batch: SampleBatch, teacher: str, columns: Mapping[str, Column]) -> None:
    """Write the samples of one file; MACE counts the members of its root group, so the rest is in attributes."""
    labels, starts = batch.labels.get(teacher, {}), batch.offsets
    there = {name: present(batch, teacher, name) for name in (*LABELS, *(name for name in _WEIGHED if name in labels))}
    others = {name: present(batch, teacher, name) for name in labels if name not in there and not _taken(name)}
    user = {name: user_rows(batch, column) for name, column in columns.items()}
    file.attrs["drop_last"] = False
    file.attrs["root"] = batch.root
    for name in CODED:
        file.attrs[name] = batch.columns[name]
        file.attrs[f"{name}_meanings"] = json.dumps(batch.vocabulary[name])
    for name in (*there, *others):
        file.attrs[f"{name}_units"] = "Debye" if name == "dipole" else batch.property_of(name).unit
    for name, column in columns.items():
        file.attrs[f"{name}_units"] = column.unit
    kinds = batch.strings(_CONFIG_TYPE) if _CONFIG_TYPE in columns and _CONFIG_TYPE in batch.user else None
    columns = {name: column for name, column in columns.items() if not column.coded}

    def rows(name: str, i: int, atoms: slice) -> Array:
        return np.asarray(labels[name][atoms if batch.property_of(name).axis == "atom" else i])

    configs = file.create_group("config_batch_0")
    for i in range(len(batch)):
        atoms = slice(starts[i], starts[i + 1])
        config = configs.create_group(f"config_{i}")
        config["atomic_numbers"] = batch.numbers[atoms].astype("i8")
        config["positions"] = batch.positions[atoms].astype("f8")
        config["cell"], config["pbc"] = batch.cell[i], batch.pbc[i]
        config["weight"], config["config_type"] = 1.0, (kinds[i] if kinds is not None else None) or "Default"
        if _WEIGHT in columns and user[_WEIGHT][1][i] and np.isfinite(weight := user[_WEIGHT][0][i]):
            config["weight"][()] = float(weight)
        named, weights = config.create_group("properties"), config.create_group("property_weights")
        for name, whole in there.items():
            if whole[i]:
                value = np.asarray(rows(name, i, atoms), "f8")
                named[name] = value / Debye if name == "dipole" else value
            else:
                named[name] = _MISSING
            weights[name] = float(whole[i])
        for name, whole in others.items():
            if whole[i]:
                named[name] = rows(name, i, atoms)
        named["total_charge"], named["total_spin"] = float(batch.charge[i]), float(batch.multiplicity[i])
        for name, column in columns.items():
            values, mask = user[name]
            row = atoms if column.axis == "atom" else slice(i, i + 1)
            user_value = without_mask(name, values[row], mask[row])
            if user_value is not None:
                named[name] = user_value if column.axis == "atom" else user_value[0]
