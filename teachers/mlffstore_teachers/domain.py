"""The domain guard: which samples a teacher may label, and why not the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.ragged import reduce_rows

if TYPE_CHECKING:
    from mlffstore.contracts.protocols import TeacherInfo
    from mlffstore.data.batch import SampleBatch


def refusals(info: TeacherInfo, batch: SampleBatch, *, charged: bool) -> list[str]:
    """Return why each sample lies outside the teacher's domain, an empty string where it does not.

    Parameters
    ----------
    info : TeacherInfo
        Elements and domains that the teacher knows.
    batch : SampleBatch
    charged : bool
        Whether the teacher takes the total charge into account.
    """
    from ase.data import chemical_symbols

    reasons = [""] * len(batch)
    if info.elements is not None:
        unknown = ~np.isin(batch.numbers, sorted(info.elements))
        if unknown.any():
            for i in np.flatnonzero(reduce_rows(np.logical_or, unknown, batch.offsets)):
                atoms = slice(batch.offsets[i], batch.offsets[i + 1])
                symbols = sorted({chemical_symbols[z] for z in batch.numbers[atoms][unknown[atoms]]})
                reasons[i] = f"{info.name} does not know {', '.join(symbols)}"
    n_periodic = batch.pbc.sum(axis=1)
    for i in np.flatnonzero(n_periodic > 0 if "periodic" not in info.domains else (n_periodic > 0) & (n_periodic < 3)):
        what = "is periodic" if "periodic" not in info.domains else "is periodic along some directions only"
        reasons[i] = reasons[i] or f"{info.name}: the sample {what}"
    if "molecule" not in info.domains:
        for i in np.flatnonzero(n_periodic == 0):
            reasons[i] = reasons[i] or f"{info.name} labels periodic samples, this one is not periodic"
    if not charged:
        for i in np.flatnonzero(batch.charge):
            reasons[i] = reasons[i] or f"{info.name} knows no charge, the sample has {batch.charge[i]:+d} e"
    return reasons
