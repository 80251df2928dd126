"""What a training batch is: a dictionary of tensors, and how several of them become one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data._utils.collate import default_collate_fn_map

from mlffstore.errors import DataError
from mlffstore.training.window import RESERVED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Batch = dict[str, torch.Tensor]
#: Floating dtypes that batches can have -> the same in NumPy.
REAL = {torch.float32: np.dtype("float32"), torch.float64: np.dtype("float64")}


class JoinableBatch(dict[str, torch.Tensor]):
    """A batch that torch's own collation joins with others, where it would stack the tensors of a plain dictionary."""


def joinable(batch: Any) -> Any:
    """Return a batch as a `JoinableBatch`; anything else, such as the result of a transform, is returned unchanged."""
    return JoinableBatch(batch) if type(batch) is dict else batch


def join(batches: Sequence[Batch]) -> Batch:
    """Return one batch with the samples of several batches, which have the same names, in order."""
    if len(batches) == 1:
        return batches[0]
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
