"""Writes a store with every property in three processes: ``python -m tests.roads.writing STEP STORE``.

Teacher a comes with the samples of two appends, b as a layer of labels; both lack some labels of some samples.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

import mlffstore as ml
from mlffstore.contracts.protocols import TeacherInfo, TeacherLabels
from mlffstore.data.properties import PROPERTIES
from tests.signals import CUSTOM, LACKING, signals, values_of

if TYPE_CHECKING:
    from mlffstore.data.batch import SampleBatch

#: Labels that a layer brings beside energy, forces and stress.
MORE = tuple(name for name in (*PROPERTIES, *CUSTOM) if name not in ("energy", "forces", "stress"))


class LayerTeacher:
    """A teacher whose labels depend on the structure alone; it gives everything, and each sample lacks something."""

    info = TeacherInfo(
        name="b", elements=None, domains=frozenset({"molecule", "periodic"}),
        properties=("energy", "forces", "stress", *MORE), precision="float32", conservative=False, licence="CC0-1.0",
        fingerprint="b 1",
    )  # fmt: skip

    def label(self, batch: SampleBatch) -> TeacherLabels:
        """Label each sample."""
        named = [self._of(int(h), int(n)) for h, n in zip(batch.content_hash, batch.n_atoms, strict=True)]
        out = {name: np.concatenate([one[name] for one in named]) for name in named[0]}
        return TeacherLabels(
            out["energy"], out["forces"], out["stress"], np.ones(len(batch), bool), ("",) * len(batch),
            {name: out[name] for name in MORE},
        )  # fmt: skip

    def _of(self, content_hash: int, n: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(content_hash)
        lacking = sorted({*LACKING} - {"forces"})[content_hash % (len(LACKING) - 1)]
        out = {}
        for name in ("energy", "forces", "stress", *MORE):
            values = values_of(name, "b", [n] * 4, rng)
            values = values[:n] if len(values) > 4 or n == 1 else values[:1]
            out[name] = np.full_like(values, np.nan) if name == lacking else np.nan_to_num(values)
        return out


def batches() -> list[ml.SampleBatch]:
    """Return the samples of both appends, with the labels of a."""
    out = []
    for seed in (0, 1):
        batch = signals(seed)
        out.append(batch.structures().with_properties("a", batch.labels["a"], batch.properties))
    return out


def expected() -> ml.SampleBatch:
    """Return what the store holds in the end."""
    whole = ml.concatenate(batches()).astype("float32")
    labels = LayerTeacher().label(whole)
    named = {"energy": labels.energy, "forces": labels.forces, "stress": labels.stress, **labels.more}
    return whole.with_properties("b", named, whole.properties)


if __name__ == "__main__":
    step, path = sys.argv[1:]
    if step == "layer":
        ml.open(path, mode="a").add_labels(LayerTeacher(), chunk_samples=3)
    else:
        splits = {"train": 1.0, "val": 0.0, "test": 0.0}
        store = ml.create(path, exist_ok=True, splits=splits)
        store.append(batches()[int(step)], key=f"part {step}", require=())
