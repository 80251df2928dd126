"""What others do between two steps of ours: late answers, removals, compaction, columns, backups to the same place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import ConflictError, DataError, StorageError
from mlffstore.pipeline.account import account
from mlffstore.pipeline.recipe import Recipe
from mlffstore.pipeline.run import run
from mlffstore.storage import LocalStorage
from mlffstore.store.executors import InProcessExecutor
from mlffstore.store.transaction import Transaction
from tests.samples import metal_frames

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def helium(*numbers: float) -> ml.SampleBatch:
    x = np.array(numbers, float)
    return ml.SampleBatch(n_atoms=[1] * len(x), numbers=[2] * len(x), positions=np.repeat(x[:, None], 3, axis=1))


@pytest.fixture(params=["disk", "network"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "d.zarr") if request.param == "disk" else f"memory://{tmp_path.name}"


class Late:
    """A storage of which the first two claims get no answer; the first arrives just before the third."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.n, self.late = inner, 0, None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        if "_log" in path:
            self.n += 1
            if self.n <= 2:
                self.late = self.late or (path, data)
                raise StorageError("no answer")
            if self.late:
                self.inner.put_if_absent(*self.late)
                self.late = None
        return bool(self.inner.put_if_absent(path, data))


@pytest.mark.parametrize("key", [None, "k"])
def test_a_request_that_arrives_during_its_repetition_is_found(url: str, key: str | None) -> None:
    store = ml.create(url)
    store._storage = store._log.storage = Late(store._storage)
    tx = store.transaction(require=(), key=key)
    tx.add(helium(1))
    with pytest.raises(StorageError):
        tx.commit()
    assert tx.commit() == 1
    opened = ml.open(url)
    assert (opened.version, len(opened)) == (1, 1)
    assert opened.verify(full=True).ok


def test_a_correction_is_not_made_twice_either(url: str) -> None:
    store = ml.create(url)
    store.append(helium(1, 2, 3), require=())
    store._storage = store._log.storage = Late(store._storage)
    assert store.remove([0], reason="x") == 2  # it asks again by itself
    assert len(ml.open(url)) == 2
    assert ml.open(url).verify(full=True).ok


# -- duplicates --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["skip", "error"])
def test_a_structure_that_was_removed_is_new(url: str, policy: Any) -> None:
    store, other = ml.create(url), ml.open(url, "a")
    store.append(helium(1), require=())
    other.remove([0], reason="bad")
    assert store.append(helium(1), require=(), on_duplicate=policy) == 3
    assert len(store) == 1


def test_a_structure_that_is_removed_before_the_commit_is_missed(url: str) -> None:
    store, other = ml.create(url), ml.open(url, "a")
    store.append(helium(1), require=())
    with store.transaction(require=(), on_duplicate="skip") as tx:
        tx.add(helium(1))
        other.remove([0], reason="bad")
        with pytest.raises(ConflictError, match="removed these meanwhile"):
            tx.commit()
    assert len(ml.open(url)) == 0


def test_files_of_older_versions_are_not_asked_for(url: str) -> None:
    store, other = ml.create(url), ml.open(url, "a")
    for k in range(4):
        other.append(helium(k), require=())
    assert store.version == 4  # it has read the log so far
    other.compact()
    other.gc(dry_run=False, grace=0, expire_before=other.version)
    store.append(helium(3, 9), require=(), on_duplicate="skip")
    assert len(store) == 5


def test_a_writer_goes_on_after_a_duplicate(url: str) -> None:
    store = ml.create(url)
    store.append(helium(0, 1, 2), require=())
    writer = store.writer(2, require=(), on_duplicate="error")
    writer.add(helium(50))
    with pytest.raises(DataError, match=r"1 samples are there already.*1 samples were taken out.*1 wait"):
        writer.add(helium(2))
    writer.add(helium(51))
    with pytest.raises(DataError, match="taken out"):
        writer.add(helium(60, 60))  # twice in one call
    assert writer.flush() is not None
    assert sorted(store.snapshot().read().positions[:, 0].tolist()) == [0, 1, 2, 50, 51, 60]


def test_a_writer_goes_on_after_a_removal(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, real, once = ml.create(url), Transaction.add, list[int]()
    store.append(helium(1), require=())

    def slow(self: Any, *args: Any, **options: Any) -> None:
        real(self, *args, **options)
        if not once:
            once.append(ml.open(url, "a").remove([0], reason="x"))

    monkeypatch.setattr(Transaction, "add", slow)
    writer = store.writer(on_duplicate="skip", require=())
    writer.add(helium(1))
    with pytest.raises(ConflictError, match="removed these meanwhile"):
        writer.flush()
    writer.add(helium(2))
    assert writer.flush() is not None
    assert sorted(store.snapshot().read().positions[:, 0].tolist()) == [1, 2]


def test_a_teacher_that_another_process_takes_is_an_error(url: str) -> None:
    """Labels of two models under one name are a conflict that no second look resolves."""
    store = ml.create(url)
    frames = metal_frames(2)
    for frame in frames:
        frame.calc = None
    store.append(frames, require=())

    def take() -> None:
        other = metal_frames(1, seed=5)
        teachers = {"emt": {"fingerprint": "another"}}
        ml.open(url, "a").append(other, teacher="emt", teachers=teachers)

    with pytest.raises(ConflictError, match="the store holds labels of 'another'"):
        store.add_labels(Slow(take))


# -- labels ------------------------------------------------------------------------------------------------------


class Slow:
    """EMT that does something else first."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        self.emt, self.meanwhile = ml.get_teacher("emt"), meanwhile

    @property
    def info(self) -> Any:
        return self.emt.info

    def label(self, batch: ml.SampleBatch) -> Any:
        done, self.meanwhile = self.meanwhile, lambda: None
        done()
        return self.emt.label(batch)


def add_a_column(url: str) -> None:
    ml.open(url, "a").add_column("mine", np.arange(12.0))


def attach_to_one_of_each(url: str) -> None:
    store = ml.open(url, "a")
    batch = store.snapshot().read([0, 4, 8])
    store.attach_labels([0, 4, 8], batch.with_labels("emt", energy=[7.0] * 3))


def merge(url: str) -> None:
    ml.open(url, "a").compact()


@pytest.mark.parametrize("samples", [None, [0, 1, 5, 9]])
@pytest.mark.parametrize("meanwhile", [add_a_column, attach_to_one_of_each, merge])
def test_a_label_pass_labels_what_it_was_asked_for(
    url: str, meanwhile: Callable[[str], None], samples: list[int] | None
) -> None:
    store = ml.create(url)
    for seed in range(3):
        frames = metal_frames(4, seed=seed)
        for frame in frames:
            frame.calc = None
        store.append(frames, require=())
    report = store.add_labels(Slow(lambda: meanwhile(url)), samples=samples)
    energy = store.snapshot().read().label("energy", "emt")
    wanted = list(range(12)) if samples is None else samples
    assert np.isfinite(energy[wanted]).all()
    attached = {0, 4, 8} if meanwhile is attach_to_one_of_each else set()
    assert report.labelled == len(set(wanted) - {i for i in attached if energy[i] == 7.0}) or attached
    assert all(energy[i] == 7.0 for i in attached)  # nothing that is there is overwritten
    assert set(np.flatnonzero(np.isfinite(energy))) == set(wanted) | attached


# -- care --------------------------------------------------------------------------------------------------------


def test_two_backups_to_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ml.create(tmp_path / "s")
    for k in range(3):
        store.append(helium(k), require=())
    begun: list[int] = []
    for name in ("write", "put_if_absent"):
        real = getattr(LocalStorage, name)

        def late(self: Any, path: str, data: Any, real: Any = real) -> Any:
            if "segments" in path and not begun:
                begun.append(1)
                assert ml.open(tmp_path / "s", "a").backup(tmp_path / "copy").version == 3
                assert ml.verify(tmp_path / "copy", full=True).ok
            return real(self, path, data)

        monkeypatch.setattr(LocalStorage, name, late)
    store.backup(tmp_path / "copy")
    assert begun
    assert ml.verify(tmp_path / "copy", full=True).ok


def test_a_file_of_another_process_is_not_removed(tmp_path: Path) -> None:
    storage = LocalStorage(str(tmp_path))
    storage.write("segments/a", [b"theirs"])
    with pytest.raises(StorageError):
        storage.write("segments/a", [b"ours"])
    assert (tmp_path / "segments" / "a").read_bytes() == b"theirs"


def test_versions_that_another_process_gives_up_first(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, other = ml.create(url), ml.open(url, "a")
    for k in range(6):
        store.append(helium(k), require=())
    real = store._log.commit

    def commit(*args: Any, **options: Any) -> Any:
        other.gc(dry_run=False, expire_before=5)
        return real(*args, **options)

    monkeypatch.setattr(store._log, "commit", commit)
    assert store.gc(dry_run=False, expire_before=3).expired == 5


def test_a_run_passes_over_commits_of_others_under_its_name(tmp_path: Path) -> None:
    class Counting(InProcessExecutor):
        n = 0

        def submit(self, *args: Any, **options: Any) -> Any:
            self.n += 1
            assert self.n < 20, "the same task again and again"
            return super().submit(*args, **options)

    def recipe(samples: int) -> Recipe:
        options = {"elements": ["Cu", "Al", "Ni"], "elemental": 1.0, "max_atoms": 20}
        part = {"name": "m", "generator": "crystals", "options": options, "teacher": "emt", "samples": samples}
        return Recipe.model_validate(
            {"name": "r", "store": str(tmp_path / "d"), "parts": [part | {"samples_per_task": 4}]}
        )

    run(recipe(4), executor=Counting())
    store = ml.open(tmp_path / "d", "a")
    store.append([store.snapshot()[0]], key="run/r/extra")
    run(recipe(8), executor=Counting())
    assert (len(store), account(recipe(8)).parts[0].accepted) == (9, 8)
