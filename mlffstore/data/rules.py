"""The rules that a batch must keep to be stored: finite numbers, known elements, cells where there is periodicity, labels.

They are cheap and always on. Physics (distances, force limits) is checked by the pipeline and by validation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.properties import find_property, known_properties
from mlffstore.data.ragged import reduce_rows
from mlffstore.data.schema import CODED, LABELS, STRUCTURE, Array
from mlffstore.errors import DataError, problems_message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlffstore.data.batch import SampleBatch

#: Labels that every sample needs unless the caller says otherwise.
REQUIRED = ("energy", "forces")
#: Smallest sine of the angle between two periodic lattice vectors, and volume over the product of the three lengths.
MIN_SINE = 1e-6


def check_whole(batch: SampleBatch) -> None:
    """Raise `DataError` unless a batch has all columns of a structure: one that was read with ``columns=`` lacks some."""
    missing = [name for name in (*STRUCTURE, *CODED) if name not in batch.columns]
    if missing:
        raise DataError(
            f"expected whole samples, got a batch without {', '.join(missing)}; read it without columns=[...], or name "
            "these too"
        )


def check(batch: SampleBatch, require: Sequence[str] = REQUIRED) -> None:
    """Raise `DataError` with every problem of the batch, or return.

    Parameters
    ----------
    batch : SampleBatch
    require : sequence of str, optional
        Properties that each sample must have from at least one teacher. ``()`` allows unlabelled structures.

    Raises
    ------
    DataError
        If positions or cells are not finite, an atomic number is not 1 to 118, a multiplicity is below 1, a periodic
        direction has no lattice vector, the periodic lattice vectors are collinear or in one plane, a label is infinite or
        NaN in part, or a required label is missing.
    """
    if not len(batch):
        raise DataError("expected at least one sample, got an empty batch")
    problems = []
    for text, bad in violations(batch, require):
        which = np.flatnonzero(bad)
        more = f" (and {len(which) - 1} more samples)" if len(which) > 1 else ""
        problems.append(f"sample {which[0]}{more}: {text}")
    if problems:
        raise DataError(problems_message("these samples cannot be stored:", problems))


def violations(batch: SampleBatch, require: Sequence[str] = REQUIRED) -> list[tuple[str, Array]]:
    """Return what is wrong with a batch that has samples: a text and the samples that it is true of, shape (S,), bool.

    Parameters
    ----------
    batch, require
        As for `check`.

    Raises
    ------
    DataError
        If `require` names something else than a label.
    """
    unknown = [name for name in require if find_property(name, batch.properties) is None]
    if unknown:
        raise DataError(
            f"require: expected labels among {', '.join(known_properties())}, got {', '.join(sorted(unknown))}"
        )
    violated: list[tuple[str, Array]] = []

    def complain(bad: Array, text: str) -> None:
        if bad.any():
            violated.append((text, bad))

    def per_sample(atoms: Array) -> Array:
        return reduce_rows(np.logical_or, atoms, batch.offsets) if atoms.any() else np.zeros(len(batch), bool)

    if not np.isfinite(batch.positions).all():
        bad = ~np.all(np.isfinite(batch.positions), axis=1)
        complain(per_sample(bad), "expected finite positions, got NaN or infinity")
    complain(
        per_sample((batch.numbers < 1) | (batch.numbers > 118)), "expected atomic numbers from 1 to 118, got another"
    )
    finite_cell = np.all(np.isfinite(batch.cell), axis=(1, 2))
    complain(~finite_cell, "expected a finite cell, got NaN or infinity")
    cell = np.where(finite_cell[:, None, None], batch.cell, 1.0)
    no_vector = np.any(batch.pbc & (np.abs(cell).sum(axis=2) == 0), axis=1)
    complain(
        no_vector, "is periodic along a direction without a lattice vector; give the cell or set pbc to False there"
    )
    complain(batch.multiplicity < 1, "expected a spin multiplicity 2S+1 of at least 1, got less")
    fine = finite_cell & ~no_vector
    # Relative to the lengths of the vectors, so that the limits mean an angle and not a size.
    length = np.linalg.norm(cell, axis=2)
    if (fine & np.all(batch.pbc, axis=1)).any():
        volume = np.abs(np.linalg.det(cell)) / np.maximum(np.prod(length, axis=1), 1e-300)
        flat = fine & np.all(batch.pbc, axis=1) & (volume < MIN_SINE)
        complain(flat, "expected a cell with a volume, got lattice vectors in one plane")
    if (fine & (batch.pbc.sum(axis=1) == 2)).any():
        for i, j in ((0, 1), (0, 2), (1, 2)):
            sine = np.linalg.norm(np.cross(cell[:, i], cell[:, j]), axis=1) / np.maximum(
                length[:, i] * length[:, j], 1e-300
            )
            plane = fine & batch.pbc[:, i] & batch.pbc[:, j] & (batch.pbc.sum(axis=1) == 2)
            complain(
                plane & (sine < MIN_SINE), f"expected lattice vectors {i} and {j} to span a plane, got collinear ones"
            )

    present = {name: np.zeros(len(batch), bool) for name in (*LABELS, *require)}
    for teacher, named in batch.labels.items():
        for name, array in named.items():
            atom_wise = batch.property_of(name).axis == "atom"
            present.setdefault(name, np.zeros(len(batch), bool))
            flat = array.reshape(len(array), -1)
            if np.isfinite(flat).all():  # the usual case, in one pass
                present[name][:] = True
                continue
            missing = np.isnan(flat)
            infinite = np.any(np.isinf(flat), axis=1)
            some, every = np.any(missing, axis=1), np.all(missing, axis=1)
            if atom_wise:
                infinite = per_sample(infinite)
                some = reduce_rows(np.logical_or, some, batch.offsets)
                every = reduce_rows(np.logical_and, every, batch.offsets)
            complain(infinite, f"expected finite {name} of {teacher!r}, got infinity")
            complain(some & ~every, f"expected finite {name} of {teacher!r}, got NaN for part of it")
            present[name] |= ~some
    for name in require:
        complain(
            ~present[name],
            f"has no {name}; give it (attach calculator results, or pass labels=), or say what is needed with "
            "require=(...): require=() stores structures to be labelled later",
        )
    return violated
