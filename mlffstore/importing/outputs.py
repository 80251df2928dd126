"""Reads in the outputs of electronic structure programs what ASE's readers drop: charge, multiplicity, convergence, axes."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from mlffstore.errors import DataError
from mlffstore.importing.packed import open_binary, open_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class OutputFacts:
    """What an output file says of all its structures.

    Attributes
    ----------
    charge, multiplicity : int or None
        None where it does not say.
    problems : tuple of str
        Why no structure of the file can be imported.
    warnings : tuple of str
    unconverged : frozenset of int
        Structures, counted from 0, whose electronic loop ended without convergence.
    n_loops : int
        Electronic loops that were looked at; 0 if they cannot be told apart.
    """

    charge: int | None = None
    multiplicity: int | None = None
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unconverged: frozenset[int] = frozenset()
    n_loops: int = 0


@dataclass(frozen=True, slots=True)
class _Patterns:
    """What the lines of a program's output look like: charge, multiplicity, a loop that did not converge."""

    charge: str = ""
    multiplicity: str = ""
    unconverged: str = ""


_PROGRAMS = {
    "gaussian-out": _Patterns(
        r"^ *Charge = *(-?\d+) Multiplicity = *\d+(?! in fragment)",
        r"^ *Charge = *-?\d+ Multiplicity = *(\d+)(?! in fragment)",
        r"Convergence failure",
    ),
    "orca-output": _Patterns(
        r"Total Charge +Charge +\.+ +(-?\d+)",
        r"Multiplicity +Mult +\.+ +(\d+)",
        r"SCF NOT CONVERGED|not fully converged",
    ),
    "nwchem-out": _Patterns(
        r"^ *Charge +: +(-?\d+)", r"Spin multiplicity *: *(\d+)", r"Calculation failed to converge"
    ),
    "gamess-us-out": _Patterns(
        r"CHARGE OF MOLECULE += +(-?\d+)", r"SPIN MULTIPLICITY += +(\d+)", r"SCF IS UNCONVERGED|SCF DID NOT CONVERGE"
    ),
    "aims-output": _Patterns(r"\| Charge += +(-?[\d.E+-]+)", "", r"Self-consistency cycle not converged"),
    "castep-castep": _Patterns(r"net charge of system +: +(-?[\d.]+)", "", r"has not reached the groundstate"),
    "espresso-out": _Patterns("", "", r"convergence NOT achieved"),
    "gpaw-out": _Patterns("", "", r"Did not converge"),
    "abinit-out": _Patterns("", "", r"was not enough SCF cycles to converge"),
}
#: Formats with labels of programs whose charge is not read.
_CHARGE_UNKNOWN = {
    "acemolecule-out", "gpaw-out", "onetep-out", "qbox", "turbomole", "turbomole-gradient", "dmol-arc", "abinit-out",
    "abinit-gsr", "dacapo-text", "gamess-us-punch", "nomad-json",
}  # fmt: skip
#: Bytes of lines that are looked at together, about.
_BLOCK_NBYTES = 1 << 18


def read_facts(path: Path, format: str) -> OutputFacts:
    """Return what an output file of a format of `ase.io` says of all its structures.

    Raises
    ------
    DataError
        If the file cannot be read as text.
    """
    special: dict[str, Callable[[Path], OutputFacts]] = {
        "vasp-xml": _vasprun, "vasp-out": _outcar, "espresso-out": _espresso, "gaussian-out": _gaussian,
    }  # fmt: skip
    if format in special:
        return special[format](path)
    if format in _PROGRAMS:
        return _scan(path, format)
    if format in _CHARGE_UNKNOWN:
        return OutputFacts(warnings=(_unknown_charge(format),))
    return OutputFacts()


def _unknown_charge(format: str) -> str:
    return f"the charge is not read from {format} files, so a charge of 0 is taken; the option charge names another"


@contextlib.contextmanager
def _lines(path: Path) -> Iterator[IO[str]]:
    try:
        with open_text(path) as file:
            yield file
    except (OSError, EOFError, UnicodeError) as error:
        raise DataError(f"{path}: expected an output file, got something that cannot be read ({error})") from error


def _read(path: Path, *readers: Callable[[list[str]], None]) -> None:
    """Give the lines of a file, many at a time, to each of these."""
    with _lines(path) as file:
        while lines := file.readlines(_BLOCK_NBYTES):
            for reader in readers:
                reader(lines)


class _Stated:
    """Gathers charge, multiplicity and loops without convergence from the lines of an output.

    Parameters
    ----------
    format : str
        One of `_PROGRAMS`.
    """

    def __init__(self, format: str) -> None:
        self._format = format
        self._patterns = [
            (name, re.compile(text))
            for name in ("charge", "multiplicity", "unconverged")
            if (text := getattr(_PROGRAMS[format], name))
        ]
        self._values: dict[str, set[str]] = {"charge": set(), "multiplicity": set()}
        self._failures = 0

    def __call__(self, lines: list[str]) -> None:
        for line in lines:
            for name, pattern in self._patterns:
                match = pattern.search(line)
                if match and name == "unconverged":
                    self._failures += 1
                elif match:
                    self._values[name].add(match[1])

    def facts(self) -> OutputFacts:
        """Return what the lines say."""
        problems, numbers = [], {}
        for name, texts in self._values.items():
            given = sorted({float(text) for text in texts})
            if len(given) > 1:
                several = ", ".join(f"{value:g}" for value in given)
                problems.append(
                    f"the file states several values as its {name} ({several}); split it into one file for each"
                )
            elif given and not given[0].is_integer():
                problems.append(f"expected a whole number as {name}, got {given[0]:g}")
            elif given:
                numbers[name] = int(given[0])
        warnings = []
        if self._failures:
            warnings.append(
                f"{self._failures} electronic loops did not converge: their energies and forces are not those of the "
                "ground state"
            )
        if "charge" not in numbers and not problems:
            warnings.append(_unknown_charge(self._format))
        return OutputFacts(numbers.get("charge"), numbers.get("multiplicity"), tuple(problems), tuple(warnings))


def _scan(path: Path, format: str) -> OutputFacts:
    """Look for charge, multiplicity and loops without convergence line by line."""
    stated = _Stated(format)
    _read(path, stated)
    return stated.facts()


class _Axes:
    """Looks for forces that are along other axes than the geometry before them.

    Gaussian prints forces along the axes of the input. If only "Standard orientation" was printed (keyword NoSymm absent,
    no "Input orientation"), the geometry that ASE reads is turned against them.
    """

    def __init__(self) -> None:
        self.turned = False
        self._seen: set[str] = set()
        self._no_symmetry = False

    def __call__(self, lines: list[str]) -> None:
        for line in lines:
            text = line.strip()
            if text.startswith("#"):
                self._no_symmetry |= "nosym" in text.lower() or "symmetry=none" in text.lower()
            elif text.endswith("orientation:"):
                self._seen.add(text.split()[0].lower())
            elif text.startswith("Center") and "Forces (Hartrees/Bohr)" in text:
                self.turned |= self._seen == {"standard"} and not self._no_symmetry
                self._seen = set()


def _gaussian(path: Path) -> OutputFacts:
    stated, axes = _Stated("gaussian-out"), _Axes()
    _read(path, stated, axes)
    facts = stated.facts()
    if not axes.turned:
        return facts
    problem = (
        "the geometry is in Gaussian's standard orientation and the forces are along the axes of the input, so they do "
        "not belong together; run it with NoSymm, or print the input orientation (#P, or IOp(2/9=...))"
    )
    return OutputFacts(facts.charge, facts.multiplicity, (*facts.problems, problem), facts.warnings)


def _charge_of(valence: float, electrons: float) -> tuple[int | None, tuple[str, ...]]:
    """Return the charge of a cell that has so many valence electrons when it is neutral, and problems."""
    charge = valence - electrons
    if abs(charge - round(charge)) > 1e-3:
        return None, (f"expected a whole charge, got {valence:g} - {electrons:g} = {charge:g} electrons",)
    return round(charge), ()


def _loops(unconverged: set[int], n_loops: int, charge: int | None, problems: tuple[str, ...]) -> OutputFacts:
    warnings: tuple[str, ...] = ()
    if unconverged:
        steps = ", ".join(str(i) for i in sorted(unconverged)[:5]) + (", ..." if len(unconverged) > 5 else "")
        warnings = (
            f"{len(unconverged)} of {n_loops} electronic loops did not converge (steps {steps}, from 0): their "
            "energies and forces are not those of the ground state; the column scf_converged marks them",
        )
    return OutputFacts(charge, None, problems, warnings, frozenset(unconverged), n_loops)


def _vasprun(path: Path) -> OutputFacts:
    """Count the electronic steps of every ionic step against NELM, and the electrons against the valence."""
    import xml.etree.ElementTree as ET

    steps, unconverged, n_loops, limit = 0, set(), 0, 0
    electrons, valence = None, 0.0
    try:
        with open_binary(path) as file:
            for _, element in ET.iterparse(file, events=("end",)):
                name = element.get("name")
                if element.tag == "scstep":
                    steps += 1
                    element.clear()
                elif element.tag == "i" and name == "NELM":
                    limit = int((element.text or "0").split()[0])
                elif element.tag == "i" and name == "NELECT":
                    electrons = float((element.text or "0").split()[0])
                elif element.tag == "array" and name == "atomtypes":
                    for row in element.iterfind("set/rc"):
                        cells = [(c.text or "").strip() for c in row.iterfind("c")]
                        if len(cells) >= 4:
                            valence += int(cells[0]) * float(cells[3])
                elif element.tag == "calculation":
                    if limit and steps >= limit:
                        unconverged.add(n_loops)
                    n_loops, steps = n_loops + 1, 0
                    element.clear()
    except (
        ET.ParseError,
        ValueError,
        OSError,
        EOFError,
    ):  # a file that was cut off: ASE's reader says so, or reads the whole steps
        pass
    charge, problems = _charge_of(valence, electrons) if electrons is not None and valence else (None, ())
    return _loops(unconverged, n_loops, charge, problems)


def _outcar(path: Path) -> OutputFacts:
    """Read how every electronic loop ended, and the electrons and the valence."""
    unconverged, n_loops, limit, last = set(), 0, 0, 0
    electrons, valences, counts = None, [], []
    with _lines(path) as file:
        for line in file:
            if "aborting loop" in line:
                if "not reached" in line or "unconverged" in line or (limit and last >= limit):
                    unconverged.add(n_loops)
                n_loops += 1
            elif match := re.search(r"Iteration +\d+\( *(\d+)\)", line):
                last = int(match[1])
            elif match := re.search(r"^ *NELM *= *(\d+)", line):
                limit = int(match[1])
            elif match := re.search(r"^ *NELECT *= *([\d.]+)", line):
                electrons = float(match[1])
            elif match := re.search(r"; *ZVAL *= *([\d.]+)", line):
                valences.append(float(match[1]))
            elif match := re.search(r"ions per type = +([\d ]+)", line):
                counts = [int(word) for word in match[1].split()]
    charge: int | None = None
    problems: tuple[str, ...] = ()
    if electrons is not None and counts and len(valences) >= len(counts):
        total = sum(n * z for n, z in zip(counts, valences, strict=False))
        charge, problems = _charge_of(total, electrons)
    return _loops(unconverged, n_loops, charge, problems)


class _Electrons:
    """Gathers the electrons, the valences and the sites of a Quantum ESPRESSO output."""

    def __init__(self) -> None:
        self.electrons: float | None = None
        #: Valence electrons of all sites, and how many sites there are.
        self.total, self.sites = 0.0, 0
        self._valences: dict[str, float] = {}
        self._table = ""

    def __call__(self, lines: list[str]) -> None:
        for line in lines:
            self._read(line)

    def _read(self, line: str) -> None:
        if match := re.search(r"number of electrons += +([\d.]+)", line):
            self.electrons = float(match[1])
        elif line.split()[:2] == ["atomic", "species"]:
            self._table = "species"
        elif "site n." in line and not self.sites:
            self._table = "sites"
        elif self._table:
            words = line.split()
            if len(words) < 3 or (self._table == "sites" and words[1] not in self._valences):
                self._table = ""
            elif self._table == "species":
                self._valences[words[0]] = float(words[1])
            else:
                self.total, self.sites = self.total + self._valences[words[1]], self.sites + 1


def _espresso(path: Path) -> OutputFacts:
    """Read a Quantum ESPRESSO output; its charge is what electrons are missing."""
    stated, found = _Stated("espresso-out"), _Electrons()
    _read(path, stated, found)
    facts = stated.facts()
    if found.electrons is None or not found.sites:
        return facts
    charge, problems = _charge_of(found.total, found.electrons)
    warnings = tuple(text for text in facts.warnings if text != _unknown_charge("espresso-out"))
    return OutputFacts(charge, None, (*facts.problems, *problems), warnings)
