"""The command line: results on stdout, exit codes, JSON."""

from __future__ import annotations

import json

import pytest
from ase.io import write

import mlffstore as ml
from tests.command import cli
from tests.samples import metal_frames, molecule_frames


@pytest.fixture
def store(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(12), teacher="emt", key="first")
    store.append(molecule_frames(4), teacher="toy")
    return store


def test_info(store):
    text = cli("info", store.url).stdout
    for part in ("16", "emt (12)", "toy (4)", "75 %", "first"):
        assert part in text
    about = json.loads(cli("info", store.url, "--json").stdout)
    assert about["samples"] == 16
    assert about["elements"]["C"] > 0


def test_log_and_tag(store):
    cli("tag", store.url, "v1")
    assert "v1 = version 2" in cli("tag", store.url).stdout
    commits = json.loads(cli("log", store.url, "--json").stdout)
    assert [c["operation"] for c in commits] == ["create", "append", "append", "tag"]
    assert "append" in cli("log", store.url, "-n", "2").stdout


def test_export(store, tmp_path):
    written = json.loads(cli("export", store.url, "-o", tmp_path / "out", "--json").stdout)
    assert [one["teacher"] for one in written] == ["emt", "toy"]
    assert sum(written[0][split] for split in ("train", "val", "test")) == 12
    done = cli("export", store.url, "-o", tmp_path / "one.h5", code=2)
    assert "choose one" in done.stderr
    cli("export", store.url, "-o", tmp_path / "one.h5", "-t", "toy")
    assert len(ml.TorchDataset(tmp_path / "one.h5", split=None)) == 4


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["-o", "x.h5", "--licence", "CC0-1.0", "--counts", "1,1,1"], ["--counts", "--licence"]),
        (["-o", "x.h5", "--heads"], ["--heads"]),
        (["-o", "x.h5", "--allow-failing"], ["--allow-failing"]),
        (["-f", "extxyz", "-o", "x", "--codec", "zstd", "--level", "4"], ["--codec", "--level"]),
        (["-f", "extxyz", "-o", "x", "-t", "emt", "-t", "toy"], ["one teacher"]),
        (["-o", "x.h5", "-t", "emt", "-t", "toy"], ["one teacher"]),
    ],
)
def test_options_that_would_do_nothing_are_refused(store, tmp_path, monkeypatch, options, named):
    monkeypatch.chdir(tmp_path)
    teacher = [] if "emt" in options else ["-t", "toy"]
    done = cli("export", store.url, *options, *teacher, code=2)
    text = done.stderr
    for words in named:
        assert words in text
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "x.h5").exists()


def test_import(tmp_path):
    write(tmp_path / "a.extxyz", metal_frames(5))
    text = cli("import", tmp_path / "a.extxyz", tmp_path / "i.zarr", "-t", "emt").stdout
    assert "5 samples" in text
    assert len(ml.open(tmp_path / "i.zarr")) == 5


def test_plugins():
    names = [one["name"] for one in json.loads(cli("teachers", "--json").stdout)]
    assert {"chgnet", "emt", "fennol", "gfn2-xtb", "orb-v2"} <= set(names)
    assert "strain" in cli("generators").stdout


def test_exit_codes(tmp_path):
    assert "there is no mlffstore store" in cli("info", tmp_path / "absent", code=3).stderr
    assert "no-such-verb" in cli("no-such-verb", code=2).stderr
    assert cli("--version").stdout.startswith("mlffstore ")


def test_a_size_without_an_end_is_a_mistake_of_usage(tmp_path):
    ml.create(tmp_path / "d.zarr").append(metal_frames(3))
    done = cli("export", tmp_path / "d.zarr", "--shard-gb", "inf", "-o", tmp_path / "out", code=2)
    assert "--shard-gb" in done.stderr


def test_periodic_has_one_meaning(tmp_path):
    """Slabs are periodic, as info and select say; that they are in two directions is named."""
    from ase.build import bulk, fcc111

    store = ml.create(tmp_path / "d.zarr")
    store.append([fcc111("Cu", (1, 1, 3), vacuum=8.0), bulk("Cu"), molecule_frames(1)[0]], require=())
    assert store.snapshot().summary()["periodic"] == len(store.snapshot().select("periodic")) == 2
    document = json.loads(cli("stats", store.url, "--json").stdout)
    assert (document["periodic"], document["partly_periodic"]) == (2, 1)
    assert "2 (67%), 1 of them in one or two directions" in cli("stats", store.url).stdout
    (tmp_path / "p.yaml").write_text("acceptance:\n  periodic_fraction: {min: 0.6}\n")
    lines = ml.validate(store, tmp_path / "p.yaml").acceptance
    assert [line.passed for line in lines if line.quantity == "periodic_fraction"] == [True]
