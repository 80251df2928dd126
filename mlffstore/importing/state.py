"""`StateReader`: charge and spin multiplicity of records, from the names that were given or from all names in use."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

from mlffstore.data import electrons

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlffstore.importing.reading import Fates, Reading
    from mlffstore.importing.wording import Wording

STATE_KEYS = ("charge", "multiplicity")


class StateReader:
    """Reads charge and multiplicity.

    Parameters
    ----------
    keys : mapping of str to tuple of str
        "charge" and "multiplicity" to the names that hold them, an empty tuple to use none; other keys are not looked at.
    spin : {"multiplicity", "unpaired"}
        What a value under a name with "spin" means: 2S+1 or 2S.
    wording : Wording
        Of options in messages.
    """

    def __init__(self, keys: Mapping[str, tuple[str, ...]], spin: str, wording: Wording) -> None:
        self._keys, self._spin, self._wording = keys, spin, wording
        #: How many samples had each of the names that were given.
        self.met: Counter[str] = Counter()

    def takes_any(self, what: str) -> bool:
        """Return whether the names in use count for "charge" or "multiplicity", since none was given."""
        return what not in self._keys

    def reads(self, name: str) -> bool:
        """Return whether a value under this name counts, as a name that was given or as a name in use."""
        role = electrons.role(name)
        if role is not None and self.takes_any("charge" if role == "charge" else "multiplicity"):
            return True
        return any(name in (self._keys.get(what) or ()) for what in STATE_KEYS)

    def read(
        self,
        fields: Sequence[tuple[str, str, Any]],
        places: Mapping[str, tuple[str, Any]],
        reading: Reading,
        fates: Fates,
    ) -> None:
        """Read charge and multiplicity, from the names that were given or all names in use."""
        # What it stands for, the name that says how to read it, its place and name in the file, its value.
        chosen: list[tuple[str, str, str, str, Any]] = []
        for what in STATE_KEYS:
            name = next((name for name in self._keys.get(what) or () if name in places), None)
            if name is not None:
                self.met[name] += 1
                chosen.append((what, electrons.reads_as(name, what), places[name][0], name, places[name][1]))
        for place, name, value in fields:
            role = None if place in ("results", "arrays") else electrons.role(name)
            what = "charge" if role == "charge" else "multiplicity"
            if role is not None and what not in self._keys:
                chosen.append((what, name, place, name, value))
        spin: Literal["multiplicity", "unpaired"] = "unpaired" if self._spin == "unpaired" else "multiplicity"
        try:
            reading.charge, reading.multiplicity = electrons.resolve(((name, v) for _, name, _, _, v in chosen), spin)
        except ValueError as error:
            way = ""
            if "got 0" in str(error):
                way = (
                    f"; {self._wording.option('spin', 'unpaired')} reads it as 2S, "
                    f"{self._wording.option('keys', {'multiplicity': None})} does not use it"
                )
            reading.problems.append(f"{error}{way}")
            return
        for what, _, place, name, value in chosen:
            if value is not None:
                fates[place, name] = ("kept" if name == what else "renamed", what, "")
