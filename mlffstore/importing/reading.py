"""`Reading`: what was found of one sample, and what to say of what was not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlffstore.importing.presets import propose

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlffstore.importing.account import Fate
    from mlffstore.importing.wording import Wording

    #: Place and name of a key -> what became of it, its column, a note.
    Fates = dict[tuple[str, str], tuple[Fate, str, str]]


@dataclass(slots=True)
class Reading:
    """What was found of one sample.

    Attributes
    ----------
    labels : dict of str to array
        In the store's units.
    charge, multiplicity : int or None
        None where the file gives none.
    problems : list of str
        Why the sample cannot be imported.
    failed : set of str
        Labels that are there and cannot be used; `problems` says why.
    hints : dict of str to str
        Labels that were not found, and the name of something that looks like each.
    """

    labels: dict[str, Any] = field(default_factory=dict)
    charge: int | None = None
    multiplicity: int | None = None
    problems: list[str] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)
    hints: dict[str, str] = field(default_factory=dict)


def missing_message(
    missing: Sequence[str], hints: Mapping[str, str], keys: Mapping[str, tuple[str, ...]], wording: Wording
) -> str:
    """Say which labels a frame lacks and what to do about it.

    Parameters
    ----------
    missing : sequence of str
    hints : mapping of str to str
        Names of what looks like a label.
    keys : mapping of str to tuple of str
        Names that were looked for.
    wording : Wording
    """
    usable = {k: v for k, v in hints.items() if k in missing or (k == "virial" and "stress" in missing)}
    what = f"expected {' and '.join(missing)}, got none"
    if usable:
        held = ", ".join(map(repr, usable.values()))
        # Names that other samples need stay, in front.
        options: dict[str, Any] = {k: (*keys[k], v) if keys.get(k) else v for k, v in usable.items()}
        preset = propose(usable.values())
        or_preset = f" (or {wording.option('preset', preset)}, if it follows that convention)" if preset else ""
        return f"{what}; it holds {held}: pass {wording.option('keys', options)} if that is meant{or_preset}"
    return (
        f"{what}; name what holds them with {wording.option('keys', {missing[0]: 'NAME'})}, or import structures without "
        f"labels with {wording.option('require', ())}"
    )
