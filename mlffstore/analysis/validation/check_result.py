"""The result of a check of the dataset as a whole: what it found, on how many samples, or why it was not measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from mlffstore.analysis.validation.policy import Rule

#: ``nothing``: there are no such labels or samples, so that the check is of no interest here.
State = Literal["pass", "fail", "not measured", "nothing"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line of the table of checks.

    Attributes
    ----------
    check : str
    severity : {"error", "warning", "off"}
    state : {"pass", "fail", "not measured", "nothing"}
    text : str
        What was found, or why it was not measured and what to do about that; for a failure what was expected, what was
        there, and what to do.
    teacher : str
        The teacher whose labels were checked; empty for checks of structures.
    n : int
        Pairs, bonds or samples that were measured.
    unit : str
        What `n` counts.
    required : bool
        Whether the policy demands that the check was measured.
    """

    check: str
    severity: str
    state: State
    text: str
    teacher: str = ""
    n: int = 0
    unit: str = "samples"
    required: bool = False

    @property
    def problem(self) -> str:
        """The severity of the problem that this result is: ``error``, ``warning``, or empty if it is none.

        A check that was not measured is an error if the policy demands that it was.
        """
        if self.severity == "off":
            return ""
        if self.state == "fail":
            return self.severity
        return "error" if self.state == "not measured" and self.required else ""

    @property
    def mark(self) -> str:
        """``pass``, ``FAIL``, ``warn``, or ``-`` if the check was not measured or had nothing to measure."""
        marks = {"error": "FAIL", "warning": "warn", "": "pass" if self.state in ("pass", "fail") else "-"}
        return marks[self.problem]

    @property
    def measured_on(self) -> str:
        """On how many pairs, bonds or samples it was measured, as text."""
        return f"{self.n:,} {self.unit}" if self.n else ""

    @property
    def figure(self) -> str:
        """The state and the text as one sentence."""
        text = f"{self.teacher}: {self.text}" if self.teacher else self.text
        return f"not measured: {text}" if self.state == "not measured" else text

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain types."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Check:
    """Makes the results of one check and teacher."""

    name: str
    rule: Rule
    teacher: str = ""
    unit: str = "samples"

    def _make(self, state: State, text: str, n: int) -> CheckResult:
        return CheckResult(self.name, self.rule.severity, state, text, self.teacher, n, self.unit, self.rule.required)

    def judged(self, good: bool, text: str, n: int, complaint: str = "") -> CheckResult:
        """Return that the check was measured; `complaint` takes the place of the text if it failed."""
        return self._make("pass" if good else "fail", text if good else complaint or text, n)

    def not_measured(self, text: str, n: int = 0) -> CheckResult:
        """Return that the check could not be measured; the text says why and what to do."""
        return self._make("not measured", text, n)

    def nothing(self, text: str) -> CheckResult:
        """Return that there is nothing to measure."""
        return self._make("nothing", text, 0)
