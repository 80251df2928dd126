"""The structures on which teachers are examined: rattled molecules and strained, rattled crystals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.batch import SampleBatch
from mlffstore.errors import TeacherError

if TYPE_CHECKING:
    from ase import Atoms

    from mlffstore.contracts.protocols import TeacherInfo


def default_samples(info: TeacherInfo) -> SampleBatch:
    """Return those of the built-in structures whose domain and elements a teacher can label.

    Parameters
    ----------
    info : TeacherInfo
        Its `domains` and `elements` decide.

    Returns
    -------
    SampleBatch
        Positions in float64, without labels.

    Raises
    ------
    TeacherError
        If the teacher can label none of the structures.
    """
    frames = [
        *(_molecules() if "molecule" in info.domains else ()),
        *(_crystals() if "periodic" in info.domains else ()),
    ]
    known = [frame for frame in frames if info.elements is None or set(frame.numbers.tolist()) <= info.elements]
    if not known:
        raise TeacherError(
            f"{info.name}: expected a teacher that can label all elements of one of the built-in structures; give samples="
        )
    return SampleBatch.from_ase(known).astype("float64")


def _molecules() -> list[Atoms]:
    from ase.build import molecule
    from ase.cluster import Octahedron

    rng = np.random.default_rng(11)
    frames = [molecule(name) for name in ("H2O", "CH3OH", "CH3CONH2", "C6H6", "CH3SH", "PH3")]
    frames += [Octahedron("Cu", 2), Octahedron("Al", 3)]
    for frame in frames:
        frame.positions += rng.normal(0, 0.05, frame.positions.shape)
    return frames


def _crystals() -> list[Atoms]:
    from ase.build import bulk

    rng = np.random.default_rng(12)
    frames = [
        bulk("Cu", cubic=True) * (2, 1, 1),
        bulk("Al", cubic=True) * (2, 1, 1),
        bulk("Si", cubic=True),
        bulk("NaCl", "rocksalt", 5.64, cubic=True),
        bulk("MgO", "rocksalt", 4.21, cubic=True),
        bulk("ZnS", "zincblende", 5.41, cubic=True),
    ]
    for frame in frames:
        frame.set_cell(frame.cell.array @ (np.eye(3) + rng.normal(0, 0.02, (3, 3))), scale_atoms=True)
        frame.positions += rng.normal(0, 0.05, frame.positions.shape)
    return frames
