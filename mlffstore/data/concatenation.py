"""Joining of batches in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.batch import SampleBatch, assemble
from mlffstore.data.labels import Labels, missing_label
from mlffstore.data.masks import join_masks, missing_rows
from mlffstore.data.properties import merge_properties, ordered
from mlffstore.data.schema import CODED, Array, Column
from mlffstore.data.vocabulary import merge_codes, merge_words, translate
from mlffstore.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def concatenate(batches: Sequence[SampleBatch]) -> SampleBatch:
    """Join batches in order. What some of them lack is missing there: labels and user columns are NaN or masked.

    Raises
    ------
    DataError
        If there is nothing to join, or a user column is described differently in two batches.
    """
    batches = [batch for batch in batches if len(batch)] or list(batches[:1])
    if not batches:
        raise DataError("concatenate: expected at least one batch, got none")
    if len(batches) == 1:
        return batches[0]
    first = batches[0]
    user = merge_user_columns([batch.user for batch in batches])
    rooted = any("root" in batch.columns for batch in batches)
    # Hashes are those of the dtype of the positions, which become the widest.
    hashed = all("content_hash" in batch.columns for batch in batches)
    hashed &= len({batch.columns["positions"].dtype for batch in batches if "positions" in batch.columns}) <= 1
    names = [
        name for name in first.columns if name not in ("root", "content_hash", *CODED, "reason") and name not in user
    ]
    columns = {name: np.concatenate([batch.columns[name] for batch in batches]) for name in names}
    if rooted:
        columns["root"] = np.concatenate([batch.root for batch in batches])
    if hashed:
        columns["content_hash"] = np.concatenate([batch.columns["content_hash"] for batch in batches])
    vocabulary = {}
    for name in (name for name in (*CODED, "reason") if name in first.vocabulary):
        columns[name], vocabulary[name] = merge_codes([(b.columns[name], b.vocabulary[name]) for b in batches])
    properties = merge_properties([batch.properties for batch in batches])
    labels = {
        teacher: _join_labels(batches, teacher)
        for teacher in dict.fromkeys(teacher for batch in batches for teacher in batch.labels)
    }
    masks: dict[str, Array] = {}
    for name, column in user.items():
        rows = _rows(batches, column)
        columns[name] = np.concatenate(
            [
                batch.columns[name] if name in batch.user else missing_rows(column, n)
                for batch, n in zip(batches, rows, strict=True)
            ]
        )
        parts = [(n, name in batch.user, batch.masks.get(name)) for batch, n in zip(batches, rows, strict=True)]
        if (mask := join_masks(column, parts)) is not None:
            masks[name] = mask
    for name in (name for name, column in user.items() if column.coded):
        words = merge_words([batch.vocabulary[name] for batch in batches if name in batch.user])
        columns[name], vocabulary[name] = _joined_codes(batches, user[name], words), words
    return assemble(columns, labels, user, vocabulary, masks=masks, properties=properties)


def _rows(batches: Sequence[SampleBatch], column: Column) -> list[int]:
    return [len(batch) if column.axis == "sample" else batch.n_atoms_total for batch in batches]


def _joined_codes(batches: Sequence[SampleBatch], column: Column, words: Sequence[str]) -> Array:
    """Return a user column of strings as codes of one vocabulary, 0 where a batch lacks it."""
    name = column.name
    return np.concatenate(
        [
            translate(batch.columns[name], batch.vocabulary[name], words, name)
            if name in batch.user
            else missing_rows(column, n)
            for batch, n in zip(batches, _rows(batches, column), strict=True)
        ]
    )


def _join_labels(batches: Sequence[SampleBatch], teacher: str) -> Labels:
    out: Labels = {}
    for name in ordered({name for batch in batches for name in batch.labels.get(teacher, ())}):
        known = [batch.label_column(name, teacher) for batch in batches if name in batch.labels.get(teacher, {})]
        for column in known:
            known[0].require_same_kind(column)
        out[name] = np.concatenate(
            [
                labels[name]
                if name in (labels := batch.labels.get(teacher, {}))
                else missing_label(known[0], len(batch), batch.n_atoms_total)
                for batch in batches
            ]
        )
    return out


def merge_user_columns(descriptions: Iterable[Mapping[str, Column]]) -> dict[str, Column]:
    """Return the user columns of several batches together.

    Raises
    ------
    DataError
        If one name has two dtypes, shapes, axes or units.
    """
    merged: dict[str, Column] = {}
    for columns in descriptions:
        for name, column in columns.items():
            merged.setdefault(name, column).require_same_kind(column)
    return merged
