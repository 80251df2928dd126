"""The member `selection` of a tag: which samples of the tagged version have the name, and what chose them."""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from mlffstore.format.fields import Fields

    Ints = npt.NDArray[np.int64]

#: Bytes of an index before it is compressed.
_WIDTH = 8


def selection_document(indices: Ints, steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the member of a log entry.

    Parameters
    ----------
    indices : ndarray, shape (S,), int64
        Indices of the samples in the tagged version, in the order of the selection, each once.
    steps : sequence of mapping
        What chose them, as JSON.
    """
    steps_between = np.diff(indices, prepend=0).astype("<i8")
    # All lowest bytes come first, then the next ones: of ascending indices nearly all others are 0.
    planes = np.ascontiguousarray(steps_between.view(np.uint8).reshape(-1, _WIDTH).T)
    packed = base64.b64encode(zlib.compress(planes.tobytes(), 6)).decode("ascii")
    return {"n_samples": len(indices), "indices": packed, "steps": [dict(step) for step in steps]}


def check_selection(fields: Fields) -> None:
    """Raise `FormatError` if an entry has something else where a selection should be; the indices are not unpacked."""
    document = fields.mapping("selection")
    if (
        type(document.get("n_samples")) is not int
        or document["n_samples"] < 0
        or not isinstance(document.get("indices"), str)
        or not isinstance(document.get("steps"), list)
        or not all(isinstance(step, dict) and isinstance(step.get("kind"), str) for step in document["steps"])
    ):
        raise FormatError(f"{fields.where}: selection: expected n_samples, indices and steps; the store is damaged")


def selected_indices(document: Mapping[str, Any], n_samples: int, where: str) -> Ints:
    """Return the indices of the samples of a selection, shape (S,), int64, in its order.

    Parameters
    ----------
    document : mapping
        The member of a log entry.
    n_samples : int
        Samples of the tagged version.
    where : str
        The entry, for messages.

    Raises
    ------
    FormatError
        If they are not indices of samples of that version, each once.
    """
    n = int(document["n_samples"])
    try:
        if n > n_samples:
            raise ValueError(f"{n} of {n_samples} samples")
        unpack = zlib.decompressobj()
        data = unpack.decompress(base64.b64decode(document["indices"], validate=True), _WIDTH * n + 1)
        if len(data) != _WIDTH * n or not unpack.eof:
            raise ValueError("another number of them")
    except (ValueError, binascii.Error, zlib.error) as error:
        raise FormatError(f"{where}: selection: expected indices of samples ({error}); the store is damaged") from error
    planes = np.frombuffer(data, np.uint8).reshape(_WIDTH, n)
    indices = np.cumsum(np.ascontiguousarray(planes.T).view("<i8").reshape(-1).astype(np.int64), dtype=np.int64)
    if n and (indices.min() < 0 or indices.max() >= n_samples or len(np.unique(indices)) != n):
        raise FormatError(f"{where}: selection: expected samples of the version, each once; the store is damaged")
    return indices
