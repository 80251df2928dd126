"""Verbs say what was wrong in the words of what was typed, and show nothing that is not so."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from ase.io import write

import mlffstore as ml
from tests.command import cli
from tests.samples import metal_frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("messages")
    store = ml.create(folder / "d.zarr")
    store.append(metal_frames(40), teacher="emt")
    ml.create(folder / "empty.zarr")
    options = {"name": "r", "version": "1.0.0", "teacher": "emt", "policy": None}
    ml.export_release(store.snapshot(), folder / "out", **options)
    write(folder / "a.extxyz", metal_frames(3))
    return folder


@pytest.mark.parametrize("verb", [["validate"], ["stats"], ["report"]])
def test_a_store_without_samples_is_named(folder, verb):
    done = cli(*verb, folder / "empty.zarr", code=3)
    assert "empty.zarr: expected at least one sample" in done.stderr


@pytest.mark.parametrize("verb", [["log"], ["compact"], ["gc"], ["tag", "{}", "x"], ["label", "{}", "-t", "emt"]])
def test_a_release_where_a_store_is_expected(folder, verb):
    release = folder / "out" / "r-1.0.0"
    arguments = [str(release) if one == "{}" else one for one in (verb if "{}" in verb else [*verb, "{}"])]
    done = cli(*arguments, code=3)
    assert "expected a store" in done.stderr
    assert "got a release" in done.stderr
    file = next(release.glob("*.h5"))
    done = cli("log", file, code=3)
    assert "got a file" in done.stderr
    assert "there is no mlffstore store" in cli("log", folder / "absent.h5", code=3).stderr


def test_a_file_alone_is_not_called_what_was_published(folder, tmp_path):
    copy = tmp_path / "lone.h5"
    copy.write_bytes(next((folder / "out" / "r-1.0.0").glob("*.h5")).read_bytes())
    with h5py.File(copy, "a") as file:
        file.attrs["title"] = "another"
    assert "published" not in cli("verify", copy).stdout
    assert "what was published" in cli("verify", folder / "out" / "r-1.0.0").stdout


def test_labels_have_nothing_to_match_where_there_is_no_store(folder, tmp_path):
    done = cli("import", folder / "a.extxyz", tmp_path / "typo.zarr", "--match", "structure", code=3)
    assert "--match: expected a store with structures" in done.stderr
    assert not (tmp_path / "typo.zarr").exists()


def test_one_document_goes_to_stdout(folder):
    done = cli("select", folder / "d.zarr", "--csv", "-", "--json", code=2)
    assert "--csv" in done.stderr
    done = cli("select", folder / "d.zarr", "--csv", "-", "--name", "kept")
    assert "kept as kept" in done.stderr
    assert "kept as" not in done.stdout


def test_flags_that_cannot_be_stored_do_not_hide_what_was_found(folder):
    done = cli("validate", folder / "d.zarr", "--store-flags", "", code=2)
    assert "--store-flags" in done.stderr
    cli("validate", folder / "d.zarr", "--store-flags", "flags", code=None)
    done = cli("validate", folder / "d.zarr", "--store-flags", "energy", code=None)
    assert done.exit_code in (2, 3)
    assert "acceptance" in done.stdout


def test_an_unknown_teacher_is_wrong_usage_for_every_verb(folder):
    for verb in (["cache", "--build", folder / "d.zarr"], ["stats", folder / "d.zarr"], ["export", folder / "d.zarr"]):
        assert "--teacher" in cli(*verb, "--teacher", "nope", code=2).stderr


def test_stresses_that_fall_with_the_volume_are_not_passed():
    from mlffstore.data.stress import StressCheck

    rng = np.random.default_rng(0)
    for spread, fault in ((0.0, "sign"), (0.2, "doubt")):
        check = StressCheck()
        for k in range(30):
            log_volume = np.linspace(-0.05, 0.05, 8)
            stress = -0.6 * log_volume + 0.02 * rng.normal(size=8) * bool(spread) + spread * rng.choice([-1, 1])
            check.gather([bytes([k])] * 8, np.exp(log_volume), stress)
        assert check.finding().fault == fault
