"""Versions rise with what changed; what a release lacks is said on its card and by the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import ReleaseError
from tests.command import cli
from tests.samples import metal_frames


@pytest.mark.parametrize(
    ("first", "change", "refused", "accepted"),
    [
        ("1.0.0", "added", "1.0.1", "1.1.0"),
        ("1.4.2", "added", "1.4.3", "2.0.0"),
        ("1.0.0", "nothing", "0.9.0", "1.0.1"),
        ("1.0.0", "removed", "1.1.0", "2.0.0"),
        ("0.1.0", "removed", "0.1.1", "0.2.0"),
    ],
)
def test_a_version_must_rise_with_what_changed(tmp_path, first, change, refused, accepted):
    frames = metal_frames(30)
    before = {"added": frames[:20], "removed": frames, "nothing": frames}[change]
    after = {"added": frames, "removed": frames[:20], "nothing": frames}[change]
    old, new = (ml.create(tmp_path / f"{name}.zarr") for name in ("old", "new"))
    old.append(before, teacher="emt")
    new.append(after, teacher="emt")
    path = ml.export_release(old.snapshot(), tmp_path / "r", name="m", version=first)
    with pytest.raises(ReleaseError, match=r"^version: expected \d\.\d\.\d or later, since these are the changes"):
        ml.export_release(new.snapshot(), tmp_path / "r", name="m", version=refused, since=path)
    assert not (tmp_path / "r" / f"m-{refused}").exists()
    ml.export_release(new.snapshot(), tmp_path / "r", name="m", version=accepted, since=path)
    assert (tmp_path / "r" / f"m-{accepted}").exists()


def test_the_command_line_names_its_option(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(20), teacher="emt")
    cli("export", store.url, "--name", "m", "-o", tmp_path)
    store.append(metal_frames(5, seed=9), teacher="emt")
    arguments = (
        "export",
        store.url,
        "--name",
        "m",
        "-o",
        tmp_path,
        "--from-release",
        tmp_path / "m-1.0.0",
        "--release",
    )
    assert "--release: expected 1.1.0 or later" in cli(*arguments, "1.0.1", code=2).stderr
    assert "a minor version" in cli(*arguments, "1.1.0").stdout


@pytest.mark.parametrize(
    ("first", "refused", "least", "accepted"),
    [
        ("1.0.0", "1.1.0", "2.0.0 or later", "2.0.0"),
        ("1.0.0", "0.0.1", "2.0.0 or later", "3.0.0"),
        ("2.0.0-rc.1", "1.9.0", "a version after 2.0.0-rc.1", "2.0.0"),
    ],
)
def test_a_version_must_rise_also_under_another_name(tmp_path, first, refused, least, accepted):
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(30), teacher="emt")
    cli("export", store.url, "--name", "many", "--release", first, "-o", tmp_path)
    arguments = ("export", store.url, "--where", "n_atoms > 4", "--name", "few", "-o", tmp_path)
    arguments += ("--from-release", tmp_path / f"many-{first}", "--release")
    done = cli(*arguments, refused, code=2)
    assert f"--release: expected {least}" in done.stderr
    assert "--from-release) out if few is another dataset" in done.stderr
    assert not (tmp_path / f"few-{refused}").exists()
    cli(*arguments, accepted)
    assert (tmp_path / f"few-{accepted}").exists()


def test_a_version_that_cannot_be_compared_is_said(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(20), teacher="emt")
    old = ml.get_exporter("hdf5")(store.snapshot(), tmp_path / "old.h5", title="m", version="of last week")
    done = cli("export", store.url, "--name", "m", "-o", tmp_path, "--from-release", old, "--release", "0.0.1")
    assert "got 'of last week'; whether 0.0.1 rises enough was not compared" in done.stdout


def test_what_is_empty_or_lacking_is_said(tmp_path):
    store = ml.create(tmp_path / "d.zarr", splits={"train": 0.5, "val": 0.0, "test": 0.5})
    batch = ml.SampleBatch.from_ase(metal_frames(8), teacher="emt")
    trains = np.flatnonzero(_codes(tmp_path, np.arange(200, dtype=np.uint64)) == 0).astype(np.uint64)
    tests = np.flatnonzero(_codes(tmp_path, np.arange(200, dtype=np.uint64)) == 2).astype(np.uint64)
    copper = np.array(
        [set(batch.numbers[a:b]) == {29} for a, b in zip(batch.offsets[:-1], batch.offsets[1:], strict=True)]
    )
    store.append(batch.with_columns(root=np.where(copper, tests[0], trains[0])))
    done = cli("export", store.url, "--name", "m", "-o", tmp_path)
    assert "warning: val is EMPTY" in done.stderr
    card = (tmp_path / "m-1.0.0" / "README.md").read_text()
    assert "The split train has no sample with Cu that `emt` labelled." in card
    assert "val is EMPTY" in card
    assert json.loads(cli("info", store.url, "--json").stdout)["samples_by_split"]["val"] == 0


@pytest.mark.parametrize(
    ("given", "written"),
    [("cc-by-4.0", "CC-BY-4.0"), ("MIT OR Apache-2.0", "MIT OR Apache-2.0"), ("LicenseRef-mine", "LicenseRef-mine"),
     ("CC BY 4.0", None), ("free", None), ("MIT AND", None)],
)  # fmt: skip
def test_licences_are_spdx_or_refused(tmp_path, given, written):
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(20), teacher="emt")
    done = cli("export", store.url, "--name", "m", "-o", tmp_path, "--licence", given, code=2 if written is None else 0)
    if written is None:
        assert "--licence: expected an SPDX identifier" in done.stderr
        assert not (tmp_path / "m-1.0.0").exists()
    else:
        assert json.loads((tmp_path / "m-1.0.0" / "MANIFEST.json").read_text())["licence"] == written


def _codes(tmp_path, roots):
    from mlffstore.data.splits import assign

    return assign(roots, {"train": 0.5, "val": 0.0, "test": 0.5}, 0)
