"""Batches as PyTorch Geometric's `Data` and `Batch`."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from torch.utils.data._utils.collate import default_collate_fn_map

from mlffstore.errors import DataError, missing_dependency
from mlffstore.training.batch import join
from mlffstore.training.window import RESERVED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlffstore.training.batch import Batch

#: Our name -> the field's name in PyTorch Geometric's examples and models.
_NAMES = {"numbers": "z", "positions": "pos"}
#: Attributes of PyTorch Geometric's classes that user columns may have: they hold what a user puts there.
_FREE = frozenset({"x", "y", "time"})


class ToPyG:
    """A transform that turns batches into `torch_geometric.data.Batch`: ``TorchDataset(..., transform=ToPyG())``.

    Numbers become `z`, positions `pos`; the other names stay: `cell`, `pbc`, `energy`, `forces`, `stress`, `edge_index`,
    `shift`, `batch`, `ptr`, masks and user columns. As the last of a `Compose` it can follow other transforms. It makes no
    copies. Torch's own `DataLoader` joins such batches.

    Raises
    ------
    DataError
        When a user column has a name that PyTorch Geometric uses for something else, such as `pos` or `num_nodes`.
    MissingDependencyError
        Without the package torch-geometric.
    """

    def __call__(self, batch: Batch) -> Any:
        """Return the batch."""
        try:
            from torch_geometric.data import Batch as Graphs
        except ImportError as error:
            raise missing_dependency("torch-geometric", "pyg", "ToPyG") from error
        default_collate_fn_map.setdefault(Graphs, _collate)
        _check_names(tuple(batch))
        out = Graphs(**{_NAMES.get(name, name): tensor for name, tensor in batch.items()})
        out._num_graphs = len(batch["energy"])
        _check_nodes(out, len(batch["numbers"]))
        return out


def _collate(graphs: Sequence[Any], *, collate_fn_map: Any = None) -> Any:
    """Join batches that `ToPyG` made, for torch's own collation."""
    if len(graphs) == 1:
        return graphs[0]
    names = {new: name for name, new in _NAMES.items()}
    batches = [{names.get(name, name): tensor for name, tensor in one.to_dict().items()} for one in graphs]
    if not all({*names.values(), "n_atoms", "ptr"} <= batch.keys() for batch in batches):
        raise TypeError(
            "default_collate: expected batches that mlffstore's ToPyG made, got others of PyTorch Geometric; use its "
            "torch_geometric.loader.DataLoader"
        )
    return ToPyG()(join(batches))


def to_data(batch: Batch) -> list[Any]:
    """Return each sample of a batch as `torch_geometric.data.Data`, for code that collates by itself.

    Raises
    ------
    DataError
        If a user column has a name that PyTorch Geometric uses for something else. These are also the names with "index" or
        "batch" in them, since its collation takes such columns for numbers of atoms or samples and changes them.
    MissingDependencyError
        Without the package torch-geometric.
    """
    try:
        from torch_geometric.data import Data
    except ImportError as error:
        raise missing_dependency("torch-geometric", "pyg", "to_data") from error
    _check_names(tuple(batch), collated=True)
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
        _check_nodes(out[-1], ends[k + 1] - ends[k])
    return out


@lru_cache
def _check_names(names: tuple[str, ...], *, collated: bool = False) -> None:
    """Raise `DataError` if columns have names that the package uses for something else, or that its collation changes."""
    from torch_geometric.data import Batch as Graphs
    from torch_geometric.data import Data

    taken = [
        name
        for name in names
        if name not in RESERVED
        and (
            name in _NAMES.values()
            or (name not in _FREE and (hasattr(Graphs, name) or hasattr(Data, name)))
            or (collated and ("index" in name or "batch" in name))
        )
    ]
    if taken:
        raise _other_names(", ".join(taken))


def _check_nodes(graphs: Any, n: int) -> None:
    """Raise `DataError` if a user column is taken for features of the nodes and has another number of rows."""
    if graphs.num_nodes != n:
        raise _other_names("x (which has no row per atom)")


def _other_names(names: str) -> DataError:
    return DataError(
        f"ToPyG, to_data: expected user columns with names of their own, got {names}, which PyTorch Geometric uses for "
        "something else; choose other user columns with TorchDataset(columns=(...)), or rename them in a transform before"
    )
