"""Neighbours of the atoms of a batch, for models that take a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from mlffstore.training.batch import Batch


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
    from mlffstore.data.kernels import find_edges

    positions, cell, pbc, ptr = (batch[name].numpy() for name in ("positions", "cell", "pbc", "ptr"))
    index, shift = find_edges(ptr, positions, cell, pbc, np.array([cutoff], np.float64))
    return torch.from_numpy(index), torch.from_numpy(shift)
