"""``ase:module.path:Factory``: any ASE calculator by its import path, in worker processes of one thread each."""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mlffstore.contracts.protocols import TeacherInfo, TeacherLabels
from mlffstore.data.ase import IN_RESULTS
from mlffstore.data.properties import known_properties, property_of
from mlffstore.data.schema import LABELS
from mlffstore.errors import TeacherError
from mlffstore.runtime.processes import Workers
from mlffstore_teachers.ase import ASETeacher
from mlffstore_teachers.domain import refusals

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array

#: Samples that a process is given at a time.
_CHUNK = 16


class FactoryTeacher:
    """Any ASE calculator by its import path; options go to its factory.

    Parameters
    ----------
    factory : str
        ``package.module:Factory``, a class or function that returns an ASE calculator.
    name : str, optional
        Name of the label columns; by default the factory's, in small letters.
    elements : iterable of int or str, optional
        Atomic numbers or symbols that the calculator knows. By default all; a sample on which it raises is refused.
    domains : iterable of {"molecule", "periodic"}, optional
        By default both.
    properties : iterable of str, optional
        By default those of energy, forces and stress that the calculator implements. Any of its results that is a property
        can be named: `charges`, `dipole`, `magmoms`, `atomic_energies`.
    precision : str, optional
        dtype in which it computes.
    conservative : bool, optional
        Whether its forces are the gradient of its energy.
    equivariant : bool, optional
        Whether its labels turn with the structure by construction.
    charged : bool, optional
        Whether it respects ``atoms.info["charge"]`` and ``["multiplicity"]``. If not, charged samples are refused.
    licence : str, optional
        SPDX identifier of its weights or parameters.
    processes : int, optional
        Processes that label at the same time, each with one thread and one calculator.
    **options
        Keyword arguments of the factory (JSON types). The contents of files that they name are part of the fingerprint.

    Notes
    -----
    A calculator that ends its process (a segmentation fault, ``exit``, the kernel's out-of-memory killer) loses the sample
    that it was given, with that reason, and no other.
    """

    def __init__(
        self,
        factory: str | None = None,
        *,
        name: str | None = None,
        elements: Iterable[int | str] | None = None,
        domains: Iterable[str] = ("molecule", "periodic"),
        properties: Iterable[str] | None = None,
        precision: str = "unknown",
        conservative: bool = True,
        equivariant: bool = True,
        charged: bool = False,
        licence: str = "unknown",
        processes: int = 1,
        **options: Any,
    ) -> None:
        if factory is None or factory.count(":") != 1 or not all(factory.split(":")):
            got = "nothing" if factory is None else repr(factory)
            raise TeacherError(f"ase: expected a path such as ase:ase.calculators.emt:EMT, got {got}")
        if processes < 1:
            raise TeacherError(f"ase: expected processes of at least 1, got {processes}")
        strange = set(domains) - {"molecule", "periodic"}
        strange |= set(properties or ()) - set(known_properties())
        if strange:
            raise TeacherError(f"ase: unknown domains or properties {', '.join(sorted(strange))}")
        try:
            text = json.dumps(options, sort_keys=True)
        except TypeError as error:
            raise TeacherError(
                f"ase: options of {factory} must be JSON types, they are part of its name: {error}"
            ) from None
        self._spec = _Spec(
            factory=factory,
            options=text,
            name=name or factory.split(":")[1].rpartition(".")[2].lower(),
            elements=None if elements is None else tuple(sorted(_number(one) for one in elements)),
            domains=tuple(sorted(domains)),
            properties=None if properties is None else tuple(properties),
            precision=precision,
            conservative=conservative,
            equivariant=equivariant,
            charged=charged,
            licence=licence,
        )
        self.processes = processes
        self._workers: Workers | None = None
        self._info: TeacherInfo | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_workers": None}  # processes start where it is used

    @property
    def info(self) -> TeacherInfo:
        """What the teacher is. The calculator is made, in a process of its own, to see what it implements."""
        if self._info is None:
            try:
                self._info = self._running().submit(_describe, self._spec).result()
            except BrokenProcessPool:
                self._running().restart()
                raise TeacherError(
                    f"ase: {self._spec.factory} ended its process when it was called. In a script whose code is not under "
                    'if __name__ == "__main__": every new process runs the script again and ends: put the code there'
                ) from None
        return self._info

    def label(self, batch: SampleBatch) -> TeacherLabels:
        """Label every sample; one that fails, or whose calculator ends its process, does not disturb the others."""
        reasons = refusals(self.info, batch, charged=self._spec.charged)
        out = _Answer(batch, "stress" in self.info.properties, reasons)
        todo = [i for i, reason in enumerate(reasons) if not reason]
        size = max(1, min(_CHUNK, -(-len(todo) // self.processes)))
        groups = [todo[start : start + size] for start in range(0, len(todo), size)]
        workers = self._running()
        # Samples outside the domain are not in any group, so what the workers refuse they have tried.
        futures = [(group, workers.submit(_label, self._spec, batch.take(np.array(group)))) for group in groups]
        broken = []
        for group, future in futures:
            try:
                out.put(group, future.result())
            except BrokenProcessPool:
                broken.append(group)
        if broken:
            workers.restart()
        while broken:  # one group at a time: what ends the process now is in it
            group = broken.pop()
            try:
                out.put(group, workers.submit(_label, self._spec, batch.take(np.array(group))).result())
            except BrokenProcessPool:
                workers.restart()
                if len(group) == 1:
                    reasons[group[0]] = f"{self.info.name} failed: the calculator ended its process"
                else:
                    half = len(group) // 2
                    broken += [group[half:], group[:half]]
        return out.labels()

    def _running(self) -> Workers:
        if self._workers is None:
            self._workers = Workers(self.processes)
        return self._workers


class _Answer:
    """The labels of a batch, filled in group by group."""

    def __init__(self, batch: SampleBatch, stress: bool, reasons: list[str]) -> None:
        n = len(batch)
        self.batch, self.reasons = batch, reasons
        self.energy, self.ok = np.full(n, np.nan), np.zeros(n, bool)
        self.forces = np.full((batch.n_atoms_total, 3), np.nan, np.float32)
        self.stress = np.full((n, 6), np.nan, np.float32) if stress else None
        self.more: dict[str, Array] = {}

    def put(self, group: Sequence[int], labels: TeacherLabels) -> None:
        """Fill in the labels of the samples of a group."""
        for name, values in labels.more.items():
            known = self.more.get(name, values)
            if known.shape[1:] != values.shape[1:]:  # the calculator chose another width in another process
                for i in group:
                    self.reasons[i] = (
                        f"the calculator gave {name} of shape {values.shape[1:]}, and {known.shape[1:]} before"
                    )
                return
        offsets = self.batch.offsets
        atoms = np.concatenate([np.arange(offsets[i], offsets[i + 1]) for i in group])
        self.energy[group], self.forces[atoms], self.ok[group] = labels.energy, labels.forces, labels.ok
        if self.stress is not None and labels.stress is not None:
            self.stress[group] = labels.stress
        for name, values in labels.more.items():
            by_atom = property_of(name).axis == "atom"
            rows = self.batch.n_atoms_total if by_atom else len(self.batch)
            column = self.more.setdefault(name, np.full((rows, *values.shape[1:]), np.nan, values.dtype))
            column[atoms if by_atom else group] = values
        for i, reason in zip(group, labels.reasons, strict=True):
            self.reasons[i] = reason

    def labels(self) -> TeacherLabels:
        """Return what was filled in."""
        return TeacherLabels(self.energy, self.forces, self.stress, self.ok, tuple(self.reasons), self.more)


# -- in the worker processes -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Spec:
    """All that another process needs to make the teacher."""

    factory: str
    options: str
    name: str
    elements: tuple[int, ...] | None
    domains: tuple[str, ...]
    properties: tuple[str, ...] | None
    precision: str
    conservative: bool
    equivariant: bool
    charged: bool
    licence: str


@functools.lru_cache(maxsize=2)
def _calculator(spec: _Spec) -> Calculator:
    module, _, attribute = spec.factory.partition(":")
    try:
        factory: Any = functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise TeacherError(
            f"ase: cannot import {spec.factory} ({type(error).__name__}: {error}); check the path"
        ) from None
    try:
        made = factory(**json.loads(spec.options))
    except Exception as error:  # a factory may raise anything
        raise TeacherError(f"ase: {spec.factory}(**{spec.options}) failed: {type(error).__name__}: {error}") from None
    if not (hasattr(made, "get_potential_energy") and hasattr(made, "get_forces")):
        raise TeacherError(f"ase: expected {spec.factory} to return an ASE calculator, got {type(made).__name__}")
    return made


@functools.lru_cache(maxsize=2)
def _teacher(spec: _Spec) -> ASETeacher:
    calculator = _calculator(spec)

    def fresh(_: Atoms) -> Calculator:
        if hasattr(calculator, "reset"):
            calculator.reset()  # nothing of the sample before
        return calculator

    return ASETeacher(_describe(spec), fresh, charged=spec.charged)


def _label(spec: _Spec, batch: SampleBatch) -> TeacherLabels:
    return _teacher(spec).label(batch)


@functools.lru_cache(maxsize=2)
def _describe(spec: _Spec) -> TeacherInfo:
    implemented = getattr(_calculator(spec), "implemented_properties", ())
    known = tuple(name for name in known_properties() if IN_RESULTS.get(name, name) in implemented)
    properties = spec.properties or tuple(name for name in LABELS if name in known)
    if missing := {"energy", "forces", *properties} - set(known):
        raise TeacherError(f"ase: {spec.factory} does not implement {', '.join(sorted(missing))}")
    return TeacherInfo(
        name=spec.name,
        elements=None if spec.elements is None else frozenset(spec.elements),
        domains=cast("Any", frozenset(spec.domains)),
        properties=tuple(properties),
        precision=spec.precision,
        conservative=spec.conservative,
        equivariant=spec.equivariant,
        licence=spec.licence,
        fingerprint=", ".join([f"{spec.factory}(**{spec.options})", *_digests(json.loads(spec.options))]),
        software=_software(spec.factory.partition(":")[0]),
    )


def _digests(options: dict[str, Any]) -> list[str]:
    """Return the checksums of the files that options name, also in lists and mappings."""
    return [
        f"{name} sha256:{hashlib.sha256(Path(text).read_bytes()).hexdigest()}"
        for name, text in _texts(options)
        if 0 < len(text) < 4096 and "\0" not in text and Path(text).is_file()
    ]


def _texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield the texts in options, each with its place, such as ``weights[0]``."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in sorted(value.items()):
            yield from _texts(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for k, inner in enumerate(value):
            yield from _texts(inner, f"{name}[{k}]")


def _software(module: str) -> dict[str, str]:
    from importlib.metadata import packages_distributions, version

    names = {*packages_distributions().get(module.partition(".")[0], ()), "ase"}
    return {name: version(name) for name in sorted(names)}


def _number(element: int | str) -> int:
    from ase.data import atomic_numbers, chemical_symbols

    if isinstance(element, str) and element in atomic_numbers:
        return int(atomic_numbers[element])
    if isinstance(element, int) and 0 < element < len(chemical_symbols):
        return element
    raise TeacherError(f"ase: elements: expected symbols or atomic numbers, got {element!r}")
