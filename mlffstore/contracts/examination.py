"""`Examination`: a teacher under test, its labels of some structures, and the table of checks that fills up.

The checks themselves are in `mlffstore.contracts.symmetries`, `mlffstore.contracts.derivatives` and
`mlffstore.contracts.conformance`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.contracts.protocols import TeacherLabels
from mlffstore.contracts.request import label_with
from mlffstore.data.batch import SampleBatch
from mlffstore.data.properties import property_of
from mlffstore.errors import TeacherError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt
    from ase import Atoms

    from mlffstore.contracts.protocols import Teacher
    from mlffstore.data.properties import Property

    Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Check:
    """One line of a conformance table.

    Attributes
    ----------
    name : str
        What is checked.
    passed : bool or None
        None if the figure is only reported, or the check does not apply.
    figure : float
        The measured deviation, in `unit`; NaN if the check does not apply.
    limit : float
        The largest figure that passes.
    unit : str
    note : str
        Why the check does not apply, or the reason for the limit.
    """

    name: str
    passed: bool | None
    figure: float
    limit: float
    unit: str
    note: str = ""


class Examination:
    """A teacher, structures, the teacher's labels of them, and the checks so far.

    Parameters
    ----------
    teacher : Teacher
    batch : SampleBatch
        Structures that the teacher can label, positions in float64.
    rng : numpy.random.Generator
        For directions, rotations and permutations.

    Attributes
    ----------
    checks : list of Check
    labels : TeacherLabels
        Labels of `batch`, to which all others are compared.
    resolution : float
        Resolution of the largest total energy in the precision of the teacher, eV.
    noise : float
        Noise of energy differences, eV; at most `resolution`.
    energy_limit : float
        Largest difference of two energies that should agree, eV.

    Raises
    ------
    TeacherError
        If the teacher refuses one of the structures, or its answer is not `TeacherLabels`.
    """

    def __init__(self, teacher: Teacher, batch: SampleBatch, rng: np.random.Generator) -> None:
        self.teacher, self.info, self.batch, self.rng = teacher, teacher.info, batch.structures(), rng
        self.checks: list[Check] = []
        #: Properties that are given on request; all but those of the plain answer are asked for in every call.
        self.extra = tuple(name for name in self.info.on_request if name not in self.info.properties)
        self.labels = self.label(self.batch, "the samples")
        # Sums over atoms are rounded at the size of the total energy; the terms of single atoms can be as large.
        self.resolution = self.epsilon * float(np.abs(self.labels.energy).max())
        self.noise = self.resolution
        self.energy_limit = 50 * self.resolution + 1e-6
        #: Noise of forces, eV/angstrom: what a translation changes.
        self.force_noise = 1e-6

    @property
    def double_precision(self) -> bool:
        """Whether the teacher computes in float64."""
        return self.info.precision == "float64"

    @property
    def epsilon(self) -> float:
        """Relative resolution of the precision in which the teacher computes."""
        return float(np.finfo(np.float64 if self.double_precision else np.float32).eps)

    @property
    def periodic(self) -> npt.NDArray[np.bool_]:
        """Which samples are periodic in three directions, shape (S,)."""
        return np.asarray(self.batch.pbc.all(axis=1))

    def label(self, batch: SampleBatch, what: str) -> TeacherLabels:
        """Return the labels of a batch; raise `TeacherError` if a sample is refused. `what` describes the batch."""
        labels = label_with(self.teacher, batch, self.extra)
        if not isinstance(labels, TeacherLabels):
            raise TeacherError(f"{self.info.name}: expected TeacherLabels, got {type(labels).__name__}")
        if not labels.ok.all():
            bad = int(np.flatnonzero(~labels.ok)[0])
            raise TeacherError(f"{self.info.name}: refused {what}, sample {bad}: {labels.reasons[bad]}")
        return labels

    def frame(self, i: int) -> Atoms:
        """Return a structure as an ASE frame."""
        return self.batch[i : i + 1].to_ase()[0]

    def changed(self, change: Callable[[int], Atoms], only: npt.NDArray[np.bool_] | None = None) -> SampleBatch:
        """Return changed structures: `change` makes a frame from the index of each sample, or of those in `only`."""
        frames = [change(i) for i in range(len(self.batch)) if only is None or only[i]]
        return SampleBatch.from_ase(frames).astype("float64").structures()

    def transformed(
        self, change: Callable[[Property, Floats, int], Floats], only: npt.NDArray[np.bool_] | None = None
    ) -> dict[str, Floats]:
        """Return what is expected of the other properties: `change` takes a property, a sample's values and its index."""
        starts = self.batch.offsets.tolist()
        out: dict[str, Floats] = {}
        for name, values in self.labels.more.items():
            spec = property_of(name)
            each = [values[starts[i] : starts[i + 1]] if spec.axis == "atom" else values[i : i + 1]
                    for i in range(len(self.batch))]  # fmt: skip
            chosen = [i for i in range(len(self.batch)) if only is None or only[i]]
            out[name] = np.concatenate([change(spec, each[i].astype(float), i) for i in chosen])
        return out

    def forces_with(self, values: Sequence[Any]) -> list[tuple[Floats, Any]]:
        """Return the forces of each sample, shape (n, 3), beside its entry of `values`."""
        starts = self.batch.offsets.tolist()
        return [(self.labels.forces[starts[i] : starts[i + 1]], value) for i, value in enumerate(values)]

    def judge(self, name: str, figure: float, limit: float, unit: str, note: str = "") -> None:
        """Add a check that passes if the figure is at most the limit."""
        self.checks.append(Check(name, bool(figure <= limit), float(figure), limit, unit, note))

    def report(self, name: str, figure: float, unit: str, note: str) -> None:
        """Add a figure that is not judged."""
        self.checks.append(Check(name, None, float(figure), np.nan, unit, note))

    def skip(self, name: str, note: str) -> None:
        """Add a check that does not apply."""
        self.checks.append(Check(name, None, np.nan, np.nan, "", note))

    def compare(self, name: str, labels: TeacherLabels, energy: Floats, forces: Floats, factor: float = 1.0) -> None:
        """Add the deviations of labels from the expected energy (eV) and forces (eV/angstrom), `factor` times the limits."""
        self.judge(f"{name}: energy", np.abs(labels.energy - energy).max(), factor * self.energy_limit, "eV")
        # Forces are rounded to float32 when they are stored.
        limit = 10 * self.resolution + 1e-5 * max(1.0, float(np.abs(self.labels.forces).max()))
        limit += 0.0 if self.double_precision else 5e-4
        self.judge(f"{name}: forces", np.abs(labels.forces - forces).max(), factor * limit, "eV/angstrom")

    def compare_more(
        self,
        name: str,
        labels: TeacherLabels,
        expected: Mapping[str, Floats],
        factor: float = 1.0,
        *,
        judged: bool = True,
    ) -> None:
        """Add the deviations of the other properties from what is expected, `factor` times the limits of `limit_of`.

        A value where none is expected, and the other way round, is an infinite deviation.
        """
        for one, values in expected.items():
            spec, given = property_of(one), labels.more.get(one)
            missing = np.isnan(values)
            if given is None or given.shape != values.shape or not np.array_equal(missing, np.isnan(given)):
                gap = np.inf
            elif missing.all():
                self.skip(f"{name}: {one}", "none of the samples has it")
                continue
            else:
                gap = float(np.abs(given - values)[~missing].max())
            if judged:
                self.judge(f"{name}: {one}", gap, factor * self.limit_of(one), spec.unit)
            else:
                self.report(f"{name}: {one}", gap, spec.unit, "not equivariant by construction: reported")

    def limit_of(self, name: str) -> float:
        """Return the largest deviation of two values of a property that should agree, in its unit."""
        spec = property_of(name)
        if spec.unit == "eV":
            return self.energy_limit
        values = np.abs(self.labels.more[name].astype(float))
        scale = max(1.0, float(np.nanmax(values))) if np.isfinite(values).any() else 1.0
        # Self-consistent charges are converged to some 1e-5; networks in float32 add up rounding in all of their layers.
        return (1e-4 if self.double_precision else 1e-3) * scale
