"""Sums over the segments of a state: elements, labelled samples, bytes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

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
    nbytes_files: int = 0

    def add(self, segment: Segment) -> None:
        """Count one more segment."""
        summary = segment.summary
        self._count(segment, 1)
        self.n_atoms_min = min(self.n_atoms_min or summary.n_atoms_min, summary.n_atoms_min)
        self.n_atoms_max = max(self.n_atoms_max, summary.n_atoms_max)

    def remove(self, segments: Sequence[Segment], rest: Iterable[Segment]) -> None:
        """Count segments no more.

        Parameters
        ----------
        segments : sequence of Segment
            The segments that are gone.
        rest : iterable of Segment
            All segments that are left. They are looked at only as far as needed to find the smallest and largest samples.
        """
        for segment in segments:
            self._count(segment, -1)
        self.elements = {z: n for z, n in self.elements.items() if n}
        if all(
            segment.summary.n_atoms_min > self.n_atoms_min and segment.summary.n_atoms_max < self.n_atoms_max
            for segment in segments
        ):
            return
        least = most = 0
        for segment in rest:
            least = min(least or segment.summary.n_atoms_min, segment.summary.n_atoms_min)
            most = max(most, segment.summary.n_atoms_max)
            if (least, most) == (self.n_atoms_min, self.n_atoms_max):
                return
        self.n_atoms_min, self.n_atoms_max = least, most

    def _count(self, segment: Segment, sign: int) -> None:
        summary = segment.summary
        for z, n in summary.elements.items():
            self.elements[z] = self.elements.get(z, 0) + sign * n
        self.n_periodic += sign * summary.n_periodic
        self._add(segment, summary.labelled, sign)

    def _add(self, part: Segment | Layer, labelled: Mapping[str, int], sign: int = 1) -> None:
        for teacher, n in labelled.items():
            self.labelled[teacher] = self.labelled.get(teacher, 0) + sign * n
        for stored in part.columns.values():
            self.nbytes += sign * stored.nbytes
            self.nbytes_raw += sign * stored.rows * stored.column.row_nbytes
        self.nbytes_files += sign * part.nbytes_files

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
