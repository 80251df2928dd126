"""Neighbours of the atoms of a batch, for models that take a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from mlffstore.training.dataset import Batch


def edges(batch: Batch, cutoff: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the edges of a batch, each pair in both directions.

    Parameters
    ----------
    batch : dict of torch.Tensor
        As `TorchDataset.batch` returns it.
    cutoff : float
        Angstrom.

    Returns
    -------
    edge_index : torch.Tensor, shape (2, E), int64
        Centre and neighbour, rows of the batch.
    shift : torch.Tensor, shape (E, 3)
        Angstrom, to be added: the neighbour is at ``positions[j] + shift``.
    """
    import vesin
    from ase.geometry import complete_cell

    search = vesin.NeighborList(cutoff=cutoff, full_list=True, n_threads=1)
    positions, cell, pbc = (batch[name].numpy() for name in ("positions", "cell", "pbc"))
    ends = batch["ptr"].tolist()
    index, shift = [np.zeros((2, 0), np.int64)], [np.zeros((0, 3))]
    for k in range(len(cell)):
        box = complete_cell(cell[k].astype(np.float64)) if pbc[k].any() else np.zeros((3, 3))
        i, j, s = search.compute(
            points=positions[ends[k] : ends[k + 1]].astype(np.float64), box=box, periodic=pbc[k], quantities="ijS"
        )
        index.append(np.stack([i, j]).astype(np.int64) + ends[k])
        shift.append(s @ box)
    real = batch["positions"].dtype
    return torch.from_numpy(np.concatenate(index, axis=1)), torch.from_numpy(np.concatenate(shift)).to(real)
