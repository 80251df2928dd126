"""Finding plugins by name through entry points: generators, teachers and exporters. A plugin is loaded only when used.

What an exporter must be is `mlffstore.release.exporter`.
"""

from __future__ import annotations

import functools
import inspect
import json
import sys
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import TYPE_CHECKING, Any, cast

from mlffstore.errors import MlffstoreError, PluginError, RegistryError
from mlffstore.runtime.named_files import named_files
from mlffstore.runtime.words import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlffstore.contracts.protocols import Generator, Teacher

_GROUPS = {"generator": "mlffstore.generators", "teacher": "mlffstore.teachers", "exporter": "mlffstore.exporters"}


@functools.lru_cache(maxsize=len(_GROUPS))
def _entry_points(path: tuple[str, ...], group: str) -> EntryPoints:
    """Return the entry points of a group of all packages on that path. To look at all packages takes 20 to 100 ms."""
    return entry_points(group=group)


def available(kind: str) -> dict[str, EntryPoint]:
    """Return the entry points of a kind ("generator", "teacher", "exporter") by name, without loading them."""
    points = _entry_points(tuple(sys.path), _GROUPS[kind])
    return {point.name: point for point in sorted(points, key=lambda point: point.name)}


def load(kind: str, name: str) -> Any:
    """Return what the entry point of that name points to.

    Raises
    ------
    RegistryError
        If there is no plugin of that name; the message lists those that are installed.
    MissingDependencyError
        If the plugin needs a package that is not installed.
    PluginError
        If the plugin cannot be imported for another reason. Other plugins are not affected.
    """
    known = available(kind)
    if name not in known:  # perhaps the package was installed a moment ago
        _entry_points.cache_clear()
        known = available(kind)
    if name not in known:
        raise RegistryError(
            f"{kind}: expected one of {', '.join(known) or '(none installed)'}, got {name!r}{nearest(name, known)}"
        )
    point = known[name]
    try:
        return point.load()
    except MlffstoreError:
        raise
    except Exception as error:  # a plugin may come from anywhere, and fail in any way
        package = f" of the package {point.dist.name} {point.dist.version}" if point.dist else ""
        raise PluginError(
            f"{kind} {name!r}{package} is broken: {point.value} cannot be imported ({type(error).__name__}: {error}); "
            "update or remove that package"
        ) from error


def _check_options(kind: str, name: str, factory: Any, options: Mapping[str, Any]) -> None:
    """Raise `RegistryError` if a plugin does not have one of these options."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # built in, without a signature
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    unknown = [option for option in options if option not in known]
    if unknown:
        has = f"expected one of {', '.join(known)}" if known else "it has no options"
        raise RegistryError(f"{kind} {name!r}: unknown option {unknown[0]!r}{nearest(unknown[0], known)} ({has})")


def _make(kind: str, name: str, arguments: Sequence[str], options: Mapping[str, Any]) -> Any:
    """Return what a plugin makes of these options."""
    factory = load(kind, name)
    _check_options(kind, name, factory, options)
    try:
        return factory(*arguments, **options)
    except (MlffstoreError, ImportError):
        raise
    except Exception as error:  # wrong values, which each plugin refuses in its own way
        if isinstance(error, TypeError) and "unexpected keyword argument" in str(error):
            raise RegistryError(f"{kind} {name!r}: unknown option; {error}") from error
        given = ", ".join([*map(repr, arguments), *(f"{option}={value!r}" for option, value in options.items())])
        raise PluginError(
            f"{kind} {name!r} cannot be made with {given or 'its defaults'}: {type(error).__name__}: {error}"
        ) from error


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
        If there is none of that name, or it does not have one of these options.
    MissingDependencyError
        If the teacher needs a package that is not installed.
    TeacherError
        If it cannot be made from these options.
    PluginError
        If it is broken, or fails with these options in a way that is not its own.
    """
    name, colon, argument = name.partition(":")
    return cast("Teacher", _make("teacher", name, [argument] if colon else [], options))


#: Name and options -> versions of the files that the options name, and the teacher.
_shared: dict[tuple[str, str], tuple[list[tuple[str, int, int]], Teacher]] = {}


def shared_teacher(name: str, options: Mapping[str, Any]) -> Teacher:
    """Return the teacher of that name and options that this process shares: loading takes seconds, and memory.

    It is loaded again when a file that the options name, such as one of weights, has changed.
    """
    key = (name, json.dumps(dict(options), sort_keys=True, default=repr))
    files = named_files([name, dict(options)])
    known, teacher = _shared.get(key, (None, None))
    if teacher is None or known != files:
        teacher = get_teacher(name, **options)
        _shared[key] = files, teacher
    return teacher


def get_generator(name: str, /, **options: Any) -> Generator:
    """Return a generator by name, such as ``get_generator("crystals", rattle=0.1)``."""
    return cast("Generator", _make("generator", name, [], options))
