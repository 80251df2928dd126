"""Finding plugins by name through entry points: generators, teachers and exporters. A plugin is loaded only when used.

What an exporter must be is `mlffstore.release.exporter`.
"""

from __future__ import annotations

import difflib
import json
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, cast

from mlffstore.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlffstore.contracts.protocols import Generator, Teacher

_GROUPS = {"generator": "mlffstore.generators", "teacher": "mlffstore.teachers", "exporter": "mlffstore.exporters"}


def available(kind: str) -> dict[str, EntryPoint]:
    """Return the entry points of a kind ("generator", "teacher", "exporter") by name, without loading them."""
    return {point.name: point for point in sorted(entry_points(group=_GROUPS[kind]), key=lambda point: point.name)}


def load(kind: str, name: str) -> Any:
    """Return what the entry point of that name points to.

    Raises
    ------
    RegistryError
        If there is no plugin of that name; the message lists those that are installed.
    MissingDependencyError
        If the plugin needs a package that is not installed.
    """
    known = available(kind)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise RegistryError(f"{kind}: expected one of {', '.join(known) or '(none installed)'}, got {name!r}{hint}")
    return known[name].load()


def get_teacher(name: str, /, **options: Any) -> Teacher:
    """Return a teacher by name, such as ``get_teacher("gfn2-xtb")``.

    Parameters
    ----------
    name : str
        Name of an entry point. Text after a colon is the first argument of the teacher: ``"ase:ase.calculators.emt:EMT"``
        makes a teacher of an ASE calculator by its import path, ``"fennol:model.fnx"`` of a file with weights.
    **options
        Options of the teacher; `mlffstore teachers` lists them.

    Returns
    -------
    Teacher

    Raises
    ------
    RegistryError
        If there is no teacher of that name.
    MissingDependencyError
        If the teacher needs a package that is not installed.
    TeacherError
        If the teacher cannot be made from these options.
    """
    name, colon, argument = name.partition(":")
    if colon:
        return cast("Teacher", load("teacher", name)(argument, **options))
    return cast("Teacher", load("teacher", name)(**options))


_shared: dict[tuple[str, str], Teacher] = {}


def shared_teacher(name: str, options: Mapping[str, Any]) -> Teacher:
    """Return the teacher of that name and options that this process shares: loading takes seconds, and memory."""
    key = (name, json.dumps(dict(options), sort_keys=True, default=repr))
    if key not in _shared:
        _shared[key] = get_teacher(name, **options)
    return _shared[key]


def get_generator(name: str, /, **options: Any) -> Generator:
    """Return a generator by name, such as ``get_generator("crystals", rattle=0.1)``."""
    return cast("Generator", load("generator", name)(**options))
