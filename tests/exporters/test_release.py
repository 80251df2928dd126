"""Releases: what is in the folder, what its card promises, what is refused, what verify finds."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

import mlffstore as ml
from mlffstore.errors import DataError, GateError, MissingDependencyError, ReleaseError
from mlffstore.release import Release
from mlffstore.release.changes import changes
from tests.samples import metal_frames, molecule_frames


@pytest.fixture
def copy(published, tmp_path):
    return Path(shutil.copytree(published, tmp_path / published.name))


def problems(folder):
    return [f"{problem.path}: {problem.text}" for problem in ml.verify_release(folder).problems]


def test_the_folder_holds_what_its_manifest_says(store, published):
    manifest = json.loads((published / "MANIFEST.json").read_text())
    snap = store.snapshot()
    assert set(manifest["files"]) == {
        "metals-1.0.0.h5", "README.md", "statistics.yaml", "validation.json", "croissant.json", "CITATION.cff"
    }  # fmt: skip
    assert manifest["store"] == {"uuid": snap.store_uuid, "version": 1, "committed": snap.committed()}
    for split in ("train", "val", "test"):
        index = snap.split_indices(split, "emt")
        atoms = int(snap.read(index, columns=["n_atoms"]).n_atoms.sum())
        assert manifest["splits"][split] == {"samples": len(index), "atoms": atoms}
    assert manifest["validation"] == {"ok": True, "allow_failing": False, "invalid": 0, "failed": []}
    assert problems(published) == []
    assert problems(published / "metals-1.0.0.h5") == []


def test_every_code_block_of_the_card_runs(published):
    text = (published / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 4
    # With h5py and NumPy alone the first must do; the rest follow on it in one program, as a reader would paste them.
    bare = "import sys\nfor name in ('mlffstore', 'ase', 'torch', 'xarray'): sys.modules[name] = None\n" + blocks[0]
    for code in (bare, "\n".join(blocks)):
        done = subprocess.run([sys.executable, "-c", code], cwd=published, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "Atoms(" in done.stdout
    assert "torch.Size" in done.stdout


def test_card_and_citation_are_well_formed(published):
    text = (published / "README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert front["size_categories"] == ["n<1K"]
    for title in ("How to load it", "Columns, units and signs", "Teachers", "Filters", "Splits", "Known limits"):
        assert f"## {title}\n" in text
    citation = yaml.safe_load((published / "CITATION.cff").read_text())
    assert (citation["cff-version"], citation["type"], citation["version"]) == ("1.2.0", "dataset", "1.0.0")
    croissant = json.loads((published / "croissant.json").read_text())
    manifest = json.loads((published / "MANIFEST.json").read_text())
    assert croissant["distribution"][0]["sha256"] == manifest["files"]["metals-1.0.0.h5"]["sha256"]


def test_statistics_of_the_release_normalise_its_training_set(published):
    from mlffstore.training.transforms import from_statistics

    data = ml.TorchDataset(published, split="train", transform=from_statistics(published / "statistics.yaml"))
    batch = data.batch(range(len(data)))
    # The fit leaves no mean, and scaled forces have a root mean square of 1: float32 sums of 1e3 numbers.
    assert abs(float((batch["energy"] / batch["n_atoms"]).mean())) < 1e-6
    assert float(batch["forces"].square().mean().sqrt()) == pytest.approx(1, abs=1e-4)


def test_the_whole_folder_is_reproducible(store, published, tmp_path):
    again = ml.export_release(store.snapshot(), tmp_path, name="metals", teacher="emt").parent
    for path in published.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_published_version_is_never_overwritten(store, published):
    before = {path.name: path.stat().st_mtime_ns for path in published.iterdir()}
    with pytest.raises(ReleaseError, match="never overwritten"):
        ml.export_release(store.snapshot(), published.parent, name="metals", teacher="emt")
    assert {path.name: path.stat().st_mtime_ns for path in published.iterdir()} == before


def test_the_gate(store, tmp_path):
    policy = {"acceptance": {"samples": {"min": 1000}}}
    with pytest.raises(GateError, match=r"FAIL +samples +at least 1000 +60"):
        ml.export_release(store.snapshot(), tmp_path, name="m", policy=policy)
    assert list(tmp_path.iterdir()) == []
    path = ml.export_release(store.snapshot(), tmp_path, name="m", policy=policy, allow_failing=True)
    manifest = json.loads((path.parent / "MANIFEST.json").read_text())
    assert manifest["validation"]["allow_failing"]
    assert manifest["validation"]["failed"] == ["samples"]
    assert "does NOT pass" in (path.parent / "README.md").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"version": "1.0"}, "semantic version"),
        ({"name": "a/b"}, "letters, digits"),
        ({"counts": {"dev": 3}}, "train, val, test"),
        ({"counts": {"train": 1000}}, "expected 1,000 samples of train"),
        ({"shard_nbytes": 10}, "at least 1,048,576"),
        ({"codec": "lzma"}, "gzip, zstd, blosc or lz4"),
        ({"compression_level": 0}, "1 to 9"),
        ({"rounding": {"positions": 1e-3}}, "kept exactly"),
        ({"rounding": {"forces": -1.0}}, "expected a step"),
        ({"since": "nowhere"}, "there is no such file"),
    ],
)
def test_bad_options_change_nothing(store, tmp_path, options, words):
    with pytest.raises((ReleaseError, DataError, ml.errors.StoreNotFoundError), match=words):
        ml.export_release(store.snapshot(), tmp_path, **({"name": "m"} | options))
    assert list(tmp_path.rglob("*")) == []


def test_exact_counts_by_root(tmp_path):
    store = ml.create(tmp_path / "d.zarr", splits={"train": 0.5, "val": 0.25, "test": 0.25})
    root = np.repeat(np.arange(20, dtype=np.uint64) + 1, 4)
    store.append(ml.SampleBatch.from_ase(metal_frames(80), teacher="emt").with_columns(root=root))
    counts = {"train": 10, "val": 6, "test": 5}
    path = ml.export_release(store.snapshot(), tmp_path, name="m", counts=counts)
    release = Release(path)
    assert release.counts == counts
    roots = {split: release.column(split, "root") for split in counts}
    assert len(np.unique(roots["train"])) == 3  # 4 + 4 + 2: whole roots but for the last one
    assert sorted(np.unique(roots["train"], return_counts=True)[1].tolist()) == [2, 4, 4]
    assert problems(path.parent) == []
    # What a small release has, a larger one of the same store has in the same split.
    larger = Release(
        ml.export_release(store.snapshot(), tmp_path, name="m", version="1.1.0", counts={**counts, "train": 16})
    )
    assert np.isin(release.column("train", "content_hash"), larger.column("train", "content_hash")).all()


def test_heads(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(20), teacher="emt")
    store.append(molecule_frames(12), teacher="toy")
    path = ml.export_release(store.snapshot(), tmp_path, name="m", teacher=["emt", "toy"], allow_failing=True)
    with h5py.File(path) as file:
        energy = {who: np.concatenate([file[s][f"energy.{who}"][:] for s in file]) for who in ("emt", "toy")}
        assert "energy" not in file["train"]
    assert {who: int(np.isfinite(e).sum()) for who, e in energy.items()} == {"emt": 20, "toy": 12}
    assert not (np.isfinite(energy["emt"]) & np.isfinite(energy["toy"])).any()
    with pytest.raises(ml.errors.TeacherError, match="emt, toy"):
        ml.TorchDataset(path)
    for who in energy:
        ours = ml.TorchDataset(store, split="train", teacher=who)
        theirs = ml.TorchDataset(path, split="train", teacher=who)
        assert np.array_equal(ours.batch(range(len(ours)))["energy"], theirs.batch(range(len(theirs)))["energy"])
    assert problems(path.parent) == []


def test_shards_are_one_release(store, published, tmp_path, monkeypatch):
    from mlffstore_exporters import release

    monkeypatch.setattr(release, "_SHARD_NBYTES", 1)  # a store of a few kB does not fill two of the smallest size
    third = store.snapshot().summary()["nbytes_raw"] // 3 + 1
    folder = ml.export_release(store.snapshot(), tmp_path, name="metals", shard_nbytes=third)
    assert [path.name for path in sorted(folder.glob("*.h5"))] == [
        f"metals-1.0.0-0000{k}-of-00003.h5" for k in (1, 2, 3)
    ]
    assert problems(folder) == []
    whole, sharded = Release(published), Release(folder)
    for split in whole.counts:
        a, b = whole.read(split), sharded.read(split)
        assert np.array_equal(a.positions, b.positions)
        assert a.source == b.source
        assert np.array_equal(a.energy, b.energy)
    a, b = ml.TorchDataset(published, split="train"), ml.TorchDataset(folder, split="train")
    assert np.array_equal(a.batch([5, 0])["forces"], b.batch([5, 0])["forces"])


@pytest.mark.parametrize("codec", ["zstd", "blosc", "lz4"])
def test_other_codecs(store, published, tmp_path, codec):
    pytest.importorskip("hdf5plugin")
    folder = ml.export_release(store.snapshot(), tmp_path, name="m", codec=codec).parent
    assert problems(folder) == []
    assert np.array_equal(Release(folder).read("train").forces, Release(published).read("train").forces)


def test_a_codec_without_its_package_says_what_to_install(store, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'mlffstore\[hdf5plugin\]'"):
        ml.export_release(store.snapshot(), tmp_path, name="m", codec="zstd")


def test_rounding_is_bounded_and_recorded(store, published, tmp_path):
    path = ml.export_release(store.snapshot(), tmp_path, name="m", rounding={"forces": 1e-3})
    with h5py.File(path) as file:
        step = file["train/forces"].attrs["rounding_step"]
        assert "rounding_step" not in file["train/energy"].attrs
    assert step == 2.0**-10
    exact, rounded = Release(published).read("train"), Release(path).read("train")
    error = np.abs(exact.forces - rounded.forces).max()
    assert 0 < error <= step / 2
    assert np.array_equal(exact.positions, rounded.positions)
    assert problems(path.parent) == []
    assert path.stat().st_size < (published / "metals-1.0.0.h5").stat().st_size


def test_what_changed(store, tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    frames = metal_frames(40)
    store.append(frames[:30], teacher="emt")
    first = ml.export_release(store.snapshot(), tmp_path, name="m")
    store.append(frames[30:], teacher="emt")
    second = ml.export_release(store.snapshot(), tmp_path, name="m", version="1.1.0", since=first)
    manifest = json.loads((second.parent / "MANIFEST.json").read_text())
    assert sum(manifest["since"]["added"].values()) == 10
    assert manifest["since"]["bump"] == "minor"
    assert "## What changed" in (second.parent / "README.md").read_text()
    back = changes(Release(second), Release(first))
    assert (sum(back.removed.values()), back.bump) == (10, "major")
    other = ml.create(tmp_path / "e.zarr")
    for frame in frames[:30]:
        frame.calc.results["forces"] = frame.calc.results["forces"] + 0.01
    other.append(frames[:30], teacher="emt")
    third = ml.export_release(other.snapshot(), tmp_path, name="n", allow_failing=True)
    assert changes(Release(first), Release(third)).relabelled == 30


# -- verify -----------------------------------------------------------------------------------------------------------


def test_verify_finds_a_flipped_bit(copy):
    path = copy / "metals-1.0.0.h5"
    data = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        chunk = file["train/forces"].id.get_chunk_info(0)
    data[chunk.byte_offset + chunk.size // 2] ^= 1
    path.write_bytes(data)
    found = problems(copy)
    assert any("SHA-256" in line for line in found)
    assert any("train/forces: a chunk is damaged" in line for line in found)
    with pytest.raises((OSError, ml.errors.MlffstoreError)):
        ml.TorchDataset(path, cache="memory").batch([0])


def edit(copy, change):
    """Change the file as somebody with h5py would."""
    with h5py.File(copy / "metals-1.0.0.h5", "r+") as file:
        change(file)


def test_verify_finds_what_h5py_changed(copy):
    def change(file):
        file["train/forces"][0] = 3.0
        file["val/energy"].attrs["units"] = "Ha"
        del file["test/cell"]

    edit(copy, change)
    found = "\n".join(problems(copy))
    assert "train/forces: its values are not those that were exported" in found
    assert "val/energy: expected the unit 'eV', got 'Ha'" in found
    assert "test/cell is missing" in found


def test_verify_finds_another_structure_under_an_old_hash(copy):
    def change(file):
        file["train/positions"][0] += 0.5
        for dataset in file["train"].values():
            dataset.attrs.pop("content_sha256", None)

    edit(copy, change)
    assert any("1 structures do not have their content_hash" in line for line in problems(copy))


def test_verify_finds_leakage(copy):
    def change(file):
        file["val/root"][0] = file["train/root"][0]
        for dataset in file["val"].values():
            dataset.attrs.pop("content_sha256", None)

    edit(copy, change)
    found = "\n".join(problems(copy / "metals-1.0.0.h5"))
    assert "leakage: 1 roots are in train and in val" in found
    assert "1 samples are in the split val, their root belongs into another" in found


def test_verify_finds_files_and_figures_that_do_not_fit(copy):
    (copy / "README.md").unlink()
    (copy / "extra.txt").write_text("?")
    text = (copy / "statistics.yaml").read_text()
    document = yaml.safe_load(text)
    document["teachers"]["emt"]["force_component_eV_per_angstrom"]["std"] *= 1.001
    document["elements"]["Cu"]["atoms"] += 1
    (copy / "statistics.yaml").write_text(yaml.safe_dump(document))
    manifest = json.loads((copy / "MANIFEST.json").read_text())
    manifest["splits"]["val"]["samples"] += 1
    (copy / "MANIFEST.json").write_text(json.dumps(manifest))
    found = "\n".join(problems(copy))
    for words in (
        "README.md: is missing",
        "extra.txt: is not in the manifest",
        "emt: std of forces",
        "atoms of Cu",
        "val: the files hold",
    ):
        assert words in found


def test_a_manifest_cannot_lead_outside(copy):
    manifest = json.loads((copy / "MANIFEST.json").read_text())
    manifest["files"]["../outside.h5"] = {"bytes": 1, "sha256": ""}
    (copy / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(ml.errors.FormatError, match="files in the folder"):
        ml.verify_release(copy)


def test_an_edited_file_does_not_meet_an_old_cache(copy):
    before = ml.TorchDataset(copy, split="train").batch([0])["energy"]

    def change(file):
        file["train/energy"][0] += 1.0

    edit(copy, change)
    assert ml.TorchDataset(copy, split="train").batch([0])["energy"] == before + 1.0


def test_tasks_are_added_up_by_part():
    from mlffstore.release.provenance import by_part

    recipe = {"version": 0, "recipe": {"name": "r"}}
    tasks = [
        {"version": k + 1, "part": "ab"[k % 2], "task": k, "skipped": {"no bonds": 1}, "rejected": {"|F|": k},
         "accepted": 8, "calls": {"emt": 10}, "cpu_seconds": 0.5}
        for k in range(6)
    ]  # fmt: skip
    cost = {"tasks": 3, "accepted": 24, "calls": {"emt": 30}, "cpu_seconds": 1.5, "skipped": {"no bonds": 3}}
    assert by_part([recipe, *tasks]) == [
        recipe,
        {"part": "a", "rejected": {"|F|": 6}, **cost},
        {"part": "b", "rejected": {"|F|": 9}, **cost},
    ]
    odd = [{"part": "a", "task": 1, **more} for more in ({"rejected": ["a"]}, {"skipped": 3}, {"accepted": "8"})]
    assert by_part([*odd, {"part": "c"}]) == [*odd, {"part": "c"}]


def test_a_card_says_what_a_sample_cost(tmp_path):
    from mlffstore.pipeline.run import run
    from mlffstore.store.executors import InProcessExecutor
    from tests.pipeline.faults import recipe

    run(recipe(tmp_path, 0.0, samples=16), executor=InProcessExecutor())
    snap = ml.open(tmp_path / "d.zarr").snapshot()
    policy = {"acceptance": {"samples": {"min": 10}}}
    path = ml.export_release(snap, tmp_path / "out", name="m", policy=policy, recheck=False)
    text = (path.parent / "README.md").read_text()
    assert "| part | kept | teacher calls per kept sample | samples per core-hour |" in text
    assert re.search(r"\| metals \| 16 \| 1\.0 \| [\d,]+ \|", text)
    assert "| all parts | 16 | 1.0 |" in text


def test_a_card_speaks_of_the_labels_that_there_are(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    batch = ml.SampleBatch.from_ase(metal_frames(20), teacher="emt")
    bare = batch.structures().with_labels("energies", energy=batch.energy)
    store.append(bare, require=("energy",), teachers={"energies": {"licence": "none"}})
    policy = {"acceptance": {"samples": {"min": 20}}}
    path = ml.export_release(store.snapshot(), tmp_path / "out", name="m", policy=policy)
    text = (path.parent / "README.md").read_text()
    assert "labelled by `energies` with energies of 20 samples." in text
    assert "forces may or may not be the gradient of the energy: not recorded" in text
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    done = subprocess.run([sys.executable, "-c", code], cwd=path.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_card_of_forces_alone_names_no_element_as_lacking(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    batch = ml.SampleBatch.from_ase(metal_frames(20), teacher="emt")
    store.append(
        batch.structures().with_labels("f", forces=batch.forces),
        require=("forces",),
        teachers={"f": {"licence": "none"}},
    )
    path = ml.export_release(store.snapshot(), tmp_path / "out", name="m", allow_failing=True)
    text = (path.parent / "README.md").read_text()
    assert "The split train has no energy of `f`." in text
    assert "The split train has no sample" not in text
