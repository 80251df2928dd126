"""A Dataset of samples brought into one form: labels along `teacher`, dimensions in the order of the store.

A Dataset may have gone through xarray: one teacher selected, variables dropped, loaded, transposed. What such steps took
away from the samples (their atoms, their order, a component) raises an error. `one_form` looks at names and sizes alone.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mlffstore.data.batch import SampleBatch
from mlffstore.data.hashing import content_hash
from mlffstore.data.labels import DEFAULT_TEACHER
from mlffstore.data.masks import TRUTH
from mlffstore.data.ragged import offsets
from mlffstore.data.schema import CODED, COMPONENTS, LABELS, STANDARD, STRUCTURE, user_column
from mlffstore.errors import DataError
from mlffstore.lazy.labels import label_variables, side_by_side

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    import xarray as xr

    from mlffstore.data.properties import Property
    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array, Column

logger = logging.getLogger(__name__)

#: Variables that `altered` compares.
HASHED = (*STRUCTURE, "content_hash")
#: Reason why rows may not fit, and what to do.
TOGETHER = (
    "atoms do not follow their samples through plain xarray: use .mlff.isel, .mlff.where, .mlff.sel or .mlff.sortby instead "
    "of isel, where, sel and sortby"
)


def one_form(ds: xr.Dataset, needed: Sequence[str] = ("n_atoms",)) -> xr.Dataset:
    """Return a Dataset whose variables have the dimensions that the engine gives them, in the same order.

    Labels without the dimension `teacher` get it, and energies, forces and stresses of one teacher each (``energy.a``, in a
    release of several teachers) are put side by side along it. Where teachers were selected, labels that others have in
    variables of their own are left out. The name of the teacher is, in this order, the scalar coordinate that
    ``ds.sel(teacher="a")`` leaves, the only teacher in the attributes of the labels (in a group of a release) or of the
    Dataset, or "reference".

    Parameters
    ----------
    ds : Dataset
    needed : sequence of str, optional
        Variables that must be there.

    Raises
    ------
    DataError
        If a variable is missing, or has dimensions or numbers that samples cannot have.
    """
    if "n_atoms" not in ds or ds["n_atoms"].dims != ("sample",):
        raise DataError(
            "expected a dataset with n_atoms along sample, as engine='mlffstore' opens it, got "
            f"{'n_atoms of ' + str(ds['n_atoms'].dims) if 'n_atoms' in ds else 'no n_atoms'}; choose one sample with "
            ".mlff.isel([i])"
        )
    missing = [name for name in needed if name not in ds]
    if missing:
        raise DataError(
            f"expected the variables {', '.join(needed)}, got none of {', '.join(missing)}; do not drop them"
        )
    for dim, components in COMPONENTS.items():
        if dim in ds.coords and ds[dim].values.tolist() != components:
            raise DataError(
                f"{dim}: expected {' '.join(components)}, got {ds[dim].values.tolist()}; select components later"
            )
    ds = _of_these_teachers(side_by_side(ds))
    found = label_variables(ds)
    labels = [name for name, label in found.items() if label.teacher is None]
    apart = [name for name in labels if "teacher" not in ds[name].dims]
    if apart and len(apart) < len(labels):
        raise DataError(
            f"{', '.join(apart)}: expected the dimension teacher, as {', '.join(set(labels) - set(apart))} has"
        )
    changed: dict[str, xr.Variable] = {}
    for key, stored in ds.variables.items():
        name, variable = str(key), cast("Any", stored)
        if name in apart:
            variable = variable.expand_dims("teacher")
        column = found[name].spec if name in found else STANDARD.get(name)
        dims = (
            _column_dims(name, variable.dims)
            if column is None
            else _known_dims(column, variable.dims, found[name].teacher if name in found else "")
        )
        if set(variable.dims) != set(dims) or len(variable.dims) != len(dims):
            raise DataError(f"{name}: expected the dimensions {dims}, got {variable.dims}; {TOGETHER}")
        if column is not None and np.dtype(column.dtype).kind != "f" and variable.dtype.kind == "f":
            raise DataError(f"{name}: expected whole numbers, got {variable.dtype}; {TOGETHER}")
        if variable.dims != dims:
            variable = variable.transpose(*dims)
        if variable is not stored:
            changed[name] = variable
    if apart:
        names = [_only_teacher(ds)]
        ds = ds.drop_vars("teacher", errors="ignore")
        others = {label.teacher for label in found.values() if label.teacher is not None} - set(names)
        if others:
            raise DataError(
                "teacher: expected the coordinate with the name of the teacher beside labels of "
                f"{', '.join(sorted(others))}, got none; do not drop it"
            )
    elif labels:
        names = _teachers(ds)
    else:
        return ds.assign(changed) if changed else ds
    return ds.assign(changed).assign_coords(teacher=names) if changed or "teacher" not in ds.coords else ds


def _of_these_teachers(ds: xr.Dataset) -> xr.Dataset:
    """Return a Dataset without variables of one teacher, such as ``embedding.b``, who was not among those selected."""
    if "teacher" not in ds.coords:
        return ds
    names = set(np.atleast_1d(ds["teacher"].values).tolist())
    return ds.drop_vars([n for n, label in label_variables(ds).items() if label.teacher not in (None, *names)])


def _known_dims(column: Column | Property, dims: Sequence[Hashable], teacher: str | None) -> tuple[Hashable, ...]:
    """Return the dimensions of a variable of the store, in order; a width of one teacher alone has a name of its own."""
    inner = (dim if dim in dims or not teacher else f"{dim}.{teacher}" for dim in column.inner)
    return (column.axis, *(["teacher"] if teacher is None else []), *inner)


def _column_dims(name: str, dims: Sequence[Hashable]) -> tuple[Hashable, ...]:
    """Return the dimensions of another variable, in order: rows first, as user columns have them."""
    axes = [dim for dim in dims if dim in ("sample", "atom")]
    if len(axes) != 1 or "teacher" in dims:
        return tuple(dims)
    inner = [dim for dim in dims if dim not in axes]
    numbered = [f"{name}_dim{i}" for i in range(1, len(dims))]
    return (axes[0], *(numbered if set(inner) == set(numbered) else inner))


def _recorded(ds: xr.Dataset) -> list[str]:
    """Return the teachers in the attributes, in no special order."""
    return list(json.loads(ds.attrs.get("teachers", "{}")))


def _only_teacher(ds: xr.Dataset) -> str:
    if "teacher" in ds.coords:
        return str(ds["teacher"].values)
    labels = (name for name, label in label_variables(ds).items() if label.teacher is None)
    named = {str(ds[name].attrs["teacher"]) for name in labels if "teacher" in ds[name].attrs}
    if len(named) == 1:  # a group of a release
        return named.pop()
    return _recorded(ds)[0] if len(_recorded(ds)) == 1 else DEFAULT_TEACHER


def _teachers(ds: xr.Dataset) -> list[str]:
    if "teacher" in ds.coords:
        return [str(teacher) for teacher in ds["teacher"].values]
    if len(_recorded(ds)) == ds.sizes["teacher"] == 1:
        return _recorded(ds)
    raise DataError("teacher: expected the coordinate with the names of the teachers, got none; do not drop it")


def teachers_of(ds: xr.Dataset) -> list[str]:
    """Return the teachers of a Dataset of one form."""
    labels = label_variables(ds).values()
    shared = (
        [str(teacher) for teacher in ds["teacher"].values] if any(label.teacher is None for label in labels) else []
    )
    return list(dict.fromkeys([*shared, *(label.teacher for label in labels if label.teacher is not None)]))


def meanings(variable: xr.DataArray) -> list[str]:
    """Return the strings that the codes of a variable stand for: `meanings` (JSON), or the words of `flag_meanings`."""
    if "meanings" in variable.attrs:
        return [str(word) for word in json.loads(variable.attrs["meanings"])]
    if "flag_meanings" not in variable.attrs:
        raise DataError(f"{variable.name}: expected the attribute flag_meanings, got none; keep the attributes")
    return str(variable.attrs["flag_meanings"]).split()


def check_atoms(ds: xr.Dataset, counts: Array) -> None:
    """Raise `DataError` if a Dataset does not have as many atoms as its samples."""
    total = int(counts.sum(dtype=np.int64))
    if ds.sizes.get("atom", total) != total:
        raise DataError(f"expected {total} atoms by n_atoms, got {ds.sizes['atom']}; {TOGETHER}")


def check_rows(columns: Mapping[str, Array], starts: Ints) -> None:
    """Raise `DataError` if there are not as many rows as samples and atoms.

    Parameters
    ----------
    columns : mapping of str to ndarray
        The variables of some whole samples by name.
    starts : ndarray, shape (S+1,), int64
        First row of the atoms of each sample and, last, the number of atoms.
    """
    for name, column in {**STANDARD, **LABELS}.items():
        expected = int(starts[-1]) if column.axis == "atom" else len(starts) - 1
        if name in columns and len(columns[name]) != expected:
            raise DataError(
                f"{name}: expected {expected} rows by n_atoms, got {len(columns[name])}; {TOGETHER}. Chunks of samples and "
                "atoms must fit too: leave .chunk to this library"
            )


def altered(columns: Mapping[str, Array]) -> Array:
    """Return which samples are not the structures that their `content_hash` names, shape (S,), bool.

    None of them, if a column is absent. Plain ``sortby`` and ``isel`` leave samples with the atoms of others.
    """
    if any(name not in columns for name in HASHED):
        return np.zeros(len(columns["n_atoms"]), bool)
    arguments = {name: columns[name] for name in STRUCTURE} | {"pbc": columns["pbc"].astype(bool)}
    return np.asarray(content_hash(**arguments) != columns["content_hash"])


def altered_message(n: int, of: int) -> str:
    """Say that samples are not the structures that their hashes name."""
    return (
        f"{n:,} of {of:,} samples: expected the structures that content_hash names, got others; {TOGETHER}. If structures "
        "were changed on purpose, drop content_hash"
    )


def to_batch(ds: xr.Dataset) -> SampleBatch:
    """Return the samples of a Dataset as one batch of columns. See `mlffstore.lazy.accessor.Mlff.to_batch`."""
    ds = one_form(ds, tuple(STRUCTURE)).compute()
    rows = {str(name): variable.values for name, variable in ds.variables.items()}
    check_rows(rows, offsets(rows["n_atoms"]))
    wrong = int(np.count_nonzero(altered(rows)))
    if wrong:
        raise DataError(altered_message(wrong, len(rows["n_atoms"])))
    columns: dict[str, Any] = {name: ds[name].values for name in (*STRUCTURE, "root") if name in ds}
    for name in (name for name in CODED if name in ds):
        columns[name] = (ds[name].values, meanings(ds[name]))
    labels: dict[str, dict[str, Array]] = {}
    variables = label_variables(ds)
    shared = [str(name) for name in np.atleast_1d(ds["teacher"].values)] if "teacher" in ds.coords else []
    for name, (spec, teacher) in variables.items():
        values = ds[name].values
        pairs = [(teacher, values)] if teacher is not None else zip(shared, np.moveaxis(values, 1, 0), strict=True)
        for one, array in pairs:
            if not np.isnan(array).all():
                labels.setdefault(one, {})[spec.name] = array
    order = teachers_of(ds)
    labels = {teacher: labels[teacher] for teacher in order if teacher in labels}
    specs = [label.spec for label in variables.values()]
    return SampleBatch(**columns, labels=labels, extra=_user_columns(ds, set(variables)), properties=specs)


def _user_columns(ds: xr.Dataset, labels: set[str]) -> dict[str, tuple[Any, str, str]]:
    """Return the variables of a Dataset that are not the store's, as `SampleBatch` takes them."""
    masks = {variable.attrs.get("ancillary_variables") for variable in ds.data_vars.values()}
    out: dict[str, tuple[Any, str, str]] = {}
    left_out = []
    for name in map(str, ds.data_vars):
        if name in STANDARD or name in labels or name in masks or name == "split":
            continue
        values, dims, attributes = ds[name].values, ds[name].dims, ds[name].attrs
        if attributes.get("flag_meanings") == TRUTH:  # of a release
            values = values.astype(bool)
        axis, unit = str(dims[0]) if dims else "", str(attributes.get("units", "1"))
        if (
            axis not in ("sample", "atom")
            or {"sample", "atom", "teacher"} & set(dims[1:])
            or not _storable(name, values)
        ):
            left_out.append(name)
            continue
        if "ancillary_variables" in attributes:
            if attributes["ancillary_variables"] not in ds:
                raise DataError(
                    f"{name}: expected its mask {attributes['ancillary_variables']} beside it; keep or drop both"
                )
            mask = ds[attributes["ancillary_variables"]].values.astype(bool)
            hidden = ~mask.reshape(-1, *(1,) * (values.ndim - 1))
            values = np.ma.masked_array(values, np.broadcast_to(hidden, values.shape))
        if "meanings" in attributes:
            values = _strings(ds[name], values)
        out[name] = (values, unit, axis)
    if left_out:
        logger.warning("to_batch: not columns of numbers of samples or atoms, left out: %s", ", ".join(left_out))
    return out


def _strings(variable: xr.DataArray, codes: Any) -> np.ma.MaskedArray[Any, Any]:
    """Return codes as the strings that they stand for, masked alike: they are strings even where all of them are masked."""
    words = np.array(meanings(variable) or [""], dtype=str)
    hidden = np.ma.getmaskarray(codes)
    numbers = np.where(hidden, 0, np.ma.getdata(codes))
    if (numbers >= len(words)).any():
        raise DataError(f"{variable.name}: a code without a meaning; keep the attributes with their variable")
    return np.ma.masked_array(words[numbers], hidden)


def _storable(name: str, values: Array) -> bool:
    try:
        user_column(name, values, "1", "sample")
    except DataError:
        return False
    return True
