"""Batches as PyTorch Geometric's `Data` and `Batch`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlffstore.errors import missing_dependency

if TYPE_CHECKING:
    from mlffstore.training.batch import Batch

#: Our name -> the field's name in PyTorch Geometric's examples and models.
_NAMES = {"numbers": "z", "positions": "pos"}


class ToPyG:
    """A transform that turns batches into `torch_geometric.data.Batch`: ``TorchDataset(..., transform=ToPyG())``.

    Numbers become `z`, positions `pos`; the other names stay: `cell`, `pbc`, `energy`, `forces`, `stress`, `edge_index`,
    `shift`, `batch`, `ptr`, masks and user columns. As the last of a `Compose` it can follow other transforms. It makes no
    copies.

    Raises
    ------
    MissingDependencyError
        Without the package torch-geometric.
    """

    def __call__(self, batch: Batch) -> Any:
        """Return the batch."""
        try:
            from torch_geometric.data import Batch as Graphs
        except ImportError as error:
            raise missing_dependency("torch-geometric", "pyg", "ToPyG") from error
        out = Graphs(**{_NAMES.get(name, name): tensor for name, tensor in batch.items()})
        out._num_graphs = len(batch["energy"])
        return out


def to_data(batch: Batch) -> list[Any]:
    """Return each sample of a batch as `torch_geometric.data.Data`, for code that collates by itself."""
    try:
        from torch_geometric.data import Data
    except ImportError as error:
        raise missing_dependency("torch-geometric", "pyg", "to_data") from error
    ends, out = batch["ptr"].tolist(), []
    # With one atom per sample, a row per atom is a row per sample too.
    atom = {name for name, tensor in batch.items() if tensor.dim() and len(tensor) == ends[-1]}
    for k in range(len(batch["energy"])):
        atoms = slice(ends[k], ends[k + 1])
        fields: dict[str, Any] = {}
        for name, tensor in batch.items():
            if name not in ("batch", "ptr", "edge_index", "shift"):
                fields[_NAMES.get(name, name)] = tensor[atoms] if name in atom else tensor[k : k + 1]
        if "edge_index" in batch:
            of_sample = batch["batch"][batch["edge_index"][0]] == k
            fields |= {"edge_index": batch["edge_index"][:, of_sample] - ends[k], "shift": batch["shift"][of_sample]}
        out.append(Data(**fields))
    return out
