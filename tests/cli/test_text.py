"""What is printed: hints as they are, names escaped, one line for each row, long lists cut, numbers with right nouns."""

from __future__ import annotations

import json

import pytest

import mlffstore as ml
from mlffstore.cli import plugins
from mlffstore.cli.output import FEW
from mlffstore.errors import missing_dependency
from mlffstore.runtime.documents import json_text
from mlffstore.runtime.words import counted, nearest, printable
from tests.command import cli
from tests.samples import metal_frames


@pytest.fixture
def store(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(2), teacher="emt", key="first")
    return store


@pytest.mark.parametrize("kind", ["teachers", "generators"])
def test_hints_name_their_extra(monkeypatch, kind):
    def absent(name, **options):
        raise missing_dependency("tblite", "xtb", name)

    monkeypatch.setattr(plugins, "load", lambda kind, name: absent(name))
    assert "pip install 'mlffstore[xtb]'" in cli(kind).stdout


def test_keys_and_paths_are_not_markup(tmp_path):
    store = ml.create(tmp_path / "[red]d[/].zarr")
    store.append(metal_frames(1), teacher="emt", key="a [bold]b[/bold] c")
    for verb in ("info", "log"):
        text = cli(verb, store.url).stdout
        assert "a [bold]b[/bold] c" in text
    assert "[red]d[/].zarr" in cli("info", store.url).stdout
    assert json.loads(cli("log", store.url, "--json").stdout)[1]["key"] == "a [bold]b[/bold] c"
    assert r"absent\x1b[31m" in cli("info", tmp_path / "absent\x1b[31m", code=3).stderr


def test_rows_are_not_wrapped_into_a_file(store, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    key = "k" * 300
    store.append(metal_frames(1), teacher="emt", key=key)
    lines = cli("log", store.url).stdout.splitlines()
    assert len(lines) == 4
    assert lines[-1].endswith(key)
    assert not any(line.endswith(" ") for line in lines)


def test_numbers_and_plurals(store):
    about = cli("info", store.url).stdout
    assert "in 1 segment (" in about
    assert "smaller" not in about
    assert "1 segment," in cli("verify", store.url).stdout
    assert "2 log entries" in cli("verify", store.url).stdout
    assert "1 segment," in cli("compact", store.url).stdout
    assert counted(1, "entry") == "1 entry"
    assert counted(2, "way") == "2 ways"


def test_splits_are_the_real_shares(store):
    counts = json.loads(cli("info", store.url, "--json").stdout)["samples_by_split"]
    codes = store.snapshot().split_codes()
    assert counts == {name: int((codes == k).sum()) for k, name in enumerate(("train", "val", "test"))}
    text = cli("info", store.url).stdout
    assert f"train {counts['train']} ({counts['train'] / 2:.1%})" in text
    assert "EMPTY" in text  # two roots cannot fill three splits
    empty = ml.create(store.url + "2")
    assert "none yet" in cli("info", empty.url).stdout


def test_info_of_a_store_with_a_damaged_segment(store):
    import pathlib

    for file in pathlib.Path(store.url, "segments").rglob("*"):
        if file.is_file() and file.name != "zarr.json":
            file.write_bytes(b"x" * file.stat().st_size)
    assert "cannot be counted" in cli("info", store.url).stdout


def test_long_lists_are_cut(store):
    for i in range(FEW + 5):
        store.append(metal_frames(1, seed=i), teacher="emt", key=f"key-{i}")
    short, whole = cli("log", store.url), cli("log", store.url, "--all")
    assert "key-0" not in short.stdout
    assert "7 earlier commits not shown; --all" in short.stderr
    assert "key-0" in whole.stdout
    assert "--all" not in whole.stderr
    store.compact()
    arguments = ("gc", store.url, "--grace", "0s", "--short-grace", "--expire-before", store.version, "--delete")
    text = cli(*arguments).stdout
    assert "more places; --all shows all of them" in text
    assert len(text.splitlines()) == FEW + 2


def test_words():
    assert printable("a\tb\n", lines=True) == "a\tb\n"
    assert printable("größe Å") == "größe Å"
    assert printable("\udcff") == r"\udcff"
    assert nearest("gfn2_xtb", ["gfn2-xtb", "emt"]) == "; did you mean 'gfn2-xtb'?"


def test_json_of_all_that_numpy_makes():
    import numpy as np

    document = {1: np.float32("nan"), "b": np.arange(2), "c": {np.int64(3)}, "d": np.bool_(True), "e": float("inf")}
    assert json.loads(json_text(document)) == {"1": None, "b": [0, 1], "c": [3], "d": True, "e": None}
