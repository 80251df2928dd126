"""`validate` and its result, `Validation`."""

from __future__ import annotations

import copy
import functools
import json
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from mlffstore.analysis.validation.acceptance import Line, table
from mlffstore.analysis.validation.candidates import compared
from mlffstore.analysis.validation.check_result import Check, CheckResult
from mlffstore.analysis.validation.dataset_checks import DATASET_CHECKS, check_dataset, unmeasured
from mlffstore.analysis.validation.measure import COLUMNS, Measured, measure, merge
from mlffstore.analysis.validation.policy import load_policy
from mlffstore.analysis.validation.property_checks import judge_properties
from mlffstore.analysis.validation.property_figures import property_pass
from mlffstore.analysis.validation.sample_checks import ADVICE, SAMPLE_CHECKS, judge_samples, references
from mlffstore.errors import DataError, missing_dependency
from mlffstore.lazy.blocks import Pass, sample_pass
from mlffstore.lazy.inputs import one_form, teachers_of
from mlffstore.lazy.sources import as_samples

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from mlffstore.analysis.validation.policy import Policy
    from mlffstore.analysis.validation.property_figures import PropertyFigures
    from mlffstore.analysis.validation.recheck import Recheck
    from mlffstore.analysis.validation.work import Work
    from mlffstore.contracts.protocols import Teacher
    from mlffstore.data.schema import Array
    from mlffstore.store.facade import Store
    from mlffstore.store.samples import Samples

#: Number of samples whose indices a finding lists.
_EXAMPLES = 5
#: Figures of every sample, and of every sample and teacher, with their attributes.
_OF_SAMPLES = {
    "d_min": {"units": "angstrom", "long_name": "smallest distance over all periodic images"},
    "contact": {"units": "1", "long_name": "smallest distance over the sum of covalent radii"},
    "volume_per_atom": {"units": "angstrom^3", "long_name": "volume of the cell per atom"},
}
_OF_TEACHERS = {
    "force_max": {"units": "eV/angstrom", "long_name": "largest force on an atom"},
    "net_force": {"units": "eV/angstrom", "long_name": "norm of the sum of the forces, per atom"},
    "net_torque": {"units": "eV", "long_name": "norm of the torque of a molecule, per atom"},
    "stress_max": {"units": "eV/angstrom^3", "long_name": "largest component of the stress"},
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A check of single samples that some of them fail."""

    check: str
    severity: str
    n_samples: int
    examples: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DatasetProblem:
    """Something wrong with the dataset as a whole, or something that the policy demands and that was not measured.

    Attributes
    ----------
    check : str
    severity : {"error", "warning"}
    text : str
        What was expected, what was there, and what to do.
    """

    check: str
    severity: str
    text: str


class Validation:
    """The validation of a dataset. The first access to a result reads the whole dataset, once.

    Made by `validate`.
    """

    def __init__(
        self,
        ds: xr.Dataset,
        policy: Policy,
        teachers: Mapping[str, Mapping[str, Any]],
        teacher: Sequence[Teacher] | Literal["at hand"],
        seed: int,
        nbytes: int | None,
    ) -> None:
        self._ds, self.policy, self._about, self._teacher, self._seed = ds, policy, dict(teachers), teacher, seed
        self._nbytes = nbytes
        self._pass: Pass[Measured] = sample_pass(ds, COLUMNS, measure, merge)
        self._property_pass = property_pass(ds)

    def compute(self) -> Validation:
        """Run the pass now and return self."""
        _ = self.checks
        return self

    # -- findings ------------------------------------------------------------------------------------------

    @functools.cached_property
    def _measured(self) -> Measured:
        return self._pass.compute()

    @functools.cached_property
    def _properties(self) -> PropertyFigures | None:
        return None if self._property_pass is None else self._property_pass.compute()

    @functools.cached_property
    def _work(self) -> Work:
        return compared(self._ds, self._measured.samples, self._seed)

    @functools.cached_property
    def _at_hand(self) -> tuple[Sequence[Teacher], dict[str, str]]:
        if self._teacher != "at hand":
            return self._teacher, {}
        from mlffstore.analysis.validation.at_hand import teachers_at_hand

        return teachers_at_hand(self._about)

    @functools.cached_property
    def _rechecked(self) -> dict[str, Recheck]:
        if not self._at_hand[0]:
            return {}
        from mlffstore.analysis.validation.recheck import recheck

        quick = self._teacher == "at hand"
        return {one.info.name: recheck(self._ds, one, self.policy, self._seed, quick=quick) for one in self._at_hand[0]}

    @functools.cached_property
    def _failed(self) -> dict[str, Array]:
        failed = judge_samples(self._measured, self.policy, self._about)
        for check, bad in judge_properties(
            self._properties, self.policy, len(self._measured.samples["n_atoms"])
        ).items():
            failed[check] |= bad
        for rechecked in self._rechecked.values():
            for check, index in rechecked.bad.items():
                failed[check][index] = True
        for check, rule in self.policy.checks.items():
            if check in failed and rule.severity == "off":
                failed[check][:] = False
        return failed

    @functools.cached_property
    def checks(self) -> list[CheckResult]:
        """The checks of the dataset as a whole: what each found, on how many samples, or why it was not measured."""
        rechecked = {name: one.result(name, self.policy) for name, one in self._rechecked.items()}
        for name, reason in self._at_hand[1].items():
            rechecked[name] = Check("teacher_labels", self.policy.checks["teacher_labels"], name).not_measured(reason)
        return check_dataset(
            self._measured, self._work, self._failed, self.policy, self._about, rechecked, self._properties
        )

    @functools.cached_property
    def problems(self) -> list[DatasetProblem]:
        """What is wrong with the dataset as a whole, and what the policy demands and was not measured."""
        results = unmeasured(self._measured, self.policy) + self.checks
        return [DatasetProblem(one.check, one.problem, one.figure) for one in results if one.problem]

    @functools.cached_property
    def invalid(self) -> Array:
        """Which samples fail a check of severity error, shape (S,), bool."""
        return self._worst("error")

    def _worst(self, severity: str) -> Array:
        chosen = [bad for check, bad in self._failed.items() if self.policy.checks[check].severity == severity]
        return np.logical_or.reduce(chosen) if chosen else np.zeros(len(self._measured.samples["n_atoms"]), bool)

    @property
    def findings(self) -> list[Finding]:
        """Checks that some samples fail, errors first."""
        out = [
            Finding(
                check,
                self.policy.checks[check].severity,
                int(bad.sum()),
                tuple(np.flatnonzero(bad)[:_EXAMPLES].tolist()),
            )
            for check, bad in self._failed.items()
            if bad.any()
        ]
        return sorted(out, key=lambda finding: finding.severity != "error")

    def failed(self, check: str) -> Array:
        """Return the indices of the samples that fail a check, in the order of the dataset."""
        if check not in self._failed:
            raise DataError(f"check: expected one of {', '.join(SAMPLE_CHECKS)}, got {check!r}")
        return np.flatnonzero(self._failed[check])

    @functools.cached_property
    def flags(self) -> xr.Dataset:
        """Per-sample results: ``flags`` (a bit for each check that fails), ``severity`` and the figures behind them.

        Returns
        -------
        Dataset
            ``flags`` (sample,) uint64 with CF ``flag_masks`` and ``flag_meanings``; ``severity`` (sample,) uint8: 0 fine,
            1 warning, 2 error; ``d_min``, ``contact``, ``volume_per_atom`` (sample,); ``force_max``, ``net_force``,
            ``net_torque``, ``stress_max``, ``energy_residual`` (sample, teacher). ``content_hash`` and the attributes
            ``store_uuid`` and ``store_version`` say which samples they are, where the dataset has them.
        """
        s, dims = self._measured.samples, ("sample", "teacher")
        bits = np.zeros(len(s["n_atoms"]), np.uint64)
        for check, mask in zip(SAMPLE_CHECKS, flag_masks(), strict=True):
            bits |= self._failed[check] * mask
        severity = np.where(self.invalid, 2, np.where(self._worst("warning"), 1, 0)).astype(np.uint8)
        residual = [references(self._measured, s["energy"][:, t])[1] for t in range(s["energy"].shape[1])]
        levels = {"flag_values": np.arange(3, dtype=np.uint8), "flag_meanings": "fine warning error"}
        variables: dict[str, Any] = {
            "flags": ("sample", bits, flag_attributes()),
            "severity": ("sample", severity, levels),
            **{name: ("sample", s[name], about) for name, about in _OF_SAMPLES.items()},
            **{name: (dims, s[name], about) for name, about in _OF_TEACHERS.items()},
            "energy_residual": (
                dims, np.stack(residual, axis=1) if residual else s["energy"],
                {"units": "eV", "long_name": "energy per atom above fitted energies of the elements"},
            ),
        }  # fmt: skip
        if "content_hash" in self._ds:
            variables["content_hash"] = ("sample", self._ds["content_hash"].values)
        about = {name: self._ds.attrs[name] for name in ("store_uuid", "store_version") if name in self._ds.attrs}
        return xr.Dataset(variables, {"teacher": list(self._about)} if self._about else {}, about)

    # -- the verdict ---------------------------------------------------------------------------------------------

    @functools.cached_property
    def acceptance(self) -> list[Line]:
        """The acceptance table: quantity, target, value, and whether it passes. A line without a value does not pass."""

        def diversity() -> float:
            from mlffstore.analysis.statistics.diversity import diversity_by_domain

            return float(np.min([one.score for one in diversity_by_domain(self._ds).values()] or [np.nan]))

        return table(self.policy, self._measured, self._failed, self.invalid, self._nbytes, diversity)

    def of_size(self, nbytes: int) -> Validation:
        """Return the validation with another size of the dataset, for the line `gigabytes`. Nothing is measured again."""
        other = copy.copy(self)
        other._nbytes = nbytes
        other.__dict__.pop("acceptance", None)
        return other

    @property
    def ok(self) -> bool:
        """Whether every line of the acceptance table passes and the dataset as a whole has no error."""
        return all(line.passed for line in self.acceptance) and not any(
            problem.severity == "error" for problem in self.problems
        )

    def to_json(self) -> dict[str, Any]:
        """Return verdict, acceptance table and findings as plain types."""
        return {
            "ok": self.ok,
            "samples": len(self._measured.samples["n_atoms"]),
            "invalid": int(self.invalid.sum()),
            "acceptance": [{k: getattr(line, k) for k in line.__slots__} for line in self.acceptance],
            "checks": [one.to_json() for one in self.checks],
            "problems": [{k: getattr(problem, k) for k in problem.__slots__} for problem in self.problems],
            "findings": [{k: getattr(finding, k) for k in finding.__slots__} for finding in self.findings],
            "policy": self.policy.to_json(),
        }

    def table(self) -> str:
        """Return the acceptance table, the checks of the dataset and the findings as text."""
        n = len(self._measured.samples["n_atoms"])
        lines = _aligned([(line.mark, line.quantity, line.target, line.figure) for line in self.acceptance])
        lines += _aligned(
            [(one.mark, one.check, one.measured_on, one.figure) for one in self.checks if not one.problem]
        )
        lines += [f"{problem.severity}: {problem.check}: {problem.text}" for problem in self.problems]
        for finding in self.findings:
            examples = ", ".join(map(str, finding.examples))
            text = f"{finding.n_samples:,} samples ({finding.n_samples / n:.2g} of all), such as {examples}"
            advice = f"; {ADVICE[finding.check]}" if finding.check in ADVICE else ""
            lines.append(f"{finding.severity}: {finding.check}: {text}{advice}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        if "_measured" not in self.__dict__:
            return f"<Validation of {self._ds.sizes['sample']:,} samples, not computed yet>"
        return f"<Validation: {'ok' if self.ok else 'FAILED'}>\n{self.table()}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return ["  ".join([*map(str.ljust, row[:-1], widths), row[-1]]).rstrip() for row in rows]


def flag_masks() -> Array:
    """Return the bit of each check of samples, shape (checks,), uint64."""
    return np.uint64(1) << np.arange(len(SAMPLE_CHECKS), dtype=np.uint64)


def flag_attributes() -> dict[str, Any]:
    """Return the CF attributes of a column of flags."""
    return {
        "units": "1",
        "long_name": "checks that the sample fails",
        "flag_masks": flag_masks(),
        "flag_meanings": " ".join(SAMPLE_CHECKS),
    }


def validate(
    data: xr.Dataset | Samples | Store | str | os.PathLike[str],
    policy: Policy | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    *,
    teacher: Teacher | Sequence[Teacher] | Literal["at hand"] | None = None,
    nbytes: int | None = None,
    seed: int = 0,
) -> Validation:
    """Validate a dataset, lazily.

    Parameters
    ----------
    data : Dataset, Samples, Store, path or URL
        A Dataset is one that the engine ``mlffstore`` opened, cut along `sample` and `atom` only.
    policy : Policy, mapping, name or path, optional
        The severity and the limits of each check, and the acceptance table; see ``docs/explanation/validation.md``.
    teacher : Teacher, sequence of Teacher, or "at hand", optional
        The teachers of the labels. Energy, forces and stress of some samples are compared with those of the teacher, by
        finite differences of its energies. With ``"at hand"`` they are those that are installed here and have the
        fingerprints that are recorded with the labels, on at most 50 samples each.
    nbytes : int, optional
        Size of the dataset for the line `gigabytes` of the acceptance table. The default is the size of the columns on
        disk; the size of a Dataset or a selection is not known.
    seed : int, optional
        Seed of the choice of these samples, and of the samples that are compared with one another.

    Returns
    -------
    Validation
        The first access to a result reads the dataset. Dask decides where the pass runs.

    Raises
    ------
    PolicyError
        If the policy is wrong.
    DataError
        If the data are not samples.
    MissingDependencyError
        If the acceptance table asks for the diversity and the package `quests` is not installed.

    Notes
    -----
    One pass over the data, in blocks of about 500,000 atoms; less than 200 bytes per sample are kept. Then at most 1,200
    molecules, 1,200 crystals, and 1,200 slabs and wires of each teacher are read again, and compared with one another.
    """
    rules = load_policy(policy)
    if "diversity" in rules.acceptance and find_spec("quests") is None:  # now, not after the pass
        raise missing_dependency("quests", "diversity", "the diversity of the acceptance table")
    recorded: dict[str, Mapping[str, Any]] = {}
    if not isinstance(data, xr.Dataset):
        snapshot = as_samples(data)
        recorded = {name: snapshot.teacher_info(name) for name in snapshot.teachers}
        nbytes, data = snapshot.nbytes_on_disk if nbytes is None else nbytes, snapshot.to_xarray()
    else:
        recorded = json.loads(data.attrs.get("teachers", "{}"))
    ds = one_form(data, ("n_atoms", "numbers", "positions", "cell", "pbc"))
    about = {name: recorded.get(name, {}) for name in teachers_of(ds)}
    teachers: Any = teacher
    if teacher != "at hand":
        teachers = () if teacher is None else tuple(teacher) if isinstance(teacher, (list, tuple)) else (teacher,)
    return Validation(ds, rules, about, teachers, seed, nbytes)


__all__ = ["DATASET_CHECKS", "DatasetProblem", "Finding", "Line", "Validation", "validate"]
