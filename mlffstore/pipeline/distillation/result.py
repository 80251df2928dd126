"""What students did with a dataset: a table, a verdict, a picture."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.errors import missing_dependency

if TYPE_CHECKING:
    from pathlib import Path

#: The forces of the largest share must be better than no forces at all by this factor, and than those of the smallest share.
_SKILL, _GAIN = 0.6, 1.0


@dataclass(frozen=True, slots=True)
class Trained:
    """Students that learned from the same samples, each with weights and order of its own.

    Attributes
    ----------
    what : str
        ``"share"`` of the training split, or ``"rattled"``: its samples that were displaced at random, without teacher calls
        on the way.
    share : float
        Of the roots.
    samples, roots : int
        What they learned from.
    force_mae : tuple of float
        For each student, the mean absolute error of the components of the forces of the held-out samples, eV/angstrom.
    energy_mae : tuple of float
        Likewise of the energy per atom, eV.
    trajectory_mae : tuple of float
        Likewise of the forces on frames of new dynamics by the teacher; empty if there are none.
    groups : dict of str to float
        `force_mae`, the mean of all students, by domain, and by class of seeds and sampler.
    """

    what: str
    share: float
    samples: int
    roots: int
    force_mae: tuple[float, ...]
    energy_mae: tuple[float, ...]
    trajectory_mae: tuple[float, ...] = ()
    groups: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DistilCheck:
    """The result of `distil_check`.

    Attributes
    ----------
    title, teacher : str
    trained : tuple of Trained
        Growing shares, and at last the baseline, if there are samples for one.
    held_out : int
        Samples of the test split that all students were tested on.
    unknown : int
        Test samples that were left out, since they hold elements that the smallest share lacks, or share a root with it.
    no_forces : float
        Error of a model that predicts no forces, eV/angstrom: the mean size of a component.
    no_forces_groups : dict of str to float
        Likewise by group.
    sizes : dict of str to int
        Held-out samples of each group.
    steps, seeds : int
        Of each training, and students of each share.
    calls_per_sample : float or None
        Structures that teachers labelled for a sample of the store; None if it is not on record.
    trajectory : int
        Frames of new dynamics.
    seconds : float
        Time of processor.
    """

    title: str
    teacher: str
    trained: tuple[Trained, ...]
    held_out: int
    unknown: int
    no_forces: float
    no_forces_groups: dict[str, float]
    sizes: dict[str, int]
    steps: int
    seeds: int
    calls_per_sample: float | None
    trajectory: int
    seconds: float

    @property
    def shares(self) -> tuple[Trained, ...]:
        """The learning curve."""
        return tuple(one for one in self.trained if one.what == "share")

    @property
    def problems(self) -> list[str]:
        """Why the students do not prove the dataset; empty if they do."""
        first, last = (float(np.mean(one.force_mae)) for one in (self.shares[0], self.shares[-1]))
        out = []
        if last > _SKILL * self.no_forces:
            out.append(
                f"the students of all samples have {1e3 * last:.0f} meV/angstrom, expected less than {_SKILL} of the "
                f"{1e3 * self.no_forces:.0f} of no forces at all: more samples or more steps are needed, or the labels do "
                "not follow from the structures"
            )
        if len(self.shares) > 1 and last >= _GAIN * first:
            out.append(
                f"more samples do not help: {1e3 * first:.0f} meV/angstrom with {self.shares[0].samples:,} samples, "
                f"{1e3 * last:.0f} with {self.shares[-1].samples:,}"
            )
        return out

    @property
    def ok(self) -> bool:
        """Whether students learn from the dataset, and more from more of it."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return the result as a document."""
        return {**dataclasses.asdict(self), "ok": self.ok, "problems": self.problems}

    def plot(self, path: str | Path) -> None:
        """Write the learning curve as a picture.

        Parameters
        ----------
        path : path
            Its suffix says the format, such as ``curve.png``.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise missing_dependency("matplotlib", "report", "the picture of a learning curve") from error
        figure = Figure(figsize=(6.4, 4.4), layout="constrained")
        axes = figure.subplots()
        names = ["all", *(name for name in ("molecules", "periodic") if name in self.shares[-1].groups)]
        samples = [one.samples for one in self.shares]
        for name in names if len(names) > 2 else names[:1]:
            curve = [
                1e3 * (float(np.mean(one.force_mae)) if name == "all" else one.groups[name]) for one in self.shares
            ]
            axes.plot(samples, curve, marker="o", label=f"{name}, held-out roots")
        if self.trajectory:
            curve = [1e3 * float(np.mean(one.trajectory_mae)) for one in self.shares]
            axes.plot(samples, curve, marker="s", linestyle="--", label="new dynamics by the teacher")
        for one in self.trained:
            if one.what == "rattled":
                axes.plot([one.samples], [1e3 * float(np.mean(one.force_mae))], "x", color="0.3", label="rattled only")
        axes.axhline(1e3 * self.no_forces, color="0.7", linewidth=1, label="no forces")
        axes.set(xscale="log", yscale="log", xlabel="samples learned from", ylabel="error of the forces, meV/Å (MAE)")
        axes.yaxis.set_major_formatter("{x:.0f}")
        axes.yaxis.set_minor_formatter("{x:.0f}")
        # Not the title of the source, which is a path: the picture is shown to others.
        axes.set_title(f"Students of {self.teacher}, {self.steps:,} steps each", fontsize=9)
        axes.legend(fontsize=8)
        figure.savefig(path, dpi=150)
