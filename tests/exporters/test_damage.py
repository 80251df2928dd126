"""Every flipped bit of a release is reported, by name, and no error leaves the search."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import numpy as np
import pytest
from typer.testing import CliRunner

import mlffstore as ml
from mlffstore.cli.app import app
from mlffstore.errors import FormatError
from mlffstore.release import inspection, verify
from mlffstore.release.manifest import CHECKSUMS, MANIFEST, describe_file

DOCUMENTS = ("MANIFEST.json", "SHA256SUMS", "README.md", "statistics.yaml", "validation.json", "croissant.json",
             "CITATION.cff")  # fmt: skip


@pytest.fixture
def copy(published, tmp_path):
    return shutil.copytree(published, tmp_path / published.name)


@pytest.fixture
def here(monkeypatch):
    """The HDF5 files, which are whole, are read in this process: another interpreter takes half a second to start."""
    monkeypatch.setattr(verify, "inspect_apart", inspection.inspect)


def flip(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def bits_of(path, n):
    """Return bits of the first and of the last byte, and n others drawn at random."""
    size = 8 * path.stat().st_size
    rng = np.random.default_rng(len(path.name))
    return [0, 5, size - 8, size - 1, *rng.integers(0, size, n).tolist()]


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.usefixtures("here")
def test_a_flipped_bit_of_a_document_is_reported(copy, name, thorough):
    path = copy / name
    for bit in bits_of(path, 25 if thorough else 8 if name in (MANIFEST, CHECKSUMS) else 2):
        flip(path, bit)
        found = ml.verify_release(copy)
        assert not found.ok, bit
        assert name in {problem.path for problem in found.problems} or name == CHECKSUMS, (bit, found.problems)
        flip(path, bit)
    assert ml.verify_release(copy).ok


def test_a_flipped_bit_of_the_data_is_reported(copy):
    path = copy / "metals-1.0.0.h5"
    for bit in bits_of(path, 2):
        flip(path, bit)
        found = ml.verify_release(copy)
        assert any(problem.path == path.name and "SHA-256" in problem.text for problem in found.problems), bit
        flip(path, bit)
    assert ml.verify_release(copy).ok


@pytest.mark.slow
def test_many_flipped_bits_of_the_data(copy):
    path = copy / "metals-1.0.0.h5"
    rng = np.random.default_rng(1)
    for bit in rng.integers(0, 8 * path.stat().st_size, 300).tolist():
        flip(path, bit)
        assert not ml.verify_release(copy).ok
        flip(path, bit)


@pytest.mark.parametrize("cut", [0, 1, 100, 5000])
def test_a_file_alone_that_was_cut_or_filled_is_no_crash(copy, cut):
    path = copy / "metals-1.0.0.h5"
    path.write_bytes(path.read_bytes()[:cut])
    found = ml.verify_release(path)
    assert [problem.path for problem in found.problems] == [path.name]
    assert found.n_samples == 0


def test_sha256sum_reads_the_checksums(copy):
    if shutil.which("sha256sum") is None:
        pytest.skip("needs sha256sum (coreutils)")
    command = ["sha256sum", "--check", "--strict", CHECKSUMS]
    assert subprocess.run(command, cwd=copy, capture_output=True).returncode == 0
    flip(copy / "README.md", 99)
    assert subprocess.run(command, cwd=copy, capture_output=True).returncode == 1


def test_the_command_line_lists_the_damage(copy):
    flip(copy / MANIFEST, 3)
    flip(copy / "metals-1.0.0.h5", 12345)
    done = CliRunner().invoke(app, ["verify", str(copy), "--json"])
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert not document["ok"]
    assert {problem["path"] for problem in document["problems"]} >= {MANIFEST}
    assert CliRunner().invoke(app, ["verify", str(copy)]).exit_code == 1


def rewrite(copy, change):
    """Change the manifest and make its checksum right again."""
    manifest = json.loads((copy / MANIFEST).read_text())
    change(manifest)
    (copy / MANIFEST).write_text(json.dumps(manifest))
    digest = describe_file(copy / MANIFEST)["sha256"]
    lines = (copy / CHECKSUMS).read_text().splitlines()
    (copy / CHECKSUMS).write_text("".join(
        f"{digest}  {MANIFEST}\n" if line.endswith(MANIFEST) else f"{line}\n" for line in lines
    ))  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(splits=[1]),
        lambda m: m.update(store=7),
        lambda m: m.update(teachers="emt"),
        lambda m: m.update(files=dict.fromkeys(m["files"], 3)),
        lambda m: m["files"]["README.md"].update(bytes="x"),
        lambda m: m["files"].update({"a\0b": {}}),
        lambda m: m["files"].update({"sub/file": {}}),
        lambda m: m["files"].pop("README.md"),
        lambda m: m.update(files=[]),
        lambda m: m.update(format=None),
    ],
)
@pytest.mark.usefixtures("here")
def test_a_manifest_of_another_shape_is_a_problem_not_an_error(copy, change):
    rewrite(copy, change)
    assert not ml.verify_release(copy).ok


def test_a_manifest_whose_checksum_is_right_cannot_lead_outside(copy):
    rewrite(copy, lambda m: m["files"].update({"../outside.h5": {}}))
    with pytest.raises(FormatError, match="files in the folder"):
        ml.verify_release(copy)


def test_what_is_no_plain_file_is_not_read(copy, tmp_path):
    shutil.move(copy / "README.md", tmp_path / "README.md")
    os.symlink(tmp_path / "README.md", copy / "README.md")
    (copy / "folder").mkdir()
    problems = {problem.path: problem.text for problem in ml.verify_release(copy).problems}
    assert problems["README.md"].startswith("is missing, or no plain file")
    assert problems["folder"].startswith("is not in the manifest")


@pytest.mark.usefixtures("here")
def test_statistics_of_another_shape(copy):
    for text in (
        "[" * 3000,
        "samples: 60\natoms: x\nelements: {Al: {atoms: [1]}}\nteachers: {emt: {}}\n",
        "- 1",
        "\x00",
    ):
        (copy / "statistics.yaml").write_text(text)
        assert "statistics.yaml" in {problem.path for problem in ml.verify_release(copy).problems}
