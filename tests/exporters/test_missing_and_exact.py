"""Values that some samples lack are no change of the others, and numbers are written so that they come back."""

from __future__ import annotations

import numpy as np
import pytest

import mlffstore as ml


def samples(n: int, seed: int = 0, **more: object) -> ml.SampleBatch:
    rng = np.random.default_rng(seed)
    return ml.SampleBatch(
        n_atoms=[2] * n, numbers=[1, 6] * n, positions=rng.normal(size=(2 * n, 3)) * 2, energy=rng.normal(size=n),
        forces=rng.normal(size=(2 * n, 3)), root=np.arange(n) + 1000 * seed + 1, **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    "values", [np.arange(40), np.arange(40) % 2 == 0, np.array(["a", "b"] * 20)], ids=["int", "bool", "text"]
)
def test_samples_beside_one_without_a_value_are_not_relabelled(tmp_path, values):
    store = ml.create(tmp_path / "d.zarr")
    store.append(samples(40, extra={"quality": (values, "1", "sample")}))
    first = ml.export_release(store.snapshot(), tmp_path, name="x", version="1.0.0", allow_failing=True)
    store.append(samples(3, seed=1))
    since = first if first.is_dir() else first.parent
    ml.export_release(store.snapshot(), tmp_path, name="x", version="1.1.0", since=since, allow_failing=True)


def test_float32_numbers_of_a_sample_come_back_from_extxyz(tmp_path):
    import ase.io

    values = np.array([[0.1, 0.2, 0.3]] * 2, np.float32)
    store = ml.create(tmp_path / "d.zarr")
    store.append(samples(2, extra={"vec": (values, "1", "sample"), "one": (values[:, 0], "1", "sample")}))
    path = ml.get_exporter("extxyz")(store.snapshot(), tmp_path / "xyz")
    frames = [frame for file in path.glob("*.extxyz") for frame in ase.io.read(file, ":")]
    assert len(frames) == 2
    for frame in frames:
        assert np.array_equal(frame.info["vec"], values[0].astype(float))
        assert np.float32(frame.info["one"]) == values[0, 0]


def test_a_state_belongs_to_all_labels_and_columns_that_are_trained_on(tmp_path):
    digests = set()
    for k, dipole in enumerate((1.0, 9.0)):
        store = ml.create(tmp_path / f"{k}.zarr")
        batch = samples(20)
        batch = ml.SampleBatch(
            n_atoms=batch.n_atoms, numbers=batch.numbers, positions=batch.positions,
            labels={"a": {"energy": np.zeros(20), "dipole": np.full((20, 3), dipole)}},
        )  # fmt: skip
        store.append(batch, require=())
        data = ml.TorchDataset(store.snapshot(), split=None, properties=("energy", "dipole"))
        digests.add(str(data.loader(batch_size=4).state_dict()["digest"]))
    assert len(digests) == 2


@pytest.mark.parametrize("layout", ["parquet", "nvalchemi", "zarr", "hdf5", "atompack", "store"])
def test_the_report_of_an_import_counts_the_samples_that_have_a_label(tmp_path, layout):
    store = ml.create(tmp_path / "d.zarr")
    energy = np.where(np.arange(10) < 3, -1.0, np.nan)
    batch = samples(10)
    store.append(
        ml.SampleBatch(
            n_atoms=batch.n_atoms, numbers=batch.numbers, positions=batch.positions,
            labels={"a": {"energy": energy, "forces": np.zeros((20, 3))}},
            extra={"mark": (np.ma.masked_less(np.arange(10), 4), "1", "sample")},
        ),
        require=(),
    )  # fmt: skip
    path = store.url
    if layout != "store":
        try:
            path = ml.get_exporter(layout)(store.snapshot(), tmp_path / ("out.h5" if layout == "hdf5" else "out"))
        except ml.errors.MissingDependencyError as error:
            pytest.skip(str(error))
    report = ml.import_files(path, tmp_path / "again.zarr")
    counts = {use.name: use.samples for use in report.keys if use.fate == "kept"}
    assert counts["energy"] == 3
    assert counts["forces"] == counts["root"] == 10
    if layout != "atompack":
        assert counts.get("mark", 6) == 6
