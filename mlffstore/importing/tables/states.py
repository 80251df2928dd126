"""Charge and multiplicity of the structures of a table, from arrays under the names that were given or all names in use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlffstore.data import electrons
from mlffstore.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from mlffstore.importing.tables.request import TableRequest


def read_state(
    names: Iterable[str],
    values_of: Callable[[str], Any],
    n: int,
    request: TableRequest,
    where: str,
    given: Mapping[str, tuple[str, Any]] | None = None,
) -> tuple[Any, Any, dict[str, str]]:
    """Return charge and multiplicity of each structure, None where the file says none, and which arrays say them.

    Parameters
    ----------
    names : iterable of str
        Of all arrays that there are.
    values_of : callable
        It returns the array of a name.
    n : int
        Number of structures.
    request : TableRequest
    where : str
        The file and the place in it, for messages.
    given : mapping of str to (str, ndarray), optional
        Name of an array that the caller named -> "charge" or "multiplicity", and its values.

    Raises
    ------
    DataError
        If there is neither one number nor one for each structure, or names disagree.
    """
    #: Name of an array -> how it is read, what it says, its values.
    read = {name: (electrons.reads_as(name, what), what, values) for name, (what, values) in (given or {}).items()}
    for name in names:
        role = electrons.role(name)
        what = "charge" if role == "charge" else "multiplicity"
        if role is None or name in read or what in request.labels.keys:
            continue
        values = np.asarray(values_of(name))
        # Spins and charges of atoms have such names too, and a file may fill in what it does not know: left out, and named.
        of_atoms = values.ndim > 1 and len(values) == n and values.size > n
        if not of_atoms and not (values.dtype.kind == "f" and np.isnan(values).all()):
            read[name] = (name, what, values)
    for name, (_, _, values) in read.items():
        if values.size not in (1, n):
            raise DataError(
                f"{where}, {name!r}: expected one number, or one for each of {n} structures, got shape {values.shape}"
            )
    if not read or not n:
        return None, None, {}
    columns = [np.broadcast_to(values.reshape(-1), n) for _, _, values in read.values()]
    rows, inverse = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    spin: Literal["multiplicity", "unpaired"] = "unpaired" if request.options.spin == "unpaired" else "multiplicity"
    try:
        found = [
            electrons.resolve(zip([how for how, _, _ in read.values()], row.tolist(), strict=True), spin)
            for row in rows
        ]
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None
    charge, multiplicity = (
        None if found[0][k] is None else np.array([one[k] for one in found])[inverse.reshape(-1)] for k in (0, 1)
    )
    return charge, multiplicity, {name: what for name, (_, what, _) in read.items()}
