"""Files of any origin with right checksums: refused by one error of ours before data are read, or read as what they hold."""

from __future__ import annotations

import json
import shutil

import h5py
import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import DataError, FormatError
from mlffstore.release import Release
from tests.exporters.test_damage import rewrite


@pytest.fixture
def copy(published, tmp_path):
    return shutil.copytree(published, tmp_path / published.name)


def again(group, name, **options):
    """Make a column anew with other options of h5py, its attributes as before."""
    old = group[name]
    attributes = {key: value for key, value in old.attrs.items() if key not in ("DIMENSION_LIST", "content_sha256")}
    shape, dtype = options.pop("shape", old.shape), options.pop("dtype", old.dtype)
    del group[name]
    dataset = group.create_dataset(name, shape, dtype, **options)
    dataset.attrs.update(attributes)


def outside(file, folder):
    (folder / "secret.bin").write_bytes(b"secret" * 100_000)
    again(file["train"], "numbers", external=[(str(folder / "secret.bin"), 0, h5py.h5f.UNLIMITED)])


def elsewhere(file, folder):
    with h5py.File(folder / "other.h5", "w") as other:
        other["x"] = file["val/energy"][:]
    del file["val/energy"]
    file["val/energy"] = h5py.ExternalLink(str(folder / "other.h5"), "x")


def assembled(file, folder):
    shape, dtype = file["test/forces"].shape, file["test/forces"].dtype
    layout = h5py.VirtualLayout(shape, dtype)
    layout[...] = h5py.VirtualSource(str(folder / "other.h5"), "x", shape)
    attributes = dict(file["test/forces"].attrs)
    del file["test/forces"]
    file["test"].create_virtual_dataset("forces", layout).attrs["axis"] = attributes["axis"]


def soft(file, _):
    del file["val/charge"]
    file["val/charge"] = h5py.SoftLink("/train/charge")


def whole_group(file, _):
    del file["test"]
    file["test"] = h5py.SoftLink("/train")


def endless(file, _):
    again(file["train"], "n_atoms", shape=(1 << 31,), chunks=(1 << 20,), compression="gzip", fillvalue=1)


def nested(file, _):
    file["train"].create_group("mine").attrs["axis"] = "atom"


def words(file, _):
    again(file["train"], "charge", dtype=h5py.string_dtype())


def records(file, _):
    again(file["val"], "energy", dtype=np.dtype([("a", "f8")]))


def ragged(file, _):
    again(file["val"], "forces", dtype=h5py.vlen_dtype("f4"))


def half(file, _):
    again(file["train"], "positions", dtype="f2")


def short(file, _):
    again(file["train"], "cell", shape=(3, 3, 3))


def axis(file, _):
    file["train/energy"].attrs["axis"] = "atom"


def teachers(file, _):
    file.attrs["teachers"] = json.dumps(["../x", 3])


def settings(file, _):
    file.attrs["settings"] = json.dumps({"splits": {"train": 1}})


def store(file, _):
    del file.attrs["store_uuid"]


LAYOUT = (outside, elsewhere, assembled, soft, whole_group, endless, nested, words, records, ragged, half, short, axis,
          teachers, settings, store)  # fmt: skip


@pytest.mark.parametrize("change", LAYOUT)
def test_another_layout_is_refused_before_data_are_read(copy, tmp_path, change):
    path = copy / "metals-1.0.0.h5"
    with h5py.File(path, "r+") as file:
        change(file, tmp_path)
    for use in (Release, ml.TorchDataset, lambda path: ml.TorchDataset(path, cache="memory")):
        with pytest.raises(FormatError, match="not the layout of a release"):
            use(path)
    assert not ml.verify_release(path).ok


def negative(file):
    file["train/n_atoms"][0] = -4


def moved(file):
    counts = file["train/n_atoms"][...]
    counts[0] += 1
    file["train/n_atoms"][...] = counts


def nameless(file):
    file["train/source"].attrs["meanings"] = "[]"


def no_json(file):
    file["train/sampler"].attrs["meanings"] = "{"


def no_cell(file):
    del file["train/cell"]


@pytest.mark.parametrize("change", [negative, moved, nameless, no_json, no_cell])
def test_columns_that_do_not_fit_are_damage(copy, change):
    path = copy / "metals-1.0.0.h5"
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(DataError, match="damaged"):
        Release(path).read("train")
    assert not ml.verify_release(path).ok


def test_right_checksums_do_not_hide_a_foreign_layout(copy, tmp_path):
    from mlffstore.release.manifest import describe_file

    path = copy / "metals-1.0.0.h5"
    with h5py.File(path, "r+") as file:
        outside(file, tmp_path)
    rewrite(copy, lambda manifest: manifest["files"].update({path.name: describe_file(path)}))
    found = ml.verify_release(copy)
    assert any("not the layout of a release" in problem.text for problem in found.problems)


def test_no_hdf5_at_all(tmp_path):
    for content in (b"", b"\x89HDF\r\n\x1a\n", b"text" * 500):
        (tmp_path / "x.h5").write_bytes(content)
        with pytest.raises(FormatError, match="expected an HDF5 release"):
            Release(tmp_path / "x.h5")
