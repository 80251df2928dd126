"""`choose`: samples by a question in SQL over their table. The query sees nothing but the table."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.errors import DataError, missing_dependency
from mlffstore.runtime.words import nearest

if TYPE_CHECKING:
    import pyarrow as pa

    from mlffstore.data.ragged import Ints

#: Name of the table in a query, and of the column with the position of each row.
TABLE, _POSITION = "samples", "_position"
#: No files, no network, no extensions, no variables of this program: conditions may come from anywhere.
_LOCKED = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
}
_EXAMPLE = "n_atoms < 50 and list_contains(elements, 'Li')"


def choose(
    table: pa.Table, where: str | None, *, order_by: str | None, limit: int | None, sample: int | None, seed: int
) -> Ints:
    """Return the positions of the rows that meet a condition; see `mlffstore.store.samples.Samples.select`.

    Returns
    -------
    ndarray, shape (k,), int64
        Positions in the table, in the order that was asked for.
    """
    for name, number in (("limit", limit), ("sample", sample)):
        if number is not None and (isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 0):
            raise DataError(f"{name}: expected a number of samples, got {number!r}")
    for name, text in (("where", where), ("order_by", order_by)):
        if text is not None and (not isinstance(text, str) or not text.strip()):
            raise DataError(f"{name}: expected SQL, such as {_EXAMPLE}, got {text!r}")
    query = _Query(table)
    rows = np.arange(table.num_rows) if where is None else query.matching(where)
    if sample is not None and sample < len(rows):
        rows = np.sort(np.random.default_rng(seed).choice(rows, sample, replace=False))
    if order_by is not None:
        rows = query.ordered(rows, order_by)
    return rows[:limit]


class _Query:
    """The table of samples in a database of its own, in memory."""

    def __init__(self, table: pa.Table) -> None:
        try:
            import duckdb
        except ImportError as error:
            raise missing_dependency("duckdb", "select", "a choice of samples by a condition") from error
        import pyarrow as pa

        self.names = table.column_names
        self.error: Any = duckdb.Error
        self.connection = duckdb.connect(":memory:", config=_LOCKED)
        positions = pa.array(np.arange(table.num_rows), pa.int64())
        self.connection.register("arrow", table.append_column(_POSITION, positions))
        extra = "".join(f", {_quoted(name)} as {_quoted(plain)}" for plain, name in plain_names(self.names).items())
        self.connection.execute(f"create view {TABLE} as select *{extra} from arrow")
        self.connection.execute("set lock_configuration = true")

    def matching(self, where: str) -> Ints:
        """Return the positions of the rows that meet a condition, ascending."""
        return np.sort(self._positions(lambda view: view.filter(where), "where", where))

    def ordered(self, rows: Ints, order_by: str) -> Ints:
        """Return positions in another order; ties in the order of the table."""
        import pyarrow as pa

        self.connection.register("chosen", pa.table({"position": rows}))
        some = f"{_POSITION} in (select position from chosen)"
        text = f"{order_by}, {_POSITION}"
        return self._positions(lambda view: view.filter(some).order(text), "order_by", order_by)

    def _positions(self, relation: Any, argument: str, text: str) -> Ints:
        try:
            # The relational interface takes expressions, not statements: nothing can follow the condition.
            found = relation(self.connection.view(TABLE)).project(_POSITION).fetchnumpy()
        except self.error as error:
            raise DataError(f"{argument}: {self._explained(str(error))}; got {text!r}") from error
        return np.asarray(np.ma.getdata(found[_POSITION]), np.int64)

    def _explained(self, message: str) -> str:
        """Return what the database says of a query, in the words of the table."""
        unknown = re.search(r'Referenced (?:column|table) "([^"]*)" not found', message)
        if unknown:
            name = unknown[1]
            several = [f'"{known}"' for known in self.names if known.partition(".")[0].lower() == name.lower()]
            if several:
                return f"there are several columns {name}, write {' or '.join(several)}"
            known = [*self.names, *plain_names(self.names)]
            listed = ", ".join(name if name.isidentifier() else f'"{name}"' for name in self.names)
            return f"expected columns of the table, there is no {name!r}{nearest(name, known)} (there are {listed})"
        first = message.partition("\n")[0]
        kind, _, text = first.partition(": ")
        if kind == "Permission Error":
            return "expected a condition over the table alone, files and networks cannot be read"
        hint = f"; expected SQL, such as {_EXAMPLE}" if kind == "Parser Error" else ""
        return f"{text or first}{hint}"


def plain_names(names: list[str]) -> dict[str, str]:
    """Return the names without a teacher, each with the only column that it can mean.

    Examples
    --------
    >>> plain_names(["n_atoms", "max_force.orb-v2", "pressure.a", "pressure.b"])
    {'max_force': 'max_force.orb-v2'}
    """
    there = {name.lower() for name in names}
    means: dict[str, list[str]] = {}
    for name in names:
        plain, dot, _ = name.partition(".")
        if dot and plain != "column" and plain.lower() not in there:
            means.setdefault(plain, []).append(name)
    return {plain: several[0] for plain, several in means.items() if len(several) == 1}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
