"""Whether a teacher keeps its contract: invariances, derivatives, signs and units, checked on real structures.

`check` is what `mlffstore teachers check NAME` runs, what our own tests run on every built-in teacher, and what the author
of a teacher should run on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.contracts.protocols import TeacherLabels
from mlffstore.data.batch import SampleBatch, concatenate
from mlffstore.errors import TeacherError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt
    from ase import Atoms

    from mlffstore.contracts.protocols import Teacher

    Floats = npt.NDArray[np.floating[Any]]

#: Step of the five-point stencil, angstrom, along a direction in which every coordinate moves by about this much. Its error
#: is of fourth order in the step, so that it can be large enough for the noise of float32 energies.
STEP = 0.01
#: Strain of the five-point stencil of the stress.
STRAIN = 0.005
#: Weights of the five-point stencil of a first derivative, at -2, -1, 1 and 2 steps (Abramowitz and Stegun, 25.3.6).
_STENCIL = ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12))


@dataclass(frozen=True, slots=True)
class Check:
    """One line of a conformance table.

    Attributes
    ----------
    name : str
        What is asked.
    passed : bool or None
        None if the figure is only reported, or the question does not apply.
    figure : float
        What was found, in `unit`; NaN if it does not apply.
    limit : float
        Largest figure that passes.
    unit : str
    note : str
        Why it does not apply, or what stands behind the limit.
    """

    name: str
    passed: bool | None
    figure: float
    limit: float
    unit: str
    note: str = ""


def default_samples(teacher: Teacher) -> SampleBatch:
    """Return rattled molecules and strained crystals that a teacher knows; raise `TeacherError` if it knows none of them."""
    info = teacher.info
    frames = [
        *(_molecules() if "molecule" in info.domains else ()),
        *(_crystals() if "periodic" in info.domains else ()),
    ]
    known = [f for f in frames if info.elements is None or set(f.numbers.tolist()) <= info.elements]
    if not known:
        raise TeacherError(
            f"{info.name}: none of the built-in structures has only elements that it knows; give samples="
        )
    return SampleBatch.from_ase(known).astype("float64")


def _molecules() -> list[Atoms]:
    from ase.build import molecule
    from ase.cluster import Octahedron

    rng = np.random.default_rng(11)
    frames = [molecule(name) for name in ("H2O", "CH3OH", "CH3CONH2", "C6H6", "CH3SH", "PH3")]
    frames += [Octahedron("Cu", 2), Octahedron("Al", 3)]
    for frame in frames:
        frame.positions += rng.normal(0, 0.05, frame.positions.shape)
    return frames


def _crystals() -> list[Atoms]:
    from ase.build import bulk

    rng = np.random.default_rng(12)
    frames = [
        bulk("Cu", cubic=True) * (2, 1, 1),
        bulk("Al", cubic=True) * (2, 1, 1),
        bulk("Si", cubic=True),
        bulk("NaCl", "rocksalt", 5.64, cubic=True),
        bulk("MgO", "rocksalt", 4.21, cubic=True),
        bulk("ZnS", "zincblende", 5.41, cubic=True),
    ]
    for frame in frames:
        frame.set_cell(frame.cell.array @ (np.eye(3) + rng.normal(0, 0.02, (3, 3))), scale_atoms=True)
        frame.positions += rng.normal(0, 0.05, frame.positions.shape)
    return frames


def check(teacher: Teacher, samples: SampleBatch | Sequence[Atoms] | None = None, *, seed: int = 0) -> list[Check]:
    """Check a teacher against its contract.

    Parameters
    ----------
    teacher : Teacher
    samples : SampleBatch or sequence of ase.Atoms, optional
        Structures that it knows, some tens of atoms each, not at a minimum; see `default_samples`.
    seed : int, optional
        Of random directions, rotations and permutations.

    Returns
    -------
    list of Check

    Raises
    ------
    TeacherError
        If the teacher cannot label the samples at all, or its answer is not of the right shape or dtype.

    Notes
    -----
    Limits allow for the precision in which the teacher computes. With R the resolution of the largest total energy in that
    precision, energies must agree to 50 R + 1e-6 eV. With N the noise of energy differences (what a translation changes, at
    most R), forces must agree with the gradient to 10 N / step plus 0.005 (float64) or 0.05 (float32) eV/angstrom, as a root
    mean square over coordinates. Forces that are no gradient by the teacher's own word are reported, not judged.
    """
    batch = default_samples(teacher) if samples is None else _as_batch(samples)
    return _Examination(teacher, batch, np.random.default_rng(seed)).run()


def _as_batch(samples: SampleBatch | Sequence[Atoms]) -> SampleBatch:
    batch = samples if isinstance(samples, SampleBatch) else SampleBatch.from_ase(list(samples))
    return batch.astype("float64").structures()


class _Examination:
    """All checks of one teacher."""

    def __init__(self, teacher: Teacher, batch: SampleBatch, rng: np.random.Generator) -> None:
        self.teacher, self.info, self.batch, self.rng = teacher, teacher.info, batch.structures(), rng
        self.checks: list[Check] = []
        self.labels = self._label(self.batch, "the samples")
        # Sums over atoms are rounded at the size of the total energy; atoms' own terms can be as large.
        epsilon = np.finfo(np.float64 if self.info.precision == "float64" else np.float32).eps
        self.resolution = float(epsilon * np.abs(self.labels.energy).max())
        self.energy_limit = 50 * self.resolution + 1e-6
        # Derivatives feel the noise of energy differences, which can be much smaller: `_translated` measures it.
        self.noise = self.resolution

    def run(self) -> list[Check]:
        self._contract()
        self._untouched()
        self._again()
        self._singles()
        self._permuted()
        self._translated()
        self._rotated()
        self._images()
        self._supercell()
        self._copies()
        self._gradient()
        self._stress()
        self._domain()
        return self.checks

    # -- helpers

    def _label(self, batch: SampleBatch, what: str) -> TeacherLabels:
        labels = self.teacher.label(batch)
        if not isinstance(labels, TeacherLabels):
            raise TeacherError(f"{self.info.name}: expected TeacherLabels, got {type(labels).__name__}")
        if not labels.ok.all():
            bad = int(np.flatnonzero(~labels.ok)[0])
            raise TeacherError(f"{self.info.name}: refused {what}, sample {bad}: {labels.reasons[bad]}")
        return labels

    def _add(self, name: str, figure: float, limit: float, unit: str, note: str = "") -> None:
        self.checks.append(Check(name, bool(figure <= limit), float(figure), limit, unit, note))

    def _skip(self, name: str, note: str) -> None:
        self.checks.append(Check(name, None, np.nan, np.nan, "", note))

    def _compare(self, name: str, labels: TeacherLabels, energy: Floats, forces: Floats, factor: float = 1.0) -> None:
        self._add(f"{name}: energy", np.abs(labels.energy - energy).max(), factor * self.energy_limit, "eV")
        # Forces are rounded to float32 when they are stored.
        limit = 10 * self.resolution + 1e-5 * max(1.0, float(np.abs(self.labels.forces).max()))
        limit += 0.0 if self.info.precision == "float64" else 5e-4
        self._add(f"{name}: forces", np.abs(labels.forces - forces).max(), factor * limit, "eV/angstrom")

    def _changed(self, change: Callable[[int], Atoms], only: npt.NDArray[np.bool_] | None = None) -> SampleBatch:
        frames = [change(i) for i in range(len(self.batch)) if only is None or only[i]]
        return SampleBatch.from_ase(frames).astype("float64").structures()

    def _frame(self, i: int) -> Atoms:
        return self.batch[i : i + 1].to_ase()[0]

    @property
    def _periodic(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.batch.pbc.all(axis=1))

    # -- checks

    def _contract(self) -> None:
        labels, n, atoms = self.labels, len(self.batch), self.batch.n_atoms_total
        problems = []
        wanted: list[tuple[str, Any, tuple[int, ...], str]] = [
            ("energy", labels.energy, (n,), "float64"),
            ("forces", labels.forces, (atoms, 3), "float32"),
            ("ok", labels.ok, (n,), "bool"),
        ]
        if "stress" in self.info.properties:
            wanted.append(("stress", labels.stress, (n, 6), "float32"))
        for name, array, shape, dtype in wanted:
            if array is None or array.shape != shape or array.dtype != dtype:
                got = "nothing" if array is None else f"{array.shape} {array.dtype}"
                problems.append(f"{name}: expected {shape} {dtype}, got {got}")
        if labels.stress is not None and not np.isnan(labels.stress[~self._periodic]).all():
            problems.append("stress: expected NaN for samples that are not periodic in three directions")
        if labels.stress is not None and np.isnan(labels.stress[self._periodic]).any():
            problems.append("stress: NaN for a crystal")
        self._add("shapes, dtypes, units of the answer", len(problems), 0, "problems", "; ".join(problems))

    def _untouched(self) -> None:
        before = {name: array.copy() for name, array in self.batch.columns.items()}
        self._label(self.batch, "the samples")
        changed = sum(not np.array_equal(array, self.batch.columns[name]) for name, array in before.items())
        self._add("input is not changed", changed, 0, "columns")

    def _again(self) -> None:
        self._compare("the same again", self._label(self.batch, "the samples"), self.labels.energy, self.labels.forces)

    def _singles(self) -> None:
        singles = [self._label(self.batch[i : i + 1], "a single sample") for i in range(len(self.batch))]
        joined = TeacherLabels(
            np.concatenate([one.energy for one in singles]), np.concatenate([one.forces for one in singles]), None,
            np.concatenate([one.ok for one in singles]), (),
        )  # fmt: skip
        self._compare("one by one", joined, self.labels.energy, self.labels.forces)

    def _permuted(self) -> None:
        orders = [self.rng.permutation(int(n)) for n in self.batch.n_atoms]
        labels = self._label(self._changed(lambda i: self._frame(i)[orders[i]]), "permuted atoms")
        forces = [self.labels.forces[a:b][order] for a, b, order in self._spans(orders)]
        self._compare("permuted atoms", labels, self.labels.energy, np.concatenate(forces))

    def _spans(self, extra: Sequence[Any]) -> list[tuple[int, int, Any]]:
        starts = self.batch.offsets
        return [(int(starts[i]), int(starts[i + 1]), extra[i]) for i in range(len(self.batch))]

    def _translated(self) -> None:
        shift = self.rng.normal(0, 3, (len(self.batch), 3))

        def move(i: int) -> Atoms:
            frame = self._frame(i)
            frame.positions += shift[i]
            return frame

        labels = self._label(self._changed(move), "moved samples")
        self._compare("translated", labels, self.labels.energy, self.labels.forces)
        epsilon = np.finfo(np.float64 if self.info.precision == "float64" else np.float32).eps
        seen = float(np.abs(labels.energy - self.labels.energy).max()) + 50 * float(epsilon)  # at least that of 50 eV
        self.noise = min(self.resolution, seen)

    def _rotated(self) -> None:
        turns = [np.linalg.qr(self.rng.normal(size=(3, 3)))[0] for _ in range(len(self.batch))]
        turns = [turn * np.sign(np.linalg.det(turn)) for turn in turns]

        def turn(i: int) -> Atoms:
            frame = self._frame(i)
            frame.set_cell(frame.cell.array @ turns[i])
            frame.positions = frame.positions @ turns[i]
            return frame

        labels = self._label(self._changed(turn), "rotated samples")
        forces = [self.labels.forces[a:b] @ q for a, b, q in self._spans(turns)]
        if self.info.equivariant:
            self._compare("rotated", labels, self.labels.energy, np.concatenate(forces))
        else:
            gap = np.abs(labels.forces - np.concatenate(forces)).max()
            self._report("rotated: forces", gap, "eV/angstrom", "not equivariant by construction: reported")
            self._report("rotated: energy", np.abs(labels.energy - self.labels.energy).max(), "eV", "reported")
        if "stress" in self.info.properties and self._periodic.any():
            from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress

            assert labels.stress is not None
            assert self.labels.stress is not None
            worst = 0.0
            for i in np.flatnonzero(self._periodic):
                full = voigt_6_to_full_3x3_stress(self.labels.stress[i].astype(float))
                expected = full_3x3_to_voigt_6_stress(turns[i].T @ full @ turns[i])
                worst = max(worst, float(np.abs(labels.stress[i] - expected).max()))
            if self.info.equivariant:
                self._add("rotated: stress", worst, self._stress_limit(), "eV/angstrom^3")
            else:
                self._report("rotated: stress", worst, "eV/angstrom^3", "reported")

    def _report(self, name: str, figure: float, unit: str, note: str) -> None:
        self.checks.append(Check(name, None, float(figure), np.nan, unit, note))

    def _images(self) -> None:
        if not self._periodic.any():
            self._skip("periodic images", "labels no crystals")
            return

        def move(i: int) -> Atoms:
            frame = self._frame(i)
            if frame.pbc.all():
                frame.positions += self.rng.integers(-2, 3, (len(frame), 3)) @ frame.cell.array
            return frame

        labels = self._label(self._changed(move), "images")
        self._compare("periodic images", labels, self.labels.energy, self.labels.forces, 2)

    def _supercell(self) -> None:
        """Compare with crystals twice as long: twice the energy, the same forces."""
        only = self._periodic
        if not only.any():
            self._skip("supercell", "labels no crystals")
            return
        labels = self._label(self._changed(lambda i: self._frame(i) * (1, 1, 2), only), "supercells")
        forces = [np.tile(self.labels.forces[a:b], (2, 1)) for a, b, periodic in self._spans(only.tolist()) if periodic]
        self._compare("supercell", labels, 2 * self.labels.energy[only], np.concatenate(forces), 3)

    def _copies(self) -> None:
        """Compare with two molecules 40 angstrom apart: twice the energy of one."""
        only = ~self.batch.pbc.any(axis=1)
        if not only.any():
            self._skip("two distant copies", "labels no molecules")
            return

        def double(i: int) -> Atoms:
            frame = self._frame(i)
            other = frame.copy()
            other.positions += [40.0, 0.0, 0.0]
            both = frame + other
            both.info = {"charge": 0, "multiplicity": 1}
            return both

        # Open shells couple: two doublets are a singlet or a triplet, whose energies differ in some methods.
        closed = only & (self.batch.multiplicity == 1)
        if not closed.any():
            self._skip("two distant copies", "only open shells among the samples")
            return
        labels = self._label(self._changed(double, closed), "two copies")
        difference = np.abs(labels.energy - 2 * self.labels.energy[closed]).max()
        self._add(
            "two distant copies: energy", difference, 3 * self.energy_limit + 1e-3, "eV", "1e-3 for long-range tails"
        )

    def _gradient(self) -> None:
        """Compare forces along random directions with a five-point stencil of the energy."""
        directions = self.rng.normal(size=(self.batch.n_atoms_total, 3))
        slope = np.zeros(len(self.batch))
        for k, weight in _STENCIL:
            positions = self.batch.positions + k * STEP * directions
            moved = self._with(positions=positions)
            slope += weight * self._label(moved, "moved atoms").energy / STEP
        along = np.add.reduceat((self.labels.forces.astype(float) * directions).sum(axis=1), self.batch.offsets[:-1])
        gap = np.abs(along + slope) / np.sqrt(3 * self.batch.n_atoms)
        if self.info.conservative:
            limit = 10 * self.noise / STEP + (0.005 if self.info.precision == "float64" else 0.05)
            self._add("forces against -dE/dx", gap.max(), limit, "eV/angstrom", "five-point stencil")
        else:
            self._report("forces against -dE/dx", gap.max(), "eV/angstrom", "forces are a head of their own: reported")

    def _with(self, **columns: Any) -> SampleBatch:
        named = {name: self.batch.columns[name] for name in ("n_atoms", "numbers", "positions", "cell", "pbc", "charge",
                                                             "multiplicity")}  # fmt: skip
        return SampleBatch(**{**named, **columns})

    def _stress_limit(self) -> float:
        volumes = np.abs(np.linalg.det(self.batch.cell[self._periodic]))
        return float(10 * self.noise / STRAIN / volumes.min() + 1e-4)

    def _stress(self) -> None:
        if "stress" not in self.info.properties or not self._periodic.any():
            self._skip("stress against dE/dstrain", "has no stress")
            return
        assert self.labels.stress is not None
        only = self._periodic
        volumes = np.abs(np.linalg.det(self.batch.cell[only]))
        worst = 0.0
        for v, (a, b) in enumerate(((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))):
            slope = np.zeros(int(only.sum()))
            for k, weight in _STENCIL:
                strain = np.eye(3)
                strain[a, b] += k * STRAIN / 2
                strain[b, a] += k * STRAIN / 2

                def deform(i: int, strain: Floats = strain) -> Atoms:
                    frame = self._frame(i)
                    frame.set_cell(frame.cell.array @ strain, scale_atoms=True)
                    return frame

                energy = self._label(self._changed(deform, only), "strained crystals").energy
                # A normal component is strained by k STRAIN, a shear component by k STRAIN / 2 twice.
                slope += weight * energy / STRAIN
            worst = max(worst, float(np.abs(self.labels.stress[only, v] - slope / volumes).max()))
        note = "tension positive, five-point stencil"
        if self.info.conservative:
            self._add("stress against dE/dstrain", worst, 3 * self._stress_limit(), "eV/angstrom^3", note)
        else:
            self._report("stress against dE/dstrain", worst, "eV/angstrom^3", "a head of its own: reported")

    def _domain(self) -> None:
        """See that what the teacher does not know is refused with a reason, and that the rest is labelled."""
        from ase import Atoms as Frame

        strange = []
        if self.info.elements is not None:
            unknown = next((z for z in range(118, 0, -1) if z not in self.info.elements), None)
            if unknown is not None:
                cell = np.eye(3) * 6.0 if "periodic" in self.info.domains else None
                strange.append(Frame([unknown, unknown], [[0, 0, 0], [0, 0, 3.0]], cell=cell, pbc=cell is not None))
        known = self._frame(0)
        if "periodic" not in self.info.domains:
            strange.append(Frame(known.numbers, known.positions, cell=np.eye(3) * 15.0, pbc=True))
        if "molecule" not in self.info.domains:
            strange.append(Frame(known.numbers, known.positions))
        mixed = concatenate(
            [SampleBatch.from_ase([frame]).astype("float64").structures() for frame in [*strange, known]]
        )
        labels = self.teacher.label(mixed)
        silent = sum(bool(ok) or not reason for ok, reason in zip(labels.ok[:-1], labels.reasons[:-1], strict=True))
        silent += int(not labels.ok[-1])
        self._add("strange samples are refused with a reason", silent, 0, "of " + str(len(strange) + 1))


def failed(checks: Sequence[Check]) -> list[Check]:
    """Return the checks that did not pass."""
    return [one for one in checks if one.passed is False]
