"""All or nothing, importing twice, importing after a kill, quarantine."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import ase.io
import numpy as np
import pytest
from ase import Atoms

import mlffstore as ml
from mlffstore.errors import DataError
from mlffstore.importing.spool import Block, Spool
from tests.command import cli
from tests.samples import labelled, metal_frames, molecule_frames

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    ase.io.write(tmp_path / "a.extxyz", metal_frames(20))
    return tmp_path / "a.extxyz"


def test_the_same_file_twice_writes_nothing(file: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    first = ml.import_files(file, store, batch_samples=8)
    assert (first.samples, len(first.versions)) == (20, 1)
    shutil.copy(file, tmp_path / "copy.extxyz")
    # another name and another block size are still the same file
    again = ml.import_files([file, tmp_path / "copy.extxyz"], store, batch_samples=5)
    assert (again.samples, again.versions, again.skipped) == (0, (), 40)
    assert len(ml.open(store).snapshot()) == 20
    twice = ml.import_files([file, file], tmp_path / "t")
    assert (twice.samples, twice.skipped) == (20, 20)


def test_other_options_bring_the_same_structures_with_a_warning(file: Path, tmp_path: Path) -> None:
    ml.import_files(file, tmp_path / "s")
    report = ml.import_files(file, tmp_path / "s", teacher="other")
    assert report.samples == 20
    assert "20 of these structures are in the store already" in report.warnings[-1]
    assert "on_duplicate='skip'" in report.warnings[-1]
    skipped = ml.import_files(file, tmp_path / "s", teacher="third", on_duplicate="skip")
    assert (skipped.samples, skipped.duplicates) == (0, 20)
    with pytest.raises(DataError, match="20 that the store holds already"):
        ml.import_files(file, tmp_path / "s", teacher="fourth", on_duplicate="error")
    ase.io.write(tmp_path / "twice.extxyz", [*metal_frames(2), *metal_frames(1)])
    with pytest.raises(DataError, match="1 that the files hold twice"):
        ml.import_files(tmp_path / "twice.extxyz", tmp_path / "t", on_duplicate="error")
    assert not (tmp_path / "t").exists()
    assert len(ml.open(tmp_path / "s").snapshot()) == 40


def test_a_refusal_at_the_last_file_stores_nothing(file: Path, tmp_path: Path) -> None:
    bad = metal_frames(3)
    bad[2].positions[0, 0] = np.inf
    ase.io.write(tmp_path / "bad.traj", bad)
    (tmp_path / "broken.extxyz").write_text("3\nProperties=species:S:1:pos:R:3\nCu 0 0 0\n")
    for last in ("bad.traj", "broken.extxyz"):
        with pytest.raises(DataError, match="nothing was stored"):
            ml.import_files([file, tmp_path / last], tmp_path / "new", batch_samples=4)
        assert not (tmp_path / "new").exists()
    store = ml.create(tmp_path / "s")
    store.append(metal_frames(1))
    files = sorted(path.name for path in (tmp_path / "s").rglob("*"))
    with pytest.raises(DataError):
        ml.import_files([file, tmp_path / "bad.traj"], store, batch_samples=4)
    assert store.version == 1
    assert sorted(path.name for path in (tmp_path / "s").rglob("*")) == files


def test_two_imports_of_one_file_at_once(file: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    inner = []

    def overtake(done: int) -> None:
        if done == 5:  # the other import knows the log as it was before this
            inner.append(ml.import_files(file, store, batch_samples=5))

    outer = ml.import_files(file, store, batch_samples=5, progress=overtake)
    assert (outer.samples, outer.skipped, inner[0].samples, inner[0].skipped) == (0, 20, 20, 0)
    assert len(ml.open(store).snapshot()) == 20


_KILLED = """
import os, signal, sys
import mlffstore as ml
from mlffstore.store.transaction import Transaction
commit = Transaction.commit
def killed(self, *args, **kwargs):
    if ml.open(sys.argv[-1]).version:  # the second file of two
        os.kill(os.getpid(), signal.SIGKILL)
    return commit(self, *args, **kwargs)
Transaction.commit = killed
ml.import_files(sys.argv[1:-1], sys.argv[-1], batch_samples=5, root="file")
"""


def test_a_killed_import_is_finished_by_the_same_call(file: Path, tmp_path: Path) -> None:
    store, other = tmp_path / "s", tmp_path / "b.extxyz"
    ase.io.write(other, metal_frames(12, seed=1))
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(file), str(other), str(store)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(ml.open(store).snapshot()) == 20  # whole files only
    report = ml.import_files([file, other], store, root="file")
    assert (report.samples, report.skipped, len(report.versions)) == (12, 20, 1)
    snap = ml.open(store).snapshot().read()
    ml.import_files([file, other], tmp_path / "whole", root="file")
    whole = ml.open(tmp_path / "whole").snapshot().read()
    assert snap.content_hash.tolist() == whole.content_hash.tolist()
    assert snap.root.tolist() == whole.root.tolist()
    assert snap.energy.tolist() == whole.energy.tolist()


def test_blocks_wait_on_disk_when_there_are_many() -> None:
    batches = [ml.SampleBatch.from_ase(metal_frames(3, seed=i)).hashed() for i in range(5)]
    with Spool(memory_nbytes=2 * batches[0].nbytes) as waiting:
        for batch in batches:
            waiting.add(Block(batch, batch.take([0]), ("why",)))
        assert [len(hashes) for hashes in waiting.hashes()] == [3] * 5
        for block, batch in zip(waiting.take(), batches, strict=True):
            assert block.accepted is not None
            assert block.accepted.energy.tolist() == batch.energy.tolist()
            assert block.accepted.content_hash.tolist() == batch.content_hash.tolist()
            assert block.reasons == ("why",)


def awkward() -> list[Atoms]:
    """Return 12 good molecules with four bad ones among them: no forces, a ghost atom, an odd charge, lost hydrogens."""
    frames = molecule_frames(12)
    bare = molecule_frames(1, seed=5)[0]
    bare.calc.results.pop("forces")
    ghost = labelled(Atoms("OHHX", [[0, 0, 0], [0, 0, 1], [0, 1, 0], [3, 0, 0]]), -1.0, np.zeros((4, 3)))
    odd = molecule_frames(1, seed=6)[0]
    odd.info["charge"] = 0.5
    stripped = Atoms("C6", molecule_frames(3, seed=7)[2].positions[:6])
    return [
        *frames[:3],
        bare,
        *frames[3:6],
        ghost,
        *frames[6:9],
        odd,
        labelled(stripped, -2.0, np.zeros((6, 3))),
        *frames[9:],
    ]


def test_quarantine_keeps_the_good_frames(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "a.traj", awkward())
    with pytest.raises(DataError, match="on_error='quarantine' keeps the other samples"):
        ml.import_files(tmp_path / "a.traj", tmp_path / "s")
    report = ml.import_files(tmp_path / "a.traj", tmp_path / "s", on_error="quarantine", batch_samples=5)
    assert (report.samples, report.rejected, report.unreadable, len(report.reasons)) == (12, 4, 0, 4)
    snap = ml.open(tmp_path / "s").snapshot()
    assert snap.read().energy.tolist() == [frame.get_potential_energy() for frame in molecule_frames(12)]
    reasons = snap.quarantine.reasons()
    assert [reason.split(": ")[0] for reason in reasons] == [f"a.traj, frame {i}" for i in (3, 7, 11, 12)]
    for reason, word in zip(reasons, ("expected forces", "atomic numbers", "whole number", "hydrogens"), strict=True):
        assert word in reason
    again = ml.import_files(tmp_path / "a.traj", tmp_path / "s", on_error="quarantine")
    assert (again.samples, again.rejected, again.skipped) == (0, 0, 12)


def test_records_without_a_structure_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.smi").write_text("CO\nC(C(C\nCC\nC.C\n")
    report = ml.import_files(tmp_path / "a.smi", tmp_path / "s", require=(), on_error="quarantine")
    assert (report.samples, report.rejected, report.unreadable) == (2, 0, 2)
    assert any("line 2: expected the SMILES" in reason for reason in report.reasons)
    note = ml.open(tmp_path / "s").provenance()[-1]["import"]
    assert (note["samples"], note["unreadable"]) == (2, 2)
    (tmp_path / "b.smi").write_text("C(C(C\n")
    nothing = ml.import_files(tmp_path / "b.smi", tmp_path / "s", require=(), on_error="quarantine")
    assert (nothing.samples, nothing.unreadable, nothing.versions) == (0, 1, ())


def test_the_command_line_speaks_of_its_own_options(tmp_path: Path) -> None:
    frames = metal_frames(3)
    for frame in frames:
        frame.info.update(REF_energy=-1.0, config_type="bulk", weight=2.0)
    ase.io.write(tmp_path / "a.extxyz", frames)
    refused = cli("import", tmp_path / "a.extxyz", tmp_path / "s", code=3)
    assert "--key energy=REF_energy or --key energy=energy" in refused.stderr
    assert "--on-error quarantine" in refused.stderr
    assert "keys=" not in refused.stderr
    arguments = ("--key", "energy=REF_energy,energy", "--column", "weight")
    done = cli("import", tmp_path / "a.extxyz", tmp_path / "s", *arguments)
    assert "left out" in done.stdout
    assert "config_type" in done.stderr
    arguments = ("--key", "energy=energy", "--json", "--require", "none")
    shown = cli("import", tmp_path / "a.extxyz", tmp_path / "t", *arguments, code=None)
    report = json.loads(shown.stdout)
    fates = {use["name"]: use["fate"] for use in report["keys"] if use["name"] != "initial_magmoms"}
    assert fates == {
        "energy": "kept", "forces": "kept", "stress": "kept", "REF_energy": "left out", "config_type": "left out",
        "weight": "left out",
    }  # fmt: skip
    assert ml.open(tmp_path / "s").snapshot().read().energy.tolist() == [-1.0] * 3
