"""``ase:package.module:Factory``: any ASE calculator as a teacher, in worker processes."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
from ase.build import bulk

import mlffstore as ml
from mlffstore.contracts.protocols import Teacher
from mlffstore.errors import TeacherError

CRASHING = "ase:tests.teachers.crashing:Crashing"


def batch(*symbols: str) -> ml.SampleBatch:
    frames = [bulk(symbol, cubic=True) for symbol in symbols]
    for i, frame in enumerate(frames):
        frame.rattle(0.05, seed=i)
    return ml.SampleBatch.from_ase(frames)


def test_its_labels_are_those_of_the_calculator_in_any_number_of_processes():
    samples = batch("Cu", "Al", "Ni", "Cu")
    expected = ml.get_teacher("emt").label(samples)
    for processes in (1, 2):
        teacher = ml.get_teacher("ase:ase.calculators.emt:EMT", processes=processes, asap_cutoff=False)
        assert isinstance(teacher, Teacher)
        found = pickle.loads(pickle.dumps(teacher)).label(samples)
        assert np.array_equal(found.energy, expected.energy)
        assert np.array_equal(found.forces, expected.forces)
        assert np.array_equal(found.stress, expected.stress)
    assert teacher.info.name == "emt"
    assert teacher.info.properties == ("energy", "forces", "stress")
    assert teacher.info.fingerprint == 'ase.calculators.emt:EMT(**{"asap_cutoff": false})'
    assert "ase" in teacher.info.software


def test_a_calculator_that_ends_its_process_loses_that_sample_only():
    teacher = ml.get_teacher(CRASHING, processes=2, elements=["Cu", "Al", "Ag", "Au"])
    labels = teacher.label(batch("Cu", "Au", "Al", "Ag", "Cu", "Ni", "Cu"))
    assert labels.ok.tolist() == [True, False, True, False, True, False, True]
    assert labels.reasons[1] == "crashing failed: the calculator ended its process"
    assert labels.reasons[3] == "crashing failed: ValueError: no silver"
    assert labels.reasons[5] == "crashing does not know Ni"
    assert teacher.label(batch("Cu")).ok.all()  # and goes on


def test_the_contents_of_a_file_are_part_of_the_fingerprint(tmp_path):
    """A model that was trained again under the same file name is another model."""
    from mlffstore_teachers.factory import _digests

    path = tmp_path / "model.pt"
    path.write_bytes(b"one")
    one = _digests({"model_path": str(path), "device": "cpu"})
    path.write_bytes(b"two")
    assert len(one) == 1
    assert one != _digests({"model_path": str(path), "device": "cpu"})


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("ase", {}, "expected a path such as ase:ase.calculators.emt:EMT, got nothing"),
        ("ase:EMT", {}, "expected a path such as ase:ase.calculators.emt:EMT, got 'EMT'"),
        ("ase:no.such:Thing", {}, "cannot import no.such:Thing"),
        ("ase:ase.calculators.emt:Nothing", {}, "cannot import ase.calculators.emt:Nothing"),
        ("ase:tests.teachers.crashing:not_a_calculator", {}, "to return an ASE calculator, got int"),
        ("ase:tests.teachers.crashing:not_a_calculator", {"x": 1}, "failed: TypeError"),
        ("ase:ase.calculators.emt:EMT", {"processes": 0}, "processes of at least 1, got 0"),
        ("ase:ase.calculators.emt:EMT", {"elements": ["Cx"]}, "expected symbols or atomic numbers, got 'Cx'"),
        ("ase:ase.calculators.emt:EMT", {"domains": ["crystal"]}, "unknown domains or properties crystal"),
        ("ase:ase.calculators.emt:EMT", {"x": object()}, "must be JSON types"),
        (
            "ase:ase.calculators.tip3p:TIP3P",
            {"properties": ["energy", "forces", "stress"]},
            "does not implement stress",
        ),
    ],
)
def test_what_is_wrong_is_said(path, options, message):
    with pytest.raises(TeacherError, match=message.replace("(", r"\(")):
        _ = ml.get_teacher(path, **options).info


def test_command_line_labels_with_it(tmp_path):
    from tests.command import cli

    store = ml.create(tmp_path / "d.zarr")
    store.append(batch("Cu", "Al").structures(), require=())
    done = cli("label", str(tmp_path / "d.zarr"), "--teacher", "ase:ase.calculators.emt:EMT", "-O", "name=mine")
    assert "2 samples by mine" in done.stdout
    assert ml.open(tmp_path / "d.zarr").snapshot().teachers == ("mine",)


def test_balanced_groups_hold_every_sample_once_within_the_budget():
    from mlffstore_teachers.groups import balanced_groups

    n_atoms = np.random.default_rng(0).integers(1, 60, 500)
    n_atoms[7] = 900
    found = balanced_groups(range(500), n_atoms, 256, most=40)
    assert sorted(i for group in found for i in group) == list(range(500))
    assert [7] in found
    assert all(len(group) <= 40 and n_atoms[group].sum() <= 256 for group in found if group != [7])
    sums = np.array([n_atoms[group].sum() for group in found if group != [7]])
    assert np.median(sums) > 0.9 * 256


def test_a_script_without_a_guard_is_told_to_have_one(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import mlffstore as ml\nml.get_teacher('ase:ase.calculators.emt:EMT').info\n")
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode
    assert 'if __name__ == "__main__"' in result.stderr.splitlines()[-1]
    script.write_text(script.read_text().replace("ml.get", 'if __name__ == "__main__":\n    ml.get'))
    subprocess.run([sys.executable, script], check=True, timeout=120)


def test_a_width_that_differs_between_processes_loses_those_samples_only():
    from mlffstore.contracts.protocols import TeacherLabels
    from mlffstore_teachers.factory import _Answer

    samples = batch("Cu", "Al")
    answer = _Answer(samples, False, ["", ""])
    for i, width in enumerate((3, 2)):
        labels = TeacherLabels(
            np.ones(1), np.ones((4, 3)), None, np.ones(1, bool), ("",), {"embedding": np.ones((4, width))}
        )
        answer.put([i], labels)
    labels = answer.labels()
    assert labels.ok.tolist() == [True, False]
    assert labels.reasons == ("", "the calculator gave embedding of shape (2,), and (3,) before")
    assert np.isnan(labels.energy).tolist() == [False, True]


RECIPE = """
name: grandchildren
store: d.zarr
parts:
  - name: metals
    generator: rattle
    options: {seeds: {name: crystals, elements: [Cu, Al, Ni], elemental: 1.0}}
    teacher: ase:ase.calculators.emt:EMT
    samples: 2
"""


def test_a_run_whose_workers_have_processes_of_their_own_ends(tmp_path):
    """A worker of the run waits for its children when it ends, and they waited for more work."""
    pytest.importorskip("pymatgen")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    command = [sys.executable, "-m", "mlffstore", "run", "recipe.yaml", "--workers", "1", "--no-recheck"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=200)
    assert len(ml.open(tmp_path / "d.zarr")) == 2
