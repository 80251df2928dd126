"""Teachers whose answers a test chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import mlffstore as ml
from mlffstore.contracts.protocols import TeacherInfo, TeacherLabels

if TYPE_CHECKING:
    from collections.abc import Callable


class Answering:
    """A teacher that calls a function, and notes which samples it was asked for by the x of their first atoms."""

    def __init__(
        self, answer: Callable[[ml.SampleBatch], TeacherLabels], properties: tuple[str, ...] = ("energy", "forces")
    ) -> None:
        self.answer, self.asked = answer, list[float]()
        self.info = TeacherInfo(
            name="t", elements=None, domains=frozenset({"molecule", "periodic"}), properties=properties,
            precision="float64", conservative=True, licence="MIT", fingerprint="x", software={},
        )  # fmt: skip

    def label(self, batch: ml.SampleBatch) -> TeacherLabels:
        """Return what the function returns."""
        self.asked += batch.positions[batch.offsets[:-1], 0].tolist()
        return self.answer(batch)


def answer(batch: ml.SampleBatch, *, refused: tuple[float, ...] = (), scale: float = 1.0, **more: Any) -> TeacherLabels:
    """Return labels that follow from the positions, refusing samples by the x of their first atoms."""
    x = batch.positions[batch.offsets[:-1], 0].astype(float)
    ok = ~np.isin(x, refused)
    return TeacherLabels(
        energy=np.where(ok, scale * x, np.nan),
        forces=np.where(np.repeat(ok, batch.n_atoms)[:, None], scale * batch.positions, np.nan),
        stress=None,
        ok=ok,
        reasons=tuple("" if good else "SCF failed" for good in ok.tolist()),
        more=more,
    )


def samples(n: int = 4, **labels: Any) -> ml.SampleBatch:
    """Return molecules of one, two, one, two, ... atoms, the first atom of sample i at x = i + 1, with labels of t."""
    n_atoms = 1 + np.arange(n) % 2
    x = np.repeat(np.arange(1.0, n + 1), n_atoms)
    starts = np.cumsum(n_atoms) - n_atoms
    positions = np.stack([x + 0.01 * (np.arange(len(x)) - np.repeat(starts, n_atoms)), x, 2 * x], axis=1)
    batch = ml.SampleBatch(n_atoms=n_atoms, numbers=np.full(len(x), 2), positions=positions)
    return batch.with_labels("t", **labels) if labels else batch
