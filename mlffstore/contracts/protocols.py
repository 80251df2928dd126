"""What a generator and a teacher must be. The core calls these; plugins implement them.

Units everywhere: eV, angstrom, eV/angstrom, eV/angstrom^3; stress is xx yy zz yz xz xy, tension positive.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from mlffstore.data.batch import SampleBatch

Domain = Literal["molecule", "periodic"]


@dataclass(frozen=True, slots=True)
class TeacherInfo:
    """The description of a teacher; it is stored with the labels.

    Attributes
    ----------
    name : str
        Name of the label columns.
    elements : frozenset of int, or None
        Atomic numbers that the teacher can label; None for all.
    domains : frozenset of {"molecule", "periodic"}
        Kinds of samples that the teacher labels: "molecule" is periodic along no direction, "periodic" along some.
    properties : tuple of str
        Labels that `Teacher.label` gives, see `mlffstore.data.properties`.
    precision : str
        dtype in which the teacher computes.
    conservative : bool
        Whether the forces are minus the gradient of the energy.
    licence : str
        SPDX identifier of the weights or parameters.
    fingerprint : str
        Exact name of the model, its version and weights. Labels of two fingerprints are never stored under one name.
    software : mapping of str to str
        Versions of the packages involved.
    equivariant : bool
        Whether the labels turn with the structure by construction. Those of Orb do so approximately, by training.
    on_request : tuple of str
        Further labels that `RequestTeacher.label_with` gives, since they are large or cost more. Hessian-vector products are
        not among them: `mlffstore.contracts.request` makes them for every conservative teacher.
    widths : mapping of str to int
        Widths of those properties whose width the teacher chooses, such as ``{"embedding": 64}``.
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
    on_request: tuple[str, ...] = ()
    widths: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the description as plain JSON types, for the log and for releases."""
        return {
            "name": self.name,
            "elements": None if self.elements is None else sorted(self.elements),
            "domains": sorted(self.domains),
            "properties": list(self.properties),
            "on_request": list(self.on_request),
            "widths": dict(self.widths),
            "precision": self.precision,
            "conservative": self.conservative,
            "equivariant": self.equivariant,
            "licence": self.licence,
            "fingerprint": self.fingerprint,
            "software": dict(self.software),
        }


@dataclass(frozen=True, slots=True)
class TeacherLabels:
    """The labels that a teacher gives to S samples with A atoms.

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
        Whether each sample was labelled.
    reasons : tuple of str
        For each sample why it was not labelled; an empty string where `ok`.
    more : mapping of str to ndarray
        Labels of other properties that `TeacherInfo.properties` names, in the shape and unit of the property; NaN where `ok`
        is False, or where a sample has none.
    """

    energy: npt.NDArray[np.float64]
    forces: npt.NDArray[np.float32]
    stress: npt.NDArray[np.float32] | None
    ok: npt.NDArray[np.bool_]
    reasons: tuple[str, ...]
    more: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)


@runtime_checkable
class Teacher(Protocol):
    """A model or method that labels samples."""

    @property
    def info(self) -> TeacherInfo:
        """The description of the teacher."""
        ...

    def label(self, batch: SampleBatch) -> TeacherLabels:
        """Return labels of all samples of a batch. A sample is refused by `ok`, never by an exception."""
        ...


@runtime_checkable
class RequestTeacher(Protocol):
    """A teacher that gives more on request than `Teacher.label` does: those of `TeacherInfo.on_request`."""

    def label_with(self, batch: SampleBatch, extra: Sequence[str]) -> TeacherLabels:
        """Return what `Teacher.label` returns, with the properties `extra` of `TeacherInfo.on_request` in `more`."""
        ...


@runtime_checkable
class HessianTeacher(Protocol):
    """A teacher that differentiates its forces by itself, where others need differences of forces."""

    def hessian_product(self, batch: SampleBatch, probe: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
        """Return the product of the Hessian of each sample with its direction.

        Parameters
        ----------
        batch : SampleBatch
        probe : ndarray, shape (A, 3)
            Direction, without unit.

        Returns
        -------
        ndarray, shape (A, 3), float32
            eV/angstrom^2; NaN for samples that the teacher does not label.
        """
        ...


class Follower(Protocol):
    """A teacher that follows structures as they move: it starts each call from what it knows of the call before."""

    def label(self, batch: SampleBatch, keys: Sequence[int]) -> TeacherLabels:
        """Return labels of all samples; `keys` says which structure each of them is, shape (S,)."""
        ...


@runtime_checkable
class FollowingTeacher(Protocol):
    """A teacher that is faster on structures that move little from call to call, such as those of dynamics.

    Labels of a follower depend on the way to a structure, within the convergence of the method. What is stored comes from
    `Teacher.label`.
    """

    def following(self) -> Follower:
        """Return a follower that knows no structure yet."""
        ...


@dataclass(frozen=True, slots=True)
class Generated:
    """The structures that one task made.

    Attributes
    ----------
    batch : SampleBatch
        Structures, with `root`, `source` and `sampler`.
    skipped : mapping of str to int
        Seeds that gave no structure, counted by reason.
    teacher : TeacherInfo, optional
        The teacher whose labels the batch has, for positions rounded to float32. The labels are kept if the same teacher
        labels this part of the recipe, and dropped otherwise. Samples whose energy is NaN are labelled afterwards.
    calls : mapping of str to int
        Structures that each teacher labelled so that these could be made: steps of dynamics, relaxations, displacements of
        Hessians. Labels that the batch has are counted too.
    """

    batch: SampleBatch
    skipped: Mapping[str, int]
    teacher: TeacherInfo | None = None
    calls: Mapping[str, int] = field(default_factory=dict)


@runtime_checkable
class Generator(Protocol):
    """A source of structures. All randomness comes from the generator of random numbers that is passed in."""

    def generate(self, rng: np.random.Generator, count: int) -> Generated:
        """Return `count` structures, depending on nothing but the options, `rng` and `count`."""
        ...

    def provenance(self) -> Mapping[str, Any]:
        """Return options, sources and licences of the seeds, and versions, as JSON."""
        ...


@runtime_checkable
class AskingGenerator(Protocol):
    """A generator that asks teachers while it makes structures."""

    def teachers(self) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """Return names and options of these teachers, so that wrong ones are told of before anything is made."""
        ...
