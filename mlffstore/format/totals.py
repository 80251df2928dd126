"""Sums over the segments of a state: elements, labelled samples, bytes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mlffstore.format.records import Layer, Segment


@dataclass(slots=True)
class Totals:
    """Sums over segments, updated by each commit, so that they are known without going through all segments."""

    elements: dict[int, int] = field(default_factory=dict)
    labelled: dict[str, int] = field(default_factory=dict)
    n_periodic: int = 0
    n_atoms_min: int = 0
    n_atoms_max: int = 0
    nbytes: int = 0
    nbytes_raw: int = 0

    def add(self, segment: Segment) -> None:
        """Count one more segment."""
        summary = segment.summary
        for z, n in summary.elements.items():
            self.elements[z] = self.elements.get(z, 0) + n
        self.n_periodic += summary.n_periodic
        self.n_atoms_min = min(self.n_atoms_min or summary.n_atoms_min, summary.n_atoms_min)
        self.n_atoms_max = max(self.n_atoms_max, summary.n_atoms_max)
        self._add(segment, summary.labelled)

    def _add(self, part: Segment | Layer, labelled: Mapping[str, int], sign: int = 1) -> None:
        for teacher, n in labelled.items():
            self.labelled[teacher] = self.labelled.get(teacher, 0) + sign * n
        for stored in part.columns.values():
            self.nbytes += sign * stored.nbytes
            self.nbytes_raw += sign * stored.rows * stored.column.row_nbytes

    def add_layer(self, layer: Layer, below: Segment) -> None:
        """Count the columns of a layer over a segment."""
        before = below.summary.labelled
        self._add(layer, {teacher: n - before.get(teacher, 0) for teacher, n in layer.labelled.items()})

    def exchange(self, old: Iterable[Segment], new: Iterable[Segment]) -> None:
        """Count the same samples in other segments."""
        for segment in old:
            self._add(segment, segment.summary.labelled, -1)
        for segment in new:
            self._add(segment, segment.summary.labelled)

    def copy(self) -> Totals:
        """Return a copy that does not change with this one."""
        return replace(self, elements=dict(self.elements), labelled=dict(self.labelled))
