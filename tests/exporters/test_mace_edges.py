"""MACE's layout where samples differ: elements without an energy, samples of other teachers, weights, origins."""

from __future__ import annotations

import ast
import json

import h5py
import numpy as np
import pytest

import mlffstore as ml


def samples(
    n: int, numbers: list[int], teacher: str, *, energy: bool = True, seed: int = 0, **more: object
) -> ml.SampleBatch:
    """Return periodic samples of some atoms; without an energy they have forces alone."""
    rng = np.random.default_rng(seed)
    k = len(numbers)
    labels = {"forces": rng.normal(size=(n * k, 3))} | ({"energy": -3.0 * k + rng.normal(size=n)} if energy else {})
    return ml.SampleBatch(
        n_atoms=[k] * n, numbers=numbers * n, positions=rng.uniform(0, 4, (n * k, 3)), labels={teacher: labels},
        cell=np.broadcast_to(np.eye(3) * 4, (n, 3, 3)), pbc=[[True] * 3] * n, **more,
    )  # fmt: skip


def statistics_of(folder):
    document = json.loads((folder / "statistics.json").read_text())
    return document, ast.literal_eval(document["atomic_numbers"]), ast.literal_eval(document["atomic_energies"])


def test_elements_of_samples_without_an_energy_are_listed(tmp_path, caplog):
    store = ml.create(tmp_path / "d.zarr")
    store.append(samples(40, [1, 6, 8], "a"))
    store.append(samples(10, [47, 8], "a", energy=False, seed=1), require=())
    path = ml.get_exporter("mace")(store.snapshot(), tmp_path / "mace")
    _, numbers, energies = statistics_of(path)
    assert numbers == [1, 6, 8, 47]
    assert energies[47] == pytest.approx(-3, abs=0.5)
    assert "Ag" in caplog.text


def test_statistics_are_of_the_samples_that_are_written(tmp_path):
    """Atoms of another teacher's samples, which are denser here, were counted as neighbours and elements."""
    store = ml.create(tmp_path / "d.zarr")
    store.append(samples(30, [1, 1], "a"))
    alone, *_ = statistics_of(ml.get_exporter("mace")(store.snapshot(), tmp_path / "alone", teacher="a"))
    store.append(samples(30, [79] * 8, "b", energy=False, seed=1), require=())
    beside, numbers, _ = statistics_of(ml.get_exporter("mace")(store.snapshot(), tmp_path / "a", teacher="a"))
    assert beside["avg_num_neighbors"] == alone["avg_num_neighbors"]
    assert numbers == [1]
    other, numbers, _ = statistics_of(ml.get_exporter("mace")(store.snapshot(), tmp_path / "b", teacher="b"))
    assert numbers == [79]
    assert other["avg_num_neighbors"] > 3 * alone["avg_num_neighbors"]


def test_weights_and_origins_come_back(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    weight = np.where(np.arange(20) % 2, 5.0, np.nan)
    batch = samples(20, [1, 6], "a", root=np.arange(20) // 5 + 1, source=["x", "y"] * 10, sampler="md",
                    extra={"weight": (weight, "1", "sample")})  # fmt: skip
    store.append(batch)
    path = ml.get_exporter("mace")(store.snapshot(), tmp_path / "mace")
    weights = []
    for file in path.glob("*/*.h5"):
        with h5py.File(file) as opened:
            weights += [float(config["weight"][()]) for config in opened["config_batch_0"].values()]
    assert sorted(weights) == [1.0] * 10 + [5.0] * 10
    again = ml.create(tmp_path / "again.zarr")
    report = ml.import_files(sorted(path.glob("*/*.h5")), again, columns={"weight": "1"}, root="info:root")
    back = again.snapshot().read()
    assert np.sort(back.columns["weight"][~np.isnan(back.columns["weight"])]).tolist() == [5.0] * 10
    assert len(np.unique(back.root)) == 4
    assert "sampler" in str(report)
