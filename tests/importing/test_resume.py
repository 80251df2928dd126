"""Importing twice, importing after a kill."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import ase.io
import pytest

import mlffstore as ml
from tests.samples import metal_frames

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    ase.io.write(tmp_path / "a.extxyz", metal_frames(20))
    return tmp_path / "a.extxyz"


def test_the_same_file_twice_writes_nothing(file: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    first = ml.import_files(file, store, batch_samples=8)
    assert (first.samples, len(first.versions)) == (20, 3)
    shutil.copy(file, tmp_path / "copy.extxyz")
    # another name and another block size are still the same file
    again = ml.import_files([file, tmp_path / "copy.extxyz"], store, batch_samples=5)
    assert (again.samples, again.versions, again.skipped) == (0, (), 40)
    assert len(ml.open(store).snapshot()) == 20
    twice = ml.import_files([file, file], tmp_path / "t")
    assert (twice.samples, twice.skipped) == (20, 20)


def test_other_options_are_other_samples(file: Path, tmp_path: Path) -> None:
    ml.import_files(file, tmp_path / "s")
    assert ml.import_files(file, tmp_path / "s", teacher="other").samples == 20


def test_two_imports_of_one_file_at_once(file: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    inner = []

    def overtake(done: int) -> None:
        if done == 5:  # the other import knows the log as it was before this
            inner.append(ml.import_files(file, store, batch_samples=5))

    outer = ml.import_files(file, store, batch_samples=5, progress=overtake)
    assert (outer.samples, outer.skipped, inner[0].samples, inner[0].skipped) == (5, 15, 15, 5)
    assert len(ml.open(store).snapshot()) == 20


_KILLED = """
import os, signal, sys
import mlffstore as ml
def progress(done):
    if done >= 10:
        os.kill(os.getpid(), signal.SIGKILL)
ml.import_files(sys.argv[1], sys.argv[2], batch_samples=5, root="file", progress=progress)
"""


def test_a_killed_import_is_finished_by_the_same_call(file: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(file), str(store)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(ml.open(store).snapshot()) == 10
    report = ml.import_files(file, store, root="file")  # goes on in blocks of 5, as it began
    assert (report.samples, report.skipped, len(report.versions)) == (10, 10, 2)
    snap = ml.open(store).snapshot().read()
    ml.import_files(file, tmp_path / "whole", root="file")
    whole = ml.open(tmp_path / "whole").snapshot().read()
    assert snap.content_hash.tolist() == whole.content_hash.tolist()
    assert snap.root.tolist() == whole.root.tolist()
    assert snap.energy.tolist() == whole.energy.tolist()
