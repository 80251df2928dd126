"""What a generator, a teacher and an exporter must be. The core calls these; plugins implement them.

Units everywhere: eV, angstrom, eV/angstrom, eV/angstrom^3; stress is xx yy zz yz xz xy, tension positive.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from mlffstore.data.batch import SampleBatch
    from mlffstore.store.snapshot import Snapshot

Domain = Literal["molecule", "periodic"]


@dataclass(frozen=True, slots=True)
class TeacherInfo:
    """What a teacher says of itself; kept with its labels.

    Attributes
    ----------
    name : str
        Name of its label columns.
    elements : frozenset of int, or None
        Atomic numbers that it knows; None for all.
    domains : frozenset of {"molecule", "periodic"}
        Samples that are periodic nowhere, or somewhere.
    properties : tuple of {"energy", "forces", "stress"}
        What it gives.
    precision : str
        dtype in which it computes.
    conservative : bool
        Whether its forces are the gradient of its energy.
    licence : str
        SPDX identifier of the weights or parameters.
    fingerprint : str
        Names the model exactly. Labels of two fingerprints are never stored under one name.
    software : mapping of str to str
        Versions of the packages involved.
    equivariant : bool
        Whether its labels turn with the structure by construction. Orb learns to, nearly.
    """

    name: str
    elements: frozenset[int] | None
    domains: frozenset[Domain]
    properties: tuple[str, ...]
    precision: str
    conservative: bool
    licence: str
    fingerprint: str
    software: Mapping[str, str] = field(default_factory=dict)
    equivariant: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON types, for the log and for releases."""
        return {
            "name": self.name,
            "elements": None if self.elements is None else sorted(self.elements),
            "domains": sorted(self.domains),
            "properties": list(self.properties),
            "precision": self.precision,
            "conservative": self.conservative,
            "equivariant": self.equivariant,
            "licence": self.licence,
            "fingerprint": self.fingerprint,
            "software": dict(self.software),
        }


@dataclass(frozen=True, slots=True)
class TeacherLabels:
    """What a teacher says of S samples with A atoms.

    Attributes
    ----------
    energy : ndarray, shape (S,), float64
        eV; NaN where `ok` is False.
    forces : ndarray, shape (A, 3), float32
        eV/angstrom; NaN where `ok` is False.
    stress : ndarray, shape (S, 6), float32, or None
        eV/angstrom^3, tension positive; NaN for samples that are not periodic in three directions. None if the
        teacher has no stress.
    ok : ndarray, shape (S,), bool
        Whether the sample was labelled.
    reasons : tuple of str
        Why not; empty strings where `ok`.
    """

    energy: npt.NDArray[np.float64]
    forces: npt.NDArray[np.float32]
    stress: npt.NDArray[np.float32] | None
    ok: npt.NDArray[np.bool_]
    reasons: tuple[str, ...]


@runtime_checkable
class Teacher(Protocol):
    """A model that labels."""

    @property
    def info(self) -> TeacherInfo:
        """What it is."""
        ...

    def label(self, batch: SampleBatch) -> TeacherLabels:
        """Label every sample of a batch; refuse single samples by `ok`, never by an exception."""
        ...


@dataclass(frozen=True, slots=True)
class Generated:
    """What one task made.

    Attributes
    ----------
    batch : SampleBatch
        Structures, with `root`, `source` and `sampler`.
    skipped : mapping of str to int
        Seeds that gave no structure, counted by reason.
    teacher : TeacherInfo, optional
        Whose labels the batch carries, of the positions as float32 stores them. If the same teacher labels the part, they
        are kept; otherwise they are dropped.
    """

    batch: SampleBatch
    skipped: Mapping[str, int]
    teacher: TeacherInfo | None = None


@runtime_checkable
class Generator(Protocol):
    """Makes structures. All randomness comes from the generator of random numbers that it is given."""

    def generate(self, rng: np.random.Generator, count: int) -> Generated:
        """Return `count` structures, depending on nothing but the options, `rng` and `count`."""
        ...

    def provenance(self) -> Mapping[str, Any]:
        """Return options, sources and licences of the seeds, and versions, as JSON."""
        ...


class Exporter(Protocol):
    """Writes a snapshot to a file of another layout."""

    def __call__(
        self,
        snapshot: Snapshot,
        path: str | os.PathLike[str],
        *,
        teacher: str | Sequence[str] | None = None,
        **options: Any,
    ) -> Path:
        """Write and return the path. A file at `path` is replaced only when the new one is complete."""
        ...
