"""Every property, two registered ones and strings, of two teachers and partly missing, are equal by every road."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import ase.io
import h5py
import numpy as np
import pytest
import torch

import mlffstore as ml
from mlffstore.data.properties import PROPERTIES
from mlffstore.release import Release
from mlffstore.training.pyg import ToPyG, to_data
from tests.roads.writing import expected
from tests.signals import CUSTOM, assert_same

ALL = (*PROPERTIES, *CUSTOM)
TEACHERS = ("a", "b")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("roads") / "d.zarr"
    for step in ("0", "1", "layer"):
        root = Path(__file__).parents[2]
        subprocess.run([sys.executable, "-m", "tests.roads.writing", step, path], cwd=root, check=True)
    return path


@pytest.fixture(scope="module")
def whole():
    return expected()


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFFSTORE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def of_teacher(batch, teacher):
    return batch.structures().with_properties(teacher, batch.labels[teacher], batch.properties)


def rows(batch, name, i):
    return slice(batch.offsets[i], batch.offsets[i + 1]) if batch.property_of(name).axis == "atom" else i


def test_snapshot_and_xarray(path, whole):
    store = ml.open(path)
    assert store.version == 4  # two appends, and a layer over each segment
    snap = store.snapshot()
    assert_same(whole, snap.read())
    for i in range(len(whole)):
        assert_same(whole[i], snap.read([i]))
        for teacher in TEACHERS:
            labels = ml.SampleBatch.from_ase(snap.atoms([i], teacher), teacher=teacher).labels[teacher]
            for name in ALL:
                values = whole[i].labels[teacher][name]
                assert (name in labels) == (not np.isnan(values).all())
                if name in labels:
                    np.testing.assert_array_equal(labels[name].reshape(values.shape), values, err_msg=name)
    assert_same(whole, snap.to_xarray().mlff.to_batch())


@pytest.mark.parametrize("teacher", TEACHERS)
def test_release_by_h5py_and_back(path, whole, teacher, tmp_path):
    out = ml.get_exporter("hdf5")(ml.open(path).snapshot(), tmp_path / "out.h5", teacher=teacher)
    mine = of_teacher(whole, teacher)
    with h5py.File(out) as file:
        for name in ALL:
            values = file["train"][name]
            np.testing.assert_array_equal(values[...], whole.labels[teacher][name], err_msg=name)
            assert values.attrs["units"] == mine.property_of(name).unit
        for name in ("config_type", "residue"):
            codes = file["train"][name]
            words = json.loads(codes.attrs["meanings"])
            there = (
                file["train"][codes.attrs["ancillary_variables"]][...] if "ancillary_variables" in codes.attrs else None
            )
            known = np.ones(len(codes), bool) if there is None else there.astype(bool)
            strings = [words[c] if ok else None for c, ok in zip(codes, known, strict=True)]
            assert strings == whole.strings(name)
    assert_same(mine, Release(out).read("train"))
    ml.import_files(out, tmp_path / "again", require=())
    again = ml.open(tmp_path / "again").snapshot().read()
    assert_same(mine, again)
    np.testing.assert_array_equal(again.root, ml.open(path).snapshot().read().root)


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("layout", ["extxyz", "aselmdb"])
def test_ase_layouts_and_back(path, whole, teacher, layout, tmp_path):
    if layout == "aselmdb":
        pytest.importorskip("ase_db_backends")
    out = ml.get_exporter(layout)(ml.open(path).snapshot(), tmp_path / "out", teacher=teacher)
    suffix = "extxyz" if layout == "extxyz" else "aselmdb"
    files = sorted(out.rglob(f"*.{suffix}"))
    if layout == "extxyz":
        frames = ase.io.read(files[0], ":")
        found = ml.SampleBatch.from_ase(frames, teacher=teacher)
        for name in ALL:
            values = whole.labels[teacher][name]
            np.testing.assert_array_equal(found.labels[teacher][name].reshape(values.shape), values, err_msg=name)
    keys = {name: name for name in ALL if name not in ("energy", "forces", "stress", "atomic_energies")}
    ml.import_files(
        files, tmp_path / "again", teacher=teacher, keys=keys, columns=["config_type", "residue"], require=(),
        create_options={"precision": "float32"},
    )  # fmt: skip
    again = ml.open(tmp_path / "again").snapshot().read()
    for name in ALL:
        np.testing.assert_allclose(again.labels[teacher][name], whole.labels[teacher][name], rtol=1e-7, err_msg=name)
    assert again.strings("config_type") == whole.strings("config_type")
    assert again.strings("residue") == whole.strings("residue")


@pytest.mark.parametrize("teacher", TEACHERS)
def test_mace_and_back(path, whole, teacher, tmp_path, caplog):
    out = ml.get_exporter("mace")(ml.open(path).snapshot(), tmp_path / "mace", teacher=teacher)
    assert "left out: residue (MACE reads numbers)" in caplog.text
    with h5py.File(next(out.rglob("train_*.h5"))) as file:
        kinds = [config["config_type"][()].decode() for config in file["config_batch_0"].values()]
    assert kinds.count("two words") == 2
    keys = {name: name for name in ALL if name not in ("energy", "forces", "stress", "dipole", "atomic_energies")}
    ml.import_files(sorted(out.rglob("*.h5")), tmp_path / "again", teacher=teacher, keys=keys, require=())
    again = ml.open(tmp_path / "again").snapshot().read()
    for name in ALL:
        rtol = 1e-14 if name == "dipole" else 0  # in Debye in the file
        np.testing.assert_allclose(again.labels[teacher][name], whole.labels[teacher][name], rtol=rtol, err_msg=name)


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("road", ["mapped", "memory", "stream", "pyg"])
def test_training(path, whole, teacher, road):
    pytest.importorskip("torch_geometric") if road == "pyg" else None
    options = {"split": None, "teacher": teacher, "properties": ALL, "dtype": torch.float64}
    n = len(whole)
    if road == "stream":
        batch = next(iter(ml.TorchDataset.stream(path, batch_size=n, shuffle=False, block_samples=3, **options)))
    elif road == "pyg":
        graphs = ml.TorchDataset(path, transform=ToPyG(), **options).batch(range(n))
        batch = {{"z": "numbers", "pos": "positions"}.get(name, name): graphs[name] for name in graphs.keys()}  # noqa: SIM118
        one = to_data(ml.TorchDataset(path, **options).batch([0, 3]))[1]
        np.testing.assert_array_equal(one.charges.numpy(), np.nan_to_num(whole[3].labels[teacher]["charges"]))
    else:
        batch = ml.TorchDataset(path, cache=road, **options).batch(range(n))
    for name in ALL:
        values = whole.labels[teacher][name]
        lacking = np.array([np.isnan(values[rows(whole, name, i)]).any() for i in range(n)])
        assert batch[name].numpy().dtype == (np.float64 if name in ("forces", "stress") else values.dtype)
        np.testing.assert_array_equal(batch[name].numpy(), np.nan_to_num(values), err_msg=name)
        if f"{name}_mask" in batch:
            np.testing.assert_array_equal(batch[f"{name}_mask"].numpy(), ~lacking, err_msg=name)
        else:
            assert not lacking.any()


def test_after_compaction_and_required(path, whole, tmp_path):
    import shutil

    shutil.copytree(path, tmp_path / "c.zarr")
    store = ml.open(tmp_path / "c.zarr", mode="a")
    store.compact()
    assert_same(whole, store.snapshot().read())
    assert store.verify(full=True).ok
    charged = ml.TorchDataset(store, None, "b", ("energy", "charges"), require=("charges",))
    lacking = np.array([np.isnan(whole.labels["b"]["charges"][rows(whole, "charges", i)]).any() for i in range(8)])
    assert len(charged) == (~lacking).sum()
