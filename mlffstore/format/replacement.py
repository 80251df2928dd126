"""`Replacement`: segments of a log entry that take the place of others, and the samples that the entry touches.

It checks what can be checked without the other segments of the store; see `mlffstore.format.state` for the rest.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.ragged import row_indices
from mlffstore.errors import FormatError
from mlffstore.format.fields import MAX_COUNT, Fields
from mlffstore.format.records import SEGMENT, parse_segment, segment_document

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mlffstore.data.ragged import Ints
    from mlffstore.format.records import Segment


@dataclass(frozen=True, slots=True)
class Replacement:
    """Neighbouring segments and those that take their place.

    Attributes
    ----------
    inputs : list of str
        Paths of segments that follow each other.
    outputs : list of Segment
        The segments that take their place, without layers.
    runs : tuple of int
        Numbers of samples of the inputs that are untouched and touched in turn: ``(3, 2, 5)`` touches the samples 3 and 4
        of 10. Empty if the entry does not say.
    """

    inputs: list[str]
    outputs: list[Segment]
    runs: tuple[int, ...] = ()

    @property
    def n_touched(self) -> int:
        """Number of touched samples."""
        return sum(self.runs[1::2])

    @property
    def n_samples(self) -> int:
        """Number of samples of the inputs, according to `runs`."""
        return sum(self.runs)

    def touched(self) -> Ints:
        """Return the touched samples as ascending indices into the samples of the inputs, shape (T,)."""
        starts = np.cumsum(np.asarray(self.runs, np.int64))[: len(self.runs) // 2 * 2 : 2]
        return row_indices(starts, self.runs[1::2])

    def to_json(self) -> dict[str, Any]:
        """Return what the log says of it."""
        document: dict[str, Any] = {"inputs": self.inputs, "outputs": [segment_document(one) for one in self.outputs]}
        return document | ({"runs": list(self.runs)} if self.runs else {})


def runs_of(touched: Ints, n_samples: int) -> tuple[int, ...]:
    """Return the lengths of the runs of untouched and touched samples in turn.

    Parameters
    ----------
    touched : ndarray, shape (T,), int64
        Ascending indices of samples.
    n_samples : int
        Number of all samples.

    Examples
    --------
    >>> runs_of(np.array([3, 4]), 10)
    (3, 2, 5)
    """
    mask = np.zeros(n_samples, bool)
    mask[touched] = True
    edges = [0, *(np.flatnonzero(np.diff(mask)) + 1).tolist(), n_samples]
    lengths = np.diff(edges).tolist()
    return tuple([0, *lengths] if n_samples and mask[0] else lengths)


def parse_replacements(fields: Fields, *, with_runs: bool) -> list[Replacement]:
    """Check and return the replacements of a log entry.

    Parameters
    ----------
    fields : Fields
        The body of the entry.
    with_runs : bool
        Whether the operation says which samples it touches.

    Raises
    ------
    FormatError
        If they are anything else, or one replaces what another one made.
    """
    replacements = [_parse(value, fields.where, with_runs) for value in fields.items("replacements")]
    paths = [path for replacement in replacements for path in replacement.inputs]
    paths += [segment.path for replacement in replacements for segment in replacement.outputs]
    if len(set(paths)) < len(paths):
        raise FormatError(f"{fields.where}: replaces a segment twice; the store is damaged")
    return replacements


def _parse(value: Any, where: str, with_runs: bool) -> Replacement:
    fields = Fields(value, where)
    inputs = fields.items("inputs")
    if not inputs or not all(isinstance(path, str) and SEGMENT.fullmatch(path) for path in inputs):
        raise FormatError(f"{where}: inputs: expected paths of segments; the store is damaged")
    outputs = [parse_segment(document, where) for document in fields.items("outputs")]
    if not with_runs:
        return Replacement(inputs, outputs)
    runs = fields.items("runs")
    if (
        not all(type(run) is int and 0 <= run <= MAX_COUNT for run in runs)
        or not all(runs[1:])
        or len(runs) < 2  # without a touched sample there is nothing to replace
    ):
        raise FormatError(f"{where}: runs: expected lengths of runs of samples; the store is damaged")
    return Replacement(inputs, outputs, tuple(runs))


def contents(segments: Sequence[Segment]) -> Counter[str]:
    """Return what segments hold, as far as the log says it: samples, atoms, periodic samples, atoms of each element."""
    out: Counter[str] = Counter()
    for segment in segments:
        out["samples"] += segment.n_samples
        out["atoms"] += segment.n_atoms
        out["periodic"] += segment.summary.n_periodic
        for z, n in segment.summary.elements.items():
            out[f"element {z}"] += n
    return out


def column_names(segments: Iterable[Segment]) -> set[str]:
    """Return the on-disk names of the columns that some segment has."""
    return {key for segment in segments for key in segment.columns}
