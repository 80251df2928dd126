"""MACE's HDF5 layout, as its `run_train` reads it: a folder of files for each split, and statistics.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from mlffstore.batch import choose_teacher
from mlffstore.errors import DataError
from mlffstore_exporters.folder import has_stress, new_folder, parts
from mlffstore_exporters.hdf5 import select

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from mlffstore.snapshot import Snapshot

#: Cutoffs, angstrom, of which the statistics count neighbours.
_CUTOFFS = (4.0, 5.0, 6.0)


def export_mace(
    snapshot: Snapshot,
    path: str | os.PathLike[str],
    *,
    teacher: str | None = None,
    r_max: float = 5.0,
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Write the samples that a teacher labelled for ``mace_run_train --train_file=PATH/train --valid_file=PATH/val``.

    Parameters
    ----------
    snapshot : Snapshot
    path : path
        A new folder with train/, val/, test/ and ``statistics.json`` (``--statistics_file``).
    teacher : str, optional
        Whose labels; needed when there are several.
    r_max : {4, 5, 6}, optional
        Cutoff of the average number of neighbours in the statistics, angstrom.
    progress : callable, optional
        Called with the number of samples written and of all.

    Returns
    -------
    Path

    Notes
    -----
    Each file has one ``config_batch_0``: MACE takes all batches of a file to be of one size. A label that is missing has the
    weight 0. Stress is in ASE's order, sign and unit, which MACE shares.
    """
    import h5py

    from mlffstore.stats import statistics

    if r_max not in _CUTOFFS:
        raise DataError(f"r_max: expected one of {', '.join(f'{c:g}' for c in _CUTOFFS)} angstrom, got {r_max!r}")
    who, target = choose_teacher(snapshot.teachers, teacher), Path(path)
    normal = statistics(snapshot).normalisation(who)
    with new_folder(target) as folder:
        for split, number, batch in parts(snapshot, select(snapshot, (who,)), who, progress):
            (folder / split).mkdir(exist_ok=True)
            whole, labels, starts = has_stress(batch, who), batch.labels[who], batch.offsets
            with h5py.File(folder / split / f"{split}_{number}.h5", "w") as file:
                file.attrs["drop_last"] = False
                configs = file.create_group("config_batch_0")
                for i in range(len(batch)):
                    atoms = slice(starts[i], starts[i + 1])
                    one = configs.create_group(f"config_{i}")
                    one["atomic_numbers"] = batch.numbers[atoms].astype("i8")
                    one["positions"] = batch.positions[atoms].astype("f8")
                    one["cell"], one["pbc"] = batch.cell[i], batch.pbc[i]
                    one["weight"], one["config_type"] = 1.0, "Default"
                    named = one.create_group("properties")
                    weights = one.create_group("property_weights")
                    named["energy"] = labels["energy"][i]
                    named["forces"] = labels["forces"][atoms].astype("f8") if "forces" in labels else "None"
                    named["stress"] = labels["stress"][i].astype("f8") if whole[i] else "None"
                    weights["energy"], weights["forces"] = 1.0, float("forces" in labels)
                    weights["stress"] = float(whole[i])
        document = {
            "atomic_energies": str({int(z): e for z, e in normal["mace"]["E0s"].items()}),
            "avg_num_neighbors": normal["neighbours"][f"within_{r_max:g}_angstrom"],
            "mean": normal["mace"]["mean"],
            "std": normal["mace"]["std"],
            "atomic_numbers": str(sorted(int(z) for z in normal["mace"]["E0s"])),
            "r_max": r_max,
        }
        (folder / "statistics.json").write_text(json.dumps(document))
    return target
