"""Blanks: label and user columns of which some samples lose their values, or get them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.batch import SampleBatch, assemble
from mlffstore.data.labels import missing_label
from mlffstore.data.masks import missing_rows, present, user_rows
from mlffstore.data.properties import merge_properties, ordered
from mlffstore.data.ragged import row_indices
from mlffstore.data.schema import split_key
from mlffstore.data.vocabulary import merge_words, translate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt

    from mlffstore.data.properties import Property
    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array


def has_values(batch: SampleBatch, keys: Iterable[str]) -> npt.NDArray[np.bool_]:
    """Return which samples have any value in some columns, also of a label that is missing in part; shape (S,).

    Parameters
    ----------
    batch : SampleBatch
    keys : iterable of str
        On-disk names of label and user columns, such as ``energy.orb-v2``. The batch may lack them.
    """
    out = np.zeros(len(batch), bool)
    for key in keys:
        name, teacher = split_key(key)
        if teacher is not None:
            if (values := batch.labels.get(teacher, {}).get(name)) is None:
                continue
            axis, there = batch.property_of(name).axis, ~np.isnan(values.reshape(len(values), -1)).all(axis=1)
        elif name in batch.user:
            axis, there = batch.user[name].axis, user_rows(batch, batch.user[name])[1]
        else:
            continue
        out |= there if axis == "sample" else np.logical_or.reduceat(there, batch.offsets[:-1])
    return out


def without_values(batch: SampleBatch, keys: Iterable[str], samples: Ints) -> SampleBatch:
    """Return the batch without the values of some samples in some columns.

    Parameters
    ----------
    batch : SampleBatch
    keys : iterable of str
        On-disk names of label and user columns. The batch may lack them.
    samples : ndarray, shape (T,), int64
        The samples that lose their values.

    Returns
    -------
    SampleBatch
        A column that has no value left is dropped.
    """
    labels = {teacher: dict(named) for teacher, named in batch.labels.items()}
    columns, user, masks = dict(batch.columns), dict(batch.user), dict(batch.masks)
    atoms = row_indices(batch.offsets[samples], batch.n_atoms[samples])
    for key in keys:
        name, teacher = split_key(key)
        if teacher is not None:
            if (named := labels.get(teacher)) is None or name not in named:
                continue
            named[name] = named[name].copy()
            named[name][samples if batch.property_of(name).axis == "sample" else atoms] = np.nan
            if np.isnan(named[name]).all():
                del named[name]
            if not named:
                del labels[teacher]
        elif name in user:
            column = user[name]
            rows = samples if column.axis == "sample" else atoms
            values, mask = user_rows(batch, column)
            values, mask = values.copy(), mask.copy()
            values[rows], mask[rows] = missing_rows(column, len(rows)), False
            columns[name] = values
            _set_mask(masks, name, values, mask)
            if not mask.any():
                del columns[name], user[name]
                masks.pop(name, None)
    vocabulary = {name: words for name, words in batch.vocabulary.items() if name not in batch.user or name in user}
    properties = _described(labels, batch.properties)
    return assemble(columns, labels, user, vocabulary, batch.offsets, masks, properties)


def _described(labels: Mapping[str, Mapping[str, Array]], properties: Mapping[str, Property]) -> dict[str, Property]:
    """Return the descriptions of the properties that some teacher has."""
    return {name: one for name, one in properties.items() if any(name in named for named in labels.values())}


def with_values(batch: SampleBatch, donor: SampleBatch, keys: Iterable[str], samples: Ints) -> SampleBatch:
    """Return the batch with the values of another batch in some columns of some samples.

    Parameters
    ----------
    batch : SampleBatch
    donor : SampleBatch
        As many samples as `samples`, with as many atoms each.
    keys : iterable of str
        On-disk names of label and user columns. Columns that the donor lacks stay as they are.
    samples : ndarray, shape (T,), int64
        The samples that get the values.
    """
    labels = {teacher: dict(named) for teacher, named in batch.labels.items()}
    columns, user, masks = dict(batch.columns), dict(batch.user), dict(batch.masks)
    vocabulary = dict(batch.vocabulary)
    properties = merge_properties([batch.properties, donor.properties])
    atoms = row_indices(batch.offsets[samples], batch.n_atoms[samples])
    for key in keys:
        name, teacher = split_key(key)
        if teacher is not None:
            if (new := donor.labels.get(teacher, {}).get(name)) is None:
                continue
            named = labels.setdefault(teacher, {})
            column = donor.label_column(name, teacher)
            if name in named:
                batch.label_column(name, teacher).require_same_kind(column)
            old = named[name].copy() if name in named else missing_label(column, len(batch), batch.n_atoms_total)
            old[samples if column.axis == "sample" else atoms] = new
            named[name] = old
        elif name in donor.user:
            column = donor.user[name]
            rows = samples if column.axis == "sample" else atoms
            values, mask = (array.copy() for array in user_rows(batch, column))
            new, there = user_rows(donor, column)
            if column.coded:
                words = merge_words([vocabulary.get(name, ()), donor.vocabulary[name]])
                vocabulary[name], new = words, translate(new, donor.vocabulary[name], words, name)
            values[rows], mask[rows] = new, there
            columns[name], user[name] = values, column
            _set_mask(masks, name, values, mask)
    in_order = {teacher: {name: named[name] for name in ordered(named)} for teacher, named in labels.items() if named}
    return assemble(columns, in_order, user, vocabulary, batch.offsets, masks, _described(in_order, properties))


def _set_mask(masks: dict[str, Array], name: str, values: Array, mask: Array) -> None:
    """Note the mask of a column, unless NaN says where it has no value or every row has one."""
    needed = None if values.dtype.kind == "f" else present(mask)
    if needed is None:
        masks.pop(name, None)
    else:
        masks[name] = needed
