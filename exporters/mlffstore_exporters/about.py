"""`About`: the description of a release. `mlffstore_exporters.release` makes it, `mlffstore_exporters.card` prints it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlffstore.analysis.validation.result import Validation
    from mlffstore.data.ragged import Ints
    from mlffstore.release.changes import Changes
    from mlffstore.store.samples import Samples


@dataclass(frozen=True, slots=True)
class About:
    """The description of a release, from which its documents are made.

    Attributes
    ----------
    name, version, licence, description : str
    authors : tuple of str
    snapshot : Samples
        What was exported.
    teachers : tuple of str
    splits : mapping of str to ndarray, shape (S,), int64
        Samples of the snapshot in each split.
    exact : bool
        Whether exact counts were requested.
    provenance : sequence of dict
        Provenance of the commits of the snapshot.
    statistics : mapping
        Content of ``statistics.yaml``.
    validation : Validation
    rounding : mapping of str to float
        Column -> largest step to which its values were rounded.
    committed : str
        Time of the snapshot's commit, ISO 8601.
    since : Changes, optional
        Differences from an older release.
    """

    name: str
    version: str
    licence: str
    authors: tuple[str, ...]
    description: str
    snapshot: Samples
    teachers: tuple[str, ...]
    splits: Mapping[str, Ints]
    exact: bool
    provenance: Sequence[dict[str, Any]]
    statistics: Mapping[str, Any]
    validation: Validation
    rounding: Mapping[str, float]
    committed: str
    since: Changes | None = None
