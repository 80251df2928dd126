"""Nothing that is typed ends in a traceback; exit codes say what kind of error it was."""

from __future__ import annotations

import os
from concurrent.futures.process import BrokenProcessPool

import pytest
from ase.io import write

import mlffstore as ml
from mlffstore.cli import info
from tests.command import cli
from tests.samples import metal_frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("errors")
    ml.create(folder / "d.zarr").append(metal_frames(6), teacher="emt")
    write(folder / "a.extxyz", metal_frames(2))
    (folder / "empty").touch()
    (folder / "bytes").write_bytes(bytes(range(256)))
    (folder / "folder").mkdir()
    (folder / "dangling").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    (folder / "damaged.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 50)
    (folder / "unreadable").write_text("x")
    (folder / "unreadable").chmod(0)
    return folder


PATHS = ("absent", "absent/x", "a.extxyz/x", "empty", "bytes", "folder", "dangling", "loop", "damaged.h5", "", "x" * 300,
         "unreadable", "\udcff")  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "command",
    [
        ["info", "{}"],
        ["log", "{}"],
        ["tag", "{}", "name"],
        ["verify", "{}"],
        ["gc", "{}"],
        ["compact", "{}"],
        ["backup", "{}", "copy"],
        ["validate", "{}"],
        ["validate", "d.zarr", "--policy", "{}"],
        ["stats", "{}"],
        ["report", "{}"],
        ["export", "{}"],
        ["export", "d.zarr", "--from-release", "{}", "--out", "new"],
        ["label", "{}", "-t", "emt"],
        ["label", "d.zarr", "-t", "fennol", "--weights", "{}"],
        ["label", "d.zarr", "-t", "ase:{}"],
        ["run", "{}"],
        ["run", "{}", "--scheduler-file", "{}"],
        ["active", "{}"],
        ["generators", "plan", "{}"],
        ["generators", "account", "{}"],
        ["import", "{}", "new.zarr"],
        ["cache", "--build", "{}"],
    ],
    ids=" ".join,
)
def test_paths(folder, monkeypatch, command, path):
    monkeypatch.chdir(folder)
    done = cli(*(word.replace("{}", path) for word in command), code=None)
    assert done.exit_code in (1, 2, 3), done.stderr
    assert "error: " in done.stderr or done.exit_code == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["stats", "d.zarr", "--no-neighbours", "--out", "{}"],
        ["export", "d.zarr", "--out", "{}"],
        ["export", "d.zarr", "--out", "{}/x.h5"],
        ["export", "d.zarr", "-f", "extxyz", "--out", "{}"],
        ["report", "d.zarr", "--out", "{}"],
        ["backup", "d.zarr", "{}"],
        ["import", "a.extxyz", "{}"],
    ],
    ids=" ".join,
)
def test_places_to_write_to_that_cannot_be(folder, monkeypatch, command):
    monkeypatch.chdir(folder)
    done = cli(*(word.replace("{}", "a.extxyz/x") for word in command), code=None)
    assert done.exit_code in (2, 3), done.stderr
    assert "error: " in done.stderr


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (["label", "d.zarr", "-t", "gfn2-xtb", "-O", "acuracy=1"], 2, "did you mean 'accuracy'"),
        (["label", "d.zarr", "-t", "gfn2-xtb", "-O", "accuracy"], 2, "expected NAME=VALUE"),
        (["label", "d.zarr", "-t", "gfn2-xtb", "-O", "accuracy=1", "-O", "accuracy=2"], 2, "got several"),
        (["label", "d.zarr", "-t", "gfn2-xtd"], 2, "did you mean 'gfn2-xtb'"),
        (["label", "d.zarr", "-t", "orb-v2", "-O", "foo=1"], 2, "foo"),
        (["teachers", "check", "emt", "-O", "a=1"], 2, "it has no options"),
        (["validate", "d.zarr", "--teacher", "emt", "-O", "a=1"], 2, "it has no options"),
        (["validate", "d.zarr", "--teacher", "gfn2-xtb"], 2, "gfn2-xtb=RECORDED"),
        (["validate", "d.zarr", "--teacher", "emt=dft"], 2, "'dft'"),
        (["validate", "d.zarr", "-O", "a=1"], 2, "--teacher NAME"),
        (["validate", "d.zarr", "--tag", "x"], 2, "--tag"),
        (["validate", "d.zarr", "--version", "99"], 2, "expected 0 to"),
        (["validate", "d.zarr", "--version", "9" * 30], 2, "expected 0 to"),
        (["stats", "d.zarr", "-t", "emd"], 2, "did you mean 'emt'"),
        (["export", "d.zarr", "-f", "extxy"], 2, "did you mean 'extxyz'"),
        (["export", "d.zarr", "--release", "1"], 2, "--release: expected a semantic version"),
        (["export", "d.zarr", "--counts", "1,2"], 2, "three numbers"),
        (["export", "d.zarr", "--counts", "999,1,1"], 2, "--counts: expected 999 samples"),
        (["export", "d.zarr", "--codec", "zip"], 2, "--codec: expected gzip"),
        (["export", "d.zarr", "--round", "energy=1"], 2, "--round: expected 'forces' or 'stress'"),
        (["export", "d.zarr", "--round", "forces"], 2, "forces=1e-4"),
        (["export", "d.zarr", "-t", "emd"], 2, "did you mean 'emt'"),
        (["import", "a.extxyz", "n.zarr", "--units", "energy=foo"], 2, "foo"),
        (["import", "a.extxyz", "n.zarr", "--units", "energy"], 2, "expected NAME=VALUE"),
        (["import", "a.extxyz", "n.zarr", "--root", "x"], 2, "--root"),
        (["import", "a.extxyz", "n.zarr", "--format", "nope"], None, "nope"),
        (["import", "a.extxyz", "d.zarr", "--precision", "float64"], 2, "expected float32"),
        (["import", "a.extxyz"], 2, "then the STORE"),
        (["gc", "d.zarr", "--grace", "soon"], 2, "36h"),
        (["gc", "d.zarr", "--grace", "1s", "--delete"], 2, "--grace"),
        (["gc", "d.zarr", "--expire-before", "99"], 2, "--expire-before"),
        (["tag", "d.zarr", "12"], 2, "just a number"),
        (["tag", "d.zarr", "x", "--version", "99"], 2, "--version: expected 0 to"),
        (["run", "r.yaml", "--workers", "2", "--scheduler", "x"], 2, "got several"),
        (["run", "r.yaml", "--scheduler-file", "x"], 3, "cannot be read"),
        (["cache", "--teacher", "emt"], 2, "--build"),
        (["cache", "--build", "d.zarr", "--teacher", "emd"], None, "emd"),
    ],
)
def test_options(folder, monkeypatch, command, code, words):
    monkeypatch.chdir(folder)
    done = cli(*command, code=code)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.exit_code in (2, 3)


def test_a_scheduler_that_does_not_answer(folder, monkeypatch, tmp_path):
    pytest.importorskip("distributed")
    monkeypatch.setattr("mlffstore.cli.run._CONNECT_SECONDS", 0.3)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"name: x\nstore: {tmp_path}/d.zarr\nparts:\n  - {{name: a, generator: crystals, teacher: emt, samples: 1}}\n"
    )
    for address in ("tcp://127.0.0.1:9", "nonsense://x", "::::"):
        done = cli("run", recipe, "--scheduler", address, code=3)
        assert "no Dask scheduler answers there" in done.stderr
    (tmp_path / "s.json").write_text("{")
    assert "no Dask scheduler" in cli("run", recipe, "--scheduler-file", tmp_path / "s.json", code=3).stderr
    assert "no such file" in cli("run", recipe, "--scheduler-file", tmp_path / "absent.json", code=3).stderr


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ml.errors.StoreError("damaged"), 3, "error: damaged"),
        (ml.errors.GateError("fails"), 1, "error: fails"),
        (OSError(28, "No space left on device", "/d/x"), 3, "/d/x: No space left on device"),
        (BrokenProcessPool("gone"), 3, "fewer --workers"),
        (MemoryError(), 3, "not enough memory"),
        (ZeroDivisionError("x"), 4, "unexpected error: ZeroDivisionError: x; this is a bug"),
        (KeyboardInterrupt(), 130, "nothing was changed"),
        (EOFError("cut off"), 3, "got the end of a file (cut off)"),
    ],
)
def test_exit_codes_of_errors(monkeypatch, error, code, words):
    def fail(url, *args, **options):
        raise error

    monkeypatch.setattr(info.ml, "open", fail)
    done = cli("info", "d.zarr", code=code)
    assert words in done.stderr
    assert ("Traceback" in done.stderr) == (code == 4)


@pytest.mark.parametrize("verb", ["run", "label", "export", "import", "compact", "backup", "gc"])
def test_ctrl_c_says_what_is_safe(folder, monkeypatch, verb):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.chdir(folder)
    monkeypatch.setattr(ml, "open", interrupt, raising=False)
    monkeypatch.setattr("mlffstore.pipeline.recipe.load_recipe", interrupt)
    arguments = {
        "run": ["r.yaml"],
        "label": ["d.zarr", "-t", "emt"],
        "import": ["a.extxyz", "n.zarr"],
        "backup": ["d.zarr", "b"],
    }
    done = cli(verb, *arguments.get(verb, ["d.zarr"]), code=130)
    assert done.stderr.strip().startswith("interrupted: ")
    assert "the same command again" in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_store_without_permission(folder):
    (folder / "d.zarr").chmod(0)
    try:
        assert "ermission" in cli("info", folder / "d.zarr", code=3).stderr
    finally:
        (folder / "d.zarr").chmod(0o755)


@pytest.mark.parametrize("verb", [["export"], ["export", "--format", "extxyz"], ["stats"]], ids=" ".join)
def test_a_teacher_of_a_store_without_labels(tmp_path, verb):
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(3), teacher="emt")
    store.remove(range(3), reason="another functional", teacher="emt")
    out = [] if verb == ["stats"] else ["--out", str(tmp_path / "out")]
    done = cli(verb[0], str(store.url), *verb[1:], *out, "--teacher", "emt", code=3)
    assert "there are no labels here; label the samples first (mlffstore label)" in " ".join(done.stderr.split())
    assert "expected one of" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_library_says_that_there_are_no_labels(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(3), teacher="emt")
    store.remove(range(3), reason="another functional", teacher="emt")
    for use in (
        lambda: ml.get_exporter("extxyz")(store.snapshot(), tmp_path / "out", teacher="emt"),
        lambda: ml.export_release(store.snapshot(), tmp_path / "out", name="m", teacher="emt"),
    ):
        with pytest.raises(
            ml.errors.TeacherError, match=r"no labels here, of 'emt' or of another teacher: label the sam"
        ):
            use()
    with pytest.raises(ml.errors.TeacherError, match="there are no labels to remove, got 'emt'"):
        store.remove([0], reason="again", teacher="emt")
