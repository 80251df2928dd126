"""`mlffstore remove`, `revert` and `tag --withdraw`: what would be done is shown first."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest

import mlffstore as ml
from tests.command import cli
from tests.samples import mixed_frames


@pytest.fixture
def store(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(mixed_frames(6))
    store.append(mixed_frames(4, seed=1))
    return store


def test_a_removal_is_shown_first_and_done_with_yes(store, tmp_path):
    listed = tmp_path / "bad.txt"
    listed.write_text("3\n\n-1\n")
    arguments = ("remove", store.url, "--indices-file", listed, "--index", 0, "--reason", "bad geometry")
    shown = cli(*arguments)
    assert "3 samples (" in shown.stdout
    assert "would go to the quarantine" in shown.stdout
    assert "written anew  2 segments, " in shown.stdout
    assert "nothing was changed; add --yes to do it" in shown.stderr
    assert store.version == 2
    done = cli(*arguments, "--yes", "--key", "fix")
    assert "done: version 3; 'mlffstore revert STORE 3' takes it back" in done.stdout
    assert store.snapshot().quarantine.reasons() == ["bad geometry"] * 3
    again = cli(*arguments, "--yes", "--key", "fix")
    assert again.stdout == "nothing to do: version 3 did this under the same key\n"
    assert (store.version, len(store)) == (3, 7)
    assert "3 samples removed: bad geometry" in cli("log", store.url, "--json").stdout


def test_indices_of_a_version_and_json(store):
    store.tag("v1")
    store.remove([0], reason="bad")
    document = json.loads(cli("remove", store.url, "-i", 0, "-i", 1, "--tag", "v1", "--reason", "x", "--json").stdout)
    assert (document["n_samples"], document["n_gone"], document["dry_run"], document["committed"]) == (1, 1, True, None)
    document = json.loads(cli("remove", store.url, "-i", 1, "--tag", "v1", "--reason", "x", "--json", "--yes").stdout)
    assert (document["dry_run"], document["committed"]) == (False, 5)
    assert cli("remove", store.url, "-i", 1, "--version", 2, "--reason", "x", "-y").stdout == (
        "nothing to do: 1 sample gone already\n"
    )
    assert store.version == 5


def test_labels_of_a_teacher(store):
    shown = cli("remove", store.url, "--teacher", "reference", "--reason", "wrong weights", "-y").stdout
    assert "10 samples (" in shown
    assert "would lose values" in shown
    assert "labels        reference 10" in shown
    assert store.snapshot().teachers == ()
    assert "would get values back" in cli("revert", store.url, 3, "--reason", "right weights", "-y").stdout
    assert store.snapshot().teachers == ("reference",)


def test_a_commit_is_taken_back(store):
    assert "6 samples (" in cli("revert", store.url, 1, "--reason", "wrong file").stdout
    assert store.version == 2
    assert "done: version 3" in cli("revert", store.url, 1, "--reason", "wrong file", "--yes", "--key", "undo").stdout
    assert (
        "version 3 did this" in cli("revert", store.url, 1, "--reason", "wrong file", "--yes", "--key", "undo").stdout
    )
    document = json.loads(cli("revert", store.url, 3, "--reason", "right file", "--json", "--yes").stdout)
    assert (document["action"], document["committed"]) == ("restore", 4)
    assert len(store) == 10


def test_wrong_usage_is_said_in_the_words_of_the_options(store, tmp_path):
    text = tmp_path / "bad.txt"
    text.write_text("1\ntwo\n")
    wrong = [
        (("remove", "--reason", "x"), "--index"),
        (("remove", "--index", 1), "--reason"),
        (("remove", "--index", 1, "--reason", ""), "--reason: expected a text"),
        (("remove", "--index", 99, "--reason", "x"), "--index or --indices-file: index 99 is outside"),
        (("remove", "--indices-file", text, "--reason", "x"), "line 2: expected an integer, got 'two'"),
        (("remove", "--teacher", "x", "--reason", "x"), "--teacher: expected one of reference"),
        (("remove", "--index", 1, "--reason", "x", "--version", 9), "--version: expected 0 to 2"),
        (("remove", "--index", 1, "--reason", "x", "--key", ""), "--key: expected a string"),
        (("tag", "--withdraw", "v1"), "--withdraw: tag: expected one of"),
        (("tag", "v1", "--withdraw", "v1"), "--withdraw: expected neither"),
    ]
    for (verb, *options), message in wrong:
        assert message in " ".join(cli(verb, store.url, *options, code=2).stderr.split()), message
    assert "VERSION: expected 0 to 2" in cli("revert", store.url, 9, "--reason", "x", code=2).stderr
    assert "cannot be taken back" in cli("revert", store.url, 0, "--reason", "x", code=3).stderr
    assert store.version == 2


def test_a_tag_is_withdrawn(store):
    store.tag("v1")
    assert cli("tag", store.url, "--withdraw", "v1").stdout == "v1 = version 2 is withdrawn\n"
    assert store.tags == {}
    store.tag("v1", 1)
    document = json.loads(cli("tag", store.url, "--withdraw", "v1", "--json").stdout)
    assert document == {"withdrawn": "v1", "target": 1, "version": 6}


@pytest.mark.parametrize(("answer", "length"), [(b"y\n", 9), (b"n\n", 10)])
def test_a_terminal_asks(store, answer, length):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "mlffstore", "remove", store.url, "--index", "2", "--reason", "bad"]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    output = b""
    while b"Do it? [y/N]" not in output:
        output += os.read(ours, 1024)
    os.write(ours, answer)
    assert process.wait(60) == 0
    os.close(ours)
    assert b"1 sample (" in output
    assert len(store) == length
