"""What a training batch is: a dictionary of tensors, and how several of them become one."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data._utils.collate import default_collate_fn_map

from mlffstore.errors import DataError
from mlffstore.training.window import RESERVED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Batch = dict[str, torch.Tensor]
#: Floating dtypes that batches can have -> the same in NumPy.
REAL = {torch.float32: np.dtype("float32"), torch.float64: np.dtype("float64")}


class JoinableBatch(dict[str, torch.Tensor]):
    """A batch that torch's own collation joins with others, where it would stack the tensors of a plain dictionary.

    Attributes
    ----------
    atom_masks : frozenset of str
        Names of the masks with a row per atom: with one atom per sample the shapes do not tell.
    units : mapping of str to str
        Units of user columns and of labels beside energy, forces and stress.
    """

    atom_masks: frozenset[str] = frozenset()
    units: Mapping[str, str] = MappingProxyType({})


def joinable(batch: Any, atom_masks: frozenset[str] = frozenset(), units: Mapping[str, str] | None = None) -> Any:
    """Return a batch as a `JoinableBatch`; anything else, such as the result of a transform, is returned unchanged."""
    if type(batch) is not dict:
        return batch
    out = JoinableBatch(batch)
    if atom_masks:
        out.atom_masks = atom_masks
    if units:
        out.units = units
    return out


def join(batches: Sequence[Batch]) -> Batch:
    """Return one batch with the samples of several batches, in order.

    The batches can be of several datasets. A mask that some of them lack is True for their samples.

    Raises
    ------
    DataError
        If the batches have different names beside masks, or a column in different units.
    """
    if len(batches) == 1:
        return batches[0]
    _check_units(batches)
    if any(batch.keys() != batches[0].keys() for batch in batches):
        batches = _with_masks(batches)
    counts = torch.cat([batch["n_atoms"] for batch in batches])
    special = {"batch", "ptr", "edge_index"}
    out = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0] if name not in special}
    out["batch"] = torch.repeat_interleave(torch.arange(len(counts)), counts)
    out["ptr"] = torch.cat([torch.zeros(1, dtype=torch.int64), torch.cumsum(counts, 0)])
    if "edge_index" in batches[0]:
        starts = torch.tensor([0, *(len(batch["numbers"]) for batch in batches[:-1])]).cumsum(0)
        shifted = [batch["edge_index"] + start for batch, start in zip(batches, starts, strict=True)]
        out["edge_index"] = torch.cat(shifted, dim=1)
    return out


def _check_units(batches: Sequence[Batch]) -> None:
    """Raise `DataError` if one name stands for values in different units, which only batches of datasets tell."""
    first: Mapping[str, str] = {}
    for batch in batches:
        units: Mapping[str, str] = getattr(batch, "units", {})
        if units is not first and units != first:
            for name in units.keys() & first.keys():
                if units[name] != first[name]:
                    raise DataError(
                        f"collate: expected {name} in {first[name]!r} as in the datasets before, got {units[name]!r}; "
                        "convert the values of one dataset, or leave the column out with columns=(...) or properties=(...)"
                    )
            first = {**first, **units}


def _with_masks(batches: Sequence[Batch]) -> list[Batch]:
    """Return the batches with the masks that some of them have and others lack."""
    everywhere = set.intersection(*map(set, batches))
    partial = set().union(*batches) - everywhere
    other = sorted(name for name in partial if name.removesuffix("_mask") not in everywhere)
    if other:
        raise DataError(
            f"collate: expected batches of the same names, got {', '.join(other)} in some of them only; make the datasets "
            "with the same properties=, columns= and neighbours=, of labels that all of them have"
        )
    per_atom = {name for batch in batches for name in getattr(batch, "atom_masks", ())} | {
        name for batch in batches for name in partial & batch.keys() if len(batch[name]) != len(batch["n_atoms"])
    }
    return [
        batch | {name: torch.ones(len(batch["numbers" if name in per_atom else "n_atoms"]), dtype=torch.bool)
                 for name in sorted(partial - batch.keys())}
        for batch in batches
    ]  # fmt: skip


def check_names(user_columns: Iterable[str]) -> None:
    """Raise `DataError` if user columns have names that batches use for other columns."""
    names = set(user_columns)
    taken = names & (RESERVED | {f"{name}_mask" for name in names})
    if taken:
        raise DataError(
            f"columns: the user columns {', '.join(sorted(taken))} have names that batches use for other columns; choose "
            "other user columns with columns=(...), or none with columns=()"
        )


def _collate(batches: Sequence[Batch], *, collate_fn_map: Any = None) -> Batch:
    return join(batches)


# Torch's documented way to register a type with its collation.
default_collate_fn_map[JoinableBatch] = _collate
