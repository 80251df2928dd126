"""Structures and forces as short text, for the viewer."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.analysis.report.rows import plain
from mlffstore.data.ragged import offsets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlffstore.analysis.report.rows import Rows
    from mlffstore.data.schema import Array


def pack(values: Array, starts: Array) -> dict[str, Any]:
    """Return vectors as base64 of int16, with a scale per structure.

    Parameters
    ----------
    values : ndarray, shape (N, 3)
    starts : ndarray, shape (R + 1,)

    Returns
    -------
    dict
        ``data``: little-endian int16, -32768 where a value is not finite; ``scale``: one number per structure by which they
        are multiplied. The error is at most 1/65534 of the largest component of the structure.
    """
    finite = np.isfinite(values)
    size = np.where(finite, np.abs(values), 0.0).max(axis=1) if len(values) else np.zeros(0)
    scale = np.maximum.reduceat(size, starts[:-1]) / 32767 if len(starts) > 1 else np.zeros(0)
    scale = np.array([float(f"{one:.6g}") or 1.0 for one in scale * (1 + 1e-5)])
    rows = np.where(finite, values, 0.0) / np.repeat(scale, np.diff(starts))[:, None]
    whole = np.where(finite, np.rint(rows), -32768).astype("<i2")
    return {"data": base64.b64encode(whole.tobytes()).decode(), "scale": scale.tolist()}


def structures(rows: Rows, teachers: Sequence[str]) -> dict[str, Any]:
    """Return the structures and forces of the rows as plain types, for the viewer."""
    numbers = np.concatenate([batch.columns["numbers"] for batch in rows.batches])
    starts = offsets(np.concatenate([batch.columns["n_atoms"] for batch in rows.batches]))
    positions = np.concatenate([batch.columns["positions"] for batch in rows.batches]).astype(np.float64)
    middle = np.add.reduceat(np.nan_to_num(positions, posinf=0, neginf=0), starts[:-1]) / np.diff(starts)[:, None]
    middle = np.round(middle, 3)
    cell = np.concatenate([batch.columns["cell"] for batch in rows.batches])
    pbc = np.concatenate([batch.columns["pbc"] for batch in rows.batches])
    shown = np.where(pbc.any(axis=1))[0].tolist()
    batch = rows.batches[0]
    forces = {}
    for teacher in teachers:
        f = batch.labels.get(teacher, {}).get("forces")
        if f is not None:
            own = starts[: rows.n_dataset + 1]
            labelled = np.flatnonzero(np.logical_or.reduceat(np.isfinite(f).any(axis=1), own[:-1]))
            atoms = np.isin(np.repeat(np.arange(rows.n_dataset), np.diff(own)), labelled)
            forces[teacher] = {"rows": labelled.tolist(), **pack(f[atoms], offsets(np.diff(own)[labelled]))}
    return {
        "starts": starts.tolist(),
        "numbers": base64.b64encode(numbers.astype(np.uint8).tobytes()).decode(),
        "positions": pack(positions - np.repeat(middle, np.diff(starts), axis=0), starts),
        "middle": middle.ravel().tolist(),
        "cells": {str(i): plain(cell[i].ravel(), 6) for i in shown},
        "pbc": {str(i): pbc[i].astype(int).tolist() for i in shown},
        "forces": forces,
    }
