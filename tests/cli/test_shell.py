"""The command line as a shell calls it: entry points, light imports, pipes, completion, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

import mlffstore as ml
from tests.command import cli, shell
from tests.samples import metal_frames

HEAVY = ("torch", "jax", "rdkit", "pymatgen", "matplotlib", "distributed", "dask", "xarray", "scipy", "pandas", "h5py")


@pytest.mark.parametrize("arguments", [["--version"], ["-h"], ["label", "--help"], ["info", "d.zarr"]], ids=" ".join)
def test_trivial_verbs_import_little(tmp_path, arguments):
    ml.create(tmp_path / "d.zarr").append(metal_frames(2), teacher="emt")
    heavy = HEAVY if arguments[0] == "info" else (*HEAVY, "numpy", "ase", "rich")
    code = (
        "import sys; sys.argv[1:] = sys.argv[1].split()\n"
        "from mlffstore.cli.main import main\n"
        "try: main()\n"
        "finally: print([name for name in " + repr(heavy) + " if name in sys.modules], file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, " ".join(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stderr.strip() == "[]"


def test_a_reader_that_goes_leaves_no_traceback(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    for i in range(40):
        store.append(metal_frames(1, seed=i), teacher="emt", key="k" * 900 + str(i))
    command = f"{sys.executable} -m mlffstore log {store.url} --all | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("version")
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


@pytest.mark.parametrize("verb", ["validate", "validate --json", "info"])
def test_a_reader_that_goes_does_not_change_the_exit_code(tmp_path, verb):
    store = ml.create(tmp_path / "d.zarr")
    store.append(  # a bond of 0.1 angstrom
        ml.SampleBatch(n_atoms=[2] * 9, numbers=[1] * 18, positions=[[0, 0, 0.1 * (i % 2)] for i in range(18)]),
        require=(),
    )
    command = f"{sys.executable} -m mlffstore {verb} {store.url}"
    alone = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert alone.returncode == (0 if verb == "info" else 1)
    # The reader has gone before anything is written.
    gone = f'{{ sleep 0.2; {command}; echo "code $?" >&2; }} | true'
    done = subprocess.run(gone, shell=True, capture_output=True, text=True, check=False)
    assert f"code {alone.returncode}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_no_bug(tmp_path, closed):
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(2), teacher="emt")
    for verb, code in ((f"info {store.url}", 0), (f"log {store.url}", 0), (f"info {tmp_path}/none", 3)):
        command = f"{sys.executable} -m mlffstore {verb} {closed}"
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert "unexpected" not in done.stderr


def test_entry_points_and_exit_codes(tmp_path):
    assert shell("--version").stdout.startswith("mlffstore ")
    assert shell("-h").stdout == shell("--help").stdout
    assert "Usage" in cli("label", "-h").stdout
    bare = shell(code=2)
    assert bare.stderr.count("Usage:") == 1
    assert "error" not in bare.stderr
    assert shell("info", tmp_path, code=3).stderr.startswith("error: ")
    assert "did you mean" in shell("inof", code=2).stderr.lower()
    assert "expected debug" in shell("-h", code=2, env=os.environ | {"MLFFSTORE_LOG": "loud"}).stderr


def test_completion(tmp_path):
    environment = os.environ | {
        "_MLFFSTORE_COMPLETE": "complete_bash",
        "COMP_WORDS": "mlffstore val",
        "COMP_CWORD": "1",
    }
    code = "import sys; sys.argv = ['mlffstore']; from mlffstore.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.split() == ["validate"]


@pytest.mark.parametrize(
    ("number", "to_all", "code", "word"),
    [(signal.SIGINT, True, 130, "interrupted"), (signal.SIGTERM, False, 143, "terminated")],
    ids=["ctrl-c", "kill"],
)
def test_a_run_that_is_stopped(tmp_path, number, to_all, code, word):
    """A terminal interrupts all processes of a command; `kill`, batch systems and containers end the first one."""
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "name: x\nstore: d.zarr\nparts:\n"
        "  - {name: a, generator: crystals, teacher: emt, samples: 100000, samples_per_task: 8,\n"
        "     options: {elements: [Cu, Al, Ni], elemental: 1.0}}\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "mlffstore", "run", "r.yaml", "-w", "2"], cwd=tmp_path, stderr=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, start_new_session=True,
        # A shell that starts the tests in the background has them ignore interrupts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        while process.poll() is None and not (tmp_path / "d.zarr" / "_log" / f"{2:020d}.json").exists():
            time.sleep(0.1)
        assert process.poll() is None, process.communicate()
        (os.killpg if to_all else os.kill)(process.pid, number)
        _, text = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == code
    assert text.strip().splitlines()[-1] == (
        f"{word}: what was committed is safe; run the same command again to go on from there"
    )  # the last line: no worker, nor multiprocessing, has anything to add
    assert "Traceback" not in text
    assert len(ml.open(tmp_path / "d.zarr")) > 0
