"""Descriptors of the atomic environments of structures: those of QUESTS, which see distances and not elements."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.errors import missing_dependency

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ase import Atoms

    from mlffstore.data.schema import Array

#: Bandwidth, neighbours and cutoff (angstrom) of Schwalbe-Koda, Hamel, Sadigh, Zhou and Lordi, arXiv:2404.12367.
BANDWIDTH, N_NEIGHBOURS, CUTOFF = 0.015, 32, 5.0


def environments(frames: Iterable[Atoms]) -> list[Array]:
    """Return the QUESTS descriptors of the atoms of each structure, arrays of shape (n_atoms, 2 k - 1).

    Raises
    ------
    MissingDependencyError
        If the package `quests` is not installed.
    """
    try:
        from quests.descriptor import get_descriptors
    except ImportError as error:
        raise missing_dependency("quests", "diversity", "descriptors of environments") from error
    out = []
    for frame in frames:
        frame = frame.copy()
        if frame.pbc.any() and not frame.pbc.all():  # QUESTS knows crystals and molecules: a slab gets a vacuum
            frame.center(vacuum=CUTOFF, axis=np.flatnonzero(~frame.pbc))
            frame.pbc = True
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="(?s).*unsafe cast from uint64")  # of numba, in quests
            out.append(get_descriptors([frame], k=N_NEIGHBOURS, cutoff=CUTOFF))
    return out
