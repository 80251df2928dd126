"""The export `deepmd` as a source of samples: its systems of the mixed type, with the arrays that DeePMD-kit ignores."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.batch import SampleBatch
from mlffstore.data.properties import property_of
from mlffstore.data.splits import SPLITS
from mlffstore.importing.packed import reading
from mlffstore.importing.values import voigt_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlffstore.data.schema import Array

#: Name of the file of a label -> property.
_LABELS = {
    "energy": "energy", "force": "forces", "virial": "stress", "atom_ener": "atomic_energies", "dipole": "dipole",
}  # fmt: skip


def blocks_of_deepmd(path: Path, teachers: tuple[str, ...], n_samples: int) -> Iterator[tuple[SampleBatch, Array]]:
    """Yield the frames of one system after another, some at a time, and the split of each.

    Raises
    ------
    DataError
        If a system is damaged.
    """
    for code, split in enumerate(SPLITS):
        for system in sorted((path / split).glob("*")):
            with reading("a system of an export", functools.partial(str, system)):
                folder = system / "set.000"
                arrays = {file.stem: np.load(file, mmap_mode="r", allow_pickle=False) for file in folder.glob("*.npy")}
                symbols = (system / "type_map.raw").read_text(encoding="utf-8").split()
                periodic = not (system / "nopbc").exists()
                for low in range(0, len(arrays["coord"]), n_samples):
                    rows = {name: np.asarray(array[low : low + n_samples]) for name, array in arrays.items()}
                    batch = _batch(rows, symbols, periodic, teachers[0])
                    yield batch, np.full(len(batch), code)


def _batch(rows: dict[str, Any], symbols: list[str], periodic: bool, teacher: str) -> SampleBatch:
    from ase.data import atomic_numbers

    n = len(rows["coord"])
    numbers = np.array([atomic_numbers[symbol] for symbol in symbols])[rows["real_atom_types"]]
    n_atoms = numbers.shape[1]
    cell = np.asarray(rows["box"], np.float64).reshape(n, 3, 3)
    labels = {}
    for file, name in _LABELS.items():
        if file not in rows:
            continue
        values = rows[file]
        if name == "stress":
            if not periodic:
                raise ValueError("expected no virials of structures that are periodic nowhere")
            values = voigt_rows(-values.reshape(n, 3, 3) / np.abs(np.linalg.det(cell))[:, None, None])
        spec = property_of(name)
        inner = tuple(size or 1 for size in spec.sizes)
        labels[name] = values.reshape(n * n_atoms if spec.axis == "atom" else n, *inner)
    state = rows["fparam"]
    return SampleBatch(
        n_atoms=np.full(n, n_atoms), numbers=numbers.reshape(-1), positions=rows["coord"].reshape(-1, 3), cell=cell,
        pbc=np.full((n, 3), periodic), charge=state[:, 0].astype(np.int64), multiplicity=state[:, 1].astype(np.int64),
        root=rows["root"], source=rows["source"].tolist(), sampler=rows["sampler"].tolist(),
        labels={teacher: labels} if labels else None,
    )  # fmt: skip
