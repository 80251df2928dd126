"""Near duplicates: the samples that validation calls copies, in one pass over the structures alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.analysis.validation.copies import find_copies
from mlffstore.analysis.validation.fingerprints import CUTOFF, compositions, fingerprints
from mlffstore.data.geometry import pairs
from mlffstore.lazy.blocks import sample_pass

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

    from mlffstore.data.schema import Array
    from mlffstore.lazy.blocks import Block

_COLUMNS = ("numbers", "positions", "cell", "pbc")


def near_duplicates(ds: xr.Dataset, tolerance: float) -> Array:
    """Return which samples equal an earlier one, or nearly, shape (S,), bool.

    Parameters
    ----------
    ds : Dataset
        As the engine ``mlffstore`` opens it.
    tolerance : float
        Relative difference up to which the shapes of two structures of one composition agree.
    """
    names = [name for name in ("n_atoms", *_COLUMNS, "content_hash") if name in ds]
    figures = sample_pass(ds[names], names, _shapes, _joined).compute()
    copies = find_copies(figures, tolerance)
    return np.asarray(copies["duplicate"] | copies["near_duplicate"])


def _shapes(block: Block) -> dict[str, Array]:
    from ase.data import covalent_radii

    pbc, cell = block["pbc"].astype(bool), block["cell"].astype(np.float64)
    neighbours = pairs(block.starts, block["positions"], cell, pbc, CUTOFF)
    radius = np.asarray(covalent_radii)[block["numbers"]]
    contact = neighbours.distance / (radius[neighbours.first] + radius[neighbours.second])
    composition = compositions(block["numbers"], block["n_atoms"])
    periodic, molecule = np.asarray(pbc.all(axis=1)), np.asarray(~pbc.any(axis=1))
    found = fingerprints(block, neighbours, contact, radius, periodic, molecule, composition)
    more = {name: block[name] for name in ("content_hash",) if name in block}
    # Forces decide only about copies in other splits.
    about = {"n_atoms": block["n_atoms"], "molecule": molecule, "force_max": np.zeros((len(block), 0))}
    return {**about, **found, **more}


def _joined(parts: Sequence[dict[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
