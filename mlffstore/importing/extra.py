"""`ExtraColumns`: keys of the files that the user asked to keep become user columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.schema import user_column
from mlffstore.errors import DataError
from mlffstore.importing.account import is_strings
from mlffstore.importing.values import FieldText

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlffstore.importing.account import Account
    from mlffstore.importing.record import Record
    from mlffstore.importing.wording import Wording

#: Units in which ASE keeps properties of its own; everything else is a plain number unless a unit is given.
_ASE_UNITS = {
    "dipole": "e*angstrom", "charges": "e", "magmom": "Bohr magneton", "magmoms": "Bohr magneton", "free_energy": "eV",
    "energies": "eV", "stresses": "eV/angstrom^3", "initial_charges": "e", "initial_magmoms": "Bohr magneton",
    "masses": "amu",
}  # fmt: skip
#: Shapes of properties of a sample that a sample of so many atoms has by chance too.
_SAMPLE_SHAPES = ((3,), (6,), (9,), (3, 3))
_LARGEST = np.iinfo(np.int64).max


class ExtraColumns:
    """Collects keys of records as user columns; dtype, axis and shape are fixed by the first samples that have the key.

    Parameters
    ----------
    columns : mapping of str to str, or sequence of str
        Name of a key -> unit. A key without a unit has that of ASE if it is one of ASE's properties, else "1".
    wording : Wording

    Raises
    ------
    DataError
        If a key cannot name a column.
    """

    def __init__(self, columns: Mapping[str, str] | Sequence[str], wording: Wording) -> None:
        if isinstance(columns, str):
            raise DataError(f"{wording.name('columns')}: expected several names, got one text {columns!r}")
        named = dict(columns) if hasattr(columns, "keys") else dict.fromkeys(columns, "")
        for name in named:
            user_column(name, np.zeros(1), "1", "sample")
        self.units = {name: unit or _ASE_UNITS.get(name, "1") for name, unit in named.items()}
        self.wording = wording
        self._kinds: dict[str, tuple[np.dtype[Any], str, tuple[int, ...]]] = {}

    def __bool__(self) -> bool:
        return bool(self.units)

    def check(self) -> None:
        """Raise if no sample of the files had one of the keys.

        Raises
        ------
        DataError
        """
        missing = [name for name in self.units if name not in self._kinds]
        if missing:
            raise DataError(
                f"{self.wording.name('columns')}: expected values under {', '.join(map(repr, missing))}, got files in "
                "which no sample has them; correct the name, or leave the option out"
            )

    def read(self, record: Record, problems: list[str]) -> dict[str, tuple[str, Any]]:
        """Return place and values of each key that a record has; what is neither numbers nor strings is a problem."""
        out = {}
        for name in self.units:
            field = record.find(name)
            if field is None:
                continue
            place, value = field
            array = _column_values(value)
            if array is None:
                problems.append(
                    f"{name!r}: expected numbers or strings for a column, got {str(value)[:40]!r}; a column cannot hold it, "
                    "so leave it out"
                )
                continue
            out[name] = (place, array)
        return out

    def absorb(self, other: ExtraColumns) -> None:
        """Take over the columns that another collector met first, perhaps in another process.

        Raises
        ------
        DataError
            If dtype, axis or shape of one differ.
        """
        for name, kind in other._kinds.items():
            known = self._kinds.setdefault(name, kind)
            if known != kind:
                (dtype, axis, inner), (other_dtype, other_axis, other_inner) = known, kind
                raise DataError(
                    f"{self.wording.name('columns')}: {name!r}: expected {_words(dtype)} per {axis} of shape {inner} as in "
                    f"the samples before, got {_words(other_dtype)} per {other_axis} of shape {other_inner}"
                )

    def gather(
        self,
        samples: Sequence[Mapping[str, tuple[str, Any]]],
        n_atoms: Any,
        problems: Sequence[list[str]],
        account: Account,
    ) -> dict[str, tuple[Any, str, str]]:
        """Return the columns of a block as `SampleBatch` takes them; what does not fit becomes a problem of its sample.

        Parameters
        ----------
        samples : sequence of mapping
            What `read` returned for each sample.
        n_atoms : array_like of int, shape (S,)
        problems : sequence of list of str
            Problems of each sample, to add to.
        account : Account
        """
        columns = {}
        for name, unit in self.units.items():
            values = [sample.get(name) for sample in samples]
            present = [i for i, value in enumerate(values) if value is not None]
            if not present:
                continue
            dtype, axis, inner = self._kinds.setdefault(name, self._kind(values, n_atoms))
            rows = np.asarray(n_atoms if axis == "atom" else np.ones(len(values), np.int64))
            total = int(rows.sum())
            out, mask = np.zeros((total, *inner), dtype), np.zeros(total, bool)
            if dtype.kind in "fO":
                out[:] = np.nan if dtype.kind == "f" else None
            starts = np.concatenate([[0], np.cumsum(rows)])
            for i in present:
                place, array = values[i]  # type: ignore[misc]
                if dtype.kind in "if" and _is_field(array) and array[()].number() is not None:
                    array = np.asarray(array[()].number())
                shape = (int(rows[i]), *inner)
                wanted = shape if axis == "atom" else inner
                if array.shape != wanted and not (wanted == () and array.shape == (1,)):
                    problems[i].append(f"{name!r}: expected shape {wanted} as in the samples before, got {array.shape}")
                elif not _is_exact(array, dtype):
                    problems[i].append(
                        f"{name!r}: expected {_words(dtype)} as in the samples before, got {_words(array.dtype)}"
                        + (f" such as {array.reshape(-1)[0]}, which it cannot hold" if array.dtype.kind in "iu" else "")
                    )
                else:
                    out[starts[i] : starts[i + 1]] = array.reshape(shape)
                    mask[starts[i] : starts[i + 1]] = True
                    account.add(place, name, "kept", name, f"in {unit}, per {axis}")
            data = out if dtype.kind in "fO" or mask.all() else np.ma.MaskedArray(out, ~_spread(mask, out.shape))
            columns[name] = (data, unit, axis)
        return columns

    @staticmethod
    def _kind(values: Sequence[Any], n_atoms: Any) -> tuple[np.dtype[Any], str, tuple[int, ...]]:
        """Return dtype, axis and inner shape that fit the samples of a block.

        The first sample says whether they are strings, truth values or numbers; of numbers the widest kind counts.
        """
        given = [(value, int(n)) for value, n in zip(values, n_atoms, strict=True) if value is not None]
        fields: list[Any] = [array[()].number() if _is_field(array) else None for (_, array), _ in given]
        # Texts that are all numbers, such as 1.5 and nan; "nan" alone may be a word.
        if None not in fields and np.isfinite(fields).any():
            return np.dtype("i8" if all(isinstance(number, int) for number in fields) else "f8"), "sample", ()
        (place, first), _ = given[0]
        if first.dtype.kind in "Ob":
            dtype = first.dtype
        elif any(array.dtype.kind == "f" for (_, array), _ in given):
            dtype = np.dtype("f8")
        else:
            large = any(array.dtype.kind == "u" and array.max() > _LARGEST for (_, array), _ in given)
            dtype = np.dtype("u8" if large else "i8")
        by_atom = all(array.ndim and array.shape[0] == n for (_, array), n in given)
        several = len({n for _, n in given}) > 1
        # The comment line of a frame holds what belongs to the frame, but for what grows with the atoms.
        ambiguous = place == "info" or first.shape in (*_SAMPLE_SHAPES, (), (1,))
        atom = by_atom and (place == "arrays" or several or not ambiguous)
        inner = first.shape[1:] if atom else () if first.size == 1 else first.shape
        return dtype, "atom" if atom else "sample", tuple(inner)


def _is_field(array: Any) -> bool:
    """Return whether this is a text that may stand for a number."""
    return array.dtype.kind == "O" and array.ndim == 0 and isinstance(array[()], FieldText)


def _column_values(value: Any) -> Any:
    """Return numbers, truth values or strings (dtype object) as an array; None for anything else, and for nothing.

    A string of a list may be None: it is missing.
    """
    if isinstance(value, (list, tuple)) and any(isinstance(one, str) for one in value):
        return np.array(value, object) if all(isinstance(one, str | None) for one in value) else None
    if isinstance(value, FieldText):
        return np.array(value, object)
    array = np.asarray(value)
    if array.ndim <= 1 and is_strings(array):
        if array.dtype.kind == "S":
            try:
                array = np.char.decode(array, "utf-8")
            except UnicodeDecodeError:
                return None
        return array.astype(str).astype(object)
    return array if array.dtype.kind in "biuf" and array.size else None


def _is_exact(array: Any, dtype: np.dtype[Any]) -> bool:
    """Return whether a dtype holds values as they are: no texts for numbers, no rounded integers, no numbers for flags."""
    kind = array.dtype.kind
    if kind in "Ob" or dtype.kind in "Ob":
        return bool(kind == dtype.kind)
    if kind == "f":
        return dtype.kind == "f"
    low, high = (-(2**53), 2**53) if dtype.kind == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return bool(low <= int(array.min()) and int(array.max()) <= high)


def _words(dtype: np.dtype[Any]) -> str:
    return {"O": "strings", "b": "truth values"}.get(dtype.kind, str(dtype))


def _spread(mask: Any, shape: tuple[int, ...]) -> Any:
    """Return a mask of rows as one of all numbers."""
    return np.broadcast_to(mask.reshape(-1, *([1] * (len(shape) - 1))), shape)
