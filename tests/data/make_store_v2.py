"""Write tests/data/store-v2.zarr and what it holds, store-v2.json: ``python tests/data/make_store_v2.py``.

Run once, when format version 2 became final. The store is read by a test forever and never written again; a new format
version gets a script and a store of its own.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import mlffstore as ml
from mlffstore.data.schema import label_column
from mlffstore.format.records import layer_document
from mlffstore.format.segment import write_layer
from tests.samples import metal_frames, molecule_frames

HERE = Path(__file__).parent


def main() -> None:
    store = ml.create(HERE / "store-v2.zarr", splits={"train": 0.5, "val": 0.25, "test": 0.25}, split_seed=3)
    store.append(metal_frames(2), teacher="emt", key="metals/0", source="bulk", sampler="rattle")
    store.append(metal_frames(2, seed=1), teacher="emt", key="metals/1", source="bulk", sampler="strain")
    store.tag("before")
    store.compact()
    store.gc(dry_run=False, grace=0, expire_before=store.version)
    molecules = ml.SampleBatch.from_ase(molecule_frames(2), teacher="toy", source="g2", sampler="rattle")
    weighted = ml.SampleBatch(
        n_atoms=molecules.n_atoms, numbers=molecules.numbers, positions=molecules.positions, energy=molecules.energy,
        forces=molecules.forces, teacher="toy", source="g2", sampler="rattle",
        extra={"weight": (np.array([0.5, 2.0]), "1", "sample")},
    )  # fmt: skip
    store.commit(
        weighted, rejected=ml.SampleBatch.from_ase(metal_frames(1, seed=5)), reasons=["too hot"], key="molecules/0"
    )
    segment = store.snapshot().segments[-1]
    layer = write_layer(store._storage, segment, [(label_column("energy", "other"), np.array([1.5, -2.5]))])
    store._log.commit("layer", None, {"layers": [layer_document(layer)]}, lambda state: None)
    store.tag("v1")
    store.append(metal_frames(2, seed=2), teacher="emt", key="metals/2", source="bulk", sampler="rattle")
    store.remove([0], reason="a test", key="removed")
    store.revert(store.version - 1, reason="another test")
    store.tag("wrong")
    store.untag("wrong")
    (HERE / "store-v2.json").write_text(json.dumps(describe(ml.open(HERE / "store-v2.zarr")), indent=1) + "\n")


def describe(store: ml.Store) -> dict:
    """Return what a store holds, as plain JSON, floats as hexadecimal so that every bit counts."""
    snap = store.snapshot()

    def plain(array: np.ndarray) -> list:
        flat = array.reshape(-1)
        return [float(x).hex() for x in flat] if flat.dtype.kind == "f" else [int(x) for x in flat]

    def columns(batch: ml.SampleBatch) -> dict:
        out = {
            name: plain(values) for name, values in batch.columns.items() if name not in ("source", "sampler", "reason")
        }
        out |= {"source": batch.source, "sampler": batch.sampler}
        for who, named in batch.labels.items():
            out |= {f"{name}.{who}": plain(values) for name, values in named.items()}
        return out

    return {
        "version": store.version,
        "tags": store.tags,
        "keys": store.keys(),
        "operations": [commit.operation for commit in store.history()],
        "splits": snap.split_codes().tolist(),
        "reasons": snap.quarantine.reasons(),
        "samples": columns(snap.read()),
        "quarantine": columns(snap.quarantine.read()),
        "tagged": columns(store.snapshot(tag="before").read()),
    }


if __name__ == "__main__":
    main()
