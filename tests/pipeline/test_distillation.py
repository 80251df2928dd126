"""Students: their physics, what they are trained and tested on, and the verdict on a dataset."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import DataError
from tests.command import cli
from tests.samples import metal_frames

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def metals(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a store of copper and gold in many cells, rattled and scanned, labelled by EMT."""
    from ase.build import bulk

    rng = np.random.default_rng(0)
    frames = []
    for root in range(60):
        metal = str(rng.choice(["Cu", "Au"]))
        atoms = bulk(metal, cubic=True, a=(3.6 if metal == "Cu" else 4.1) * rng.uniform(0.94, 1.08)) * (1, 1, 2)
        for k in range(4):
            frame = atoms.copy()
            frame.positions += rng.normal(0, 0.12, frame.positions.shape)
            frame.info |= {"root": root, "sampler": "rattle" if k % 2 else "scan"}
            frames.append(frame)
    batch = ml.SampleBatch.from_ase(
        frames, source=["metals:bulk"] * len(frames), sampler=[frame.info["sampler"] for frame in frames]
    ).with_columns(root=np.array([frame.info["root"] for frame in frames], np.uint64) * np.uint64(10**9 + 7))
    url = str(tmp_path_factory.mktemp("metals") / "d.zarr")
    store = ml.create(url, splits={"train": 0.6, "val": 0.1, "test": 0.3})
    store.append(batch, require=())
    store.add_labels(ml.get_teacher("emt"))
    return url


def student(metals: str) -> tuple[Any, dict[str, Any]]:
    """Return a student with random weights and a batch, in double precision."""
    from mlffstore.pipeline.distillation.fitting import fit
    from mlffstore.pipeline.distillation.student import CUTOFF

    data = ml.TorchDataset(metals, "train", neighbours=CUTOFF, require=("energy", "forces"), dtype=torch.float64)
    model = fit(ml.TorchDataset(metals, "train", neighbours=CUTOFF), np.arange(8), steps=2, seed=0).double()
    return model, data.batch([0, 5, 9])


def test_forces_are_the_gradient_and_turn_with_the_structure(metals):
    from mlffstore.training.transforms import RandomRotation

    model, batch = student(metals)
    energy, forces = model(batch)
    step = 1e-4
    for atom, axis in ((0, 0), (11, 2)):
        sides = []
        for sign in (1, -1):
            moved = batch["positions"].clone()
            moved[atom, axis] += sign * step
            sides.append(float(model({**batch, "positions": moved})[0].sum().detach()))
        # Central differences in float64: the error is of order step^2 times the third derivative.
        assert (sides[1] - sides[0]) / (2 * step) == pytest.approx(float(forces[atom, axis]), abs=1e-6)
    turned = RandomRotation(torch.Generator().manual_seed(1))(batch | {"forces": forces.detach()})
    energy_turned, forces_turned = model(turned)
    torch.testing.assert_close(energy_turned, energy, atol=1e-9, rtol=0)
    torch.testing.assert_close(forces_turned, turned["forces"], atol=1e-9, rtol=0)


def test_shares_are_nested_whole_roots_and_held_out_roots_are_new(metals):
    from mlffstore.pipeline.distillation.subsets import labelled, nested

    train, test = labelled(metals, "train", None), labelled(metals, "test", None)
    small, half, whole = nested(train, (0.1, 0.5, 1.0), 0)
    assert set(small) < set(half) < set(whole) == set(range(len(train)))
    for some in (small, half):
        inside = np.isin(train.root, train.root[some])
        assert np.flatnonzero(inside).tolist() == sorted(some.tolist())
    assert not np.isin(test.root, train.root).any()
    gold = np.flatnonzero(train.elements[:, 79])
    known = test.known(np.arange(len(test)), train, gold)
    assert 0 < len(known) < len(test)
    assert test.elements[known, 79].all()
    assert len(train.known(np.arange(len(train)), train, whole)) == 0  # nothing is new
    snap = ml.open(metals).snapshot().read()
    sampler = dict(zip(snap.content_hash.tolist(), snap.sampler, strict=True))
    found = [sampler[h] for h in train.data.content_hash.tolist()]
    assert [name.split(", ")[1] for name in train.group] == found
    assert {found[i] for i in train.rattled} == {"rattle"}


def test_students_prove_a_dataset_and_refuse_labels_that_do_not_follow(metals, tmp_path):
    result = ml.distil_check(metals, shares=(0.1, 1.0), steps=80, seeds=1, batch_atoms=64, max_test=40)
    assert result.ok, result.problems
    small, large = result.shares
    assert large.force_mae[0] < small.force_mae[0]
    assert large.force_mae[0] < 0.5 * result.no_forces
    assert result.trained[-1].what == "rattled"
    assert result.trained[-1].samples == large.samples // 2
    assert (
        result.sizes["periodic"] == result.held_out == sum(n for name, n in result.sizes.items() if ", " in name) == 40
    )
    batch = ml.open(metals).snapshot().read()
    forces = np.random.default_rng(0).permutation(batch.forces)
    wrong = ml.create(str(tmp_path / "wrong.zarr"), splits={"train": 0.6, "val": 0.1, "test": 0.3})
    labels = {"energy": batch.energy, "forces": forces}
    wrong.append(batch.structures().with_labels("emt", **labels))
    assert not ml.distil_check(wrong, shares=(1.0,), steps=40, seeds=1, batch_atoms=64, max_test=40).ok


def test_seeds_decide(metals):
    first, second = (ml.distil_check(metals, shares=(0.1,), steps=4, seeds=2, max_test=20) for _ in range(2))
    assert first.shares[0].force_mae == pytest.approx(
        second.shares[0].force_mae, rel=1e-4
    )  # threads add up in any order
    assert len(set(first.shares[0].force_mae)) == 2


def test_new_dynamics_and_another_test_set(metals, tmp_path):
    other = ml.create(str(tmp_path / "other.zarr"), splits={"train": 0, "val": 0, "test": 1})
    other.append(metal_frames(8), require=())
    other.add_labels(ml.get_teacher("emt"))
    result = ml.distil_check(metals, shares=(1.0,), steps=5, seeds=1, trajectory=4, test=other)
    assert (result.held_out, result.unknown) == (2, 6)  # copper; aluminium, nickel and palladium were not learned
    assert result.trajectory == 4
    assert len(result.trained[0].trajectory_mae) == 1
    with pytest.raises(DataError, match="shares: expected numbers above 0"):
        ml.distil_check(metals, shares=(0.0,))


def test_the_command(metals, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "proof"
    done = cli("distil-check", metals, "--shares", "0.2,1", "--steps", "3", "--seeds", "1", "--out", out, code=None)
    assert done.exit_code in (0, 1)
    assert "forces, meV/angstrom" in done.stdout
    assert (out / "curve.png").stat().st_size > 10_000
    assert "expected numbers separated by commas" in cli("distil-check", metals, "--shares", "half", code=2).stderr


@pytest.mark.parametrize("steps", [*range(1, 13), 20, 100])
def test_students_learn_in_any_number_of_steps(steps):
    from mlffstore.pipeline.distillation.fitting import schedule_of

    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.Adam([weight])
    schedule = schedule_of(optimiser, steps)
    rates = []
    for _ in range(steps):
        optimiser.step()
        rates.append(optimiser.param_groups[0]["lr"])
        schedule.step()
    assert np.isfinite(rates).all()
    assert min(rates) >= 0


@pytest.mark.parametrize("device", ["foo", "cpu:x", "cuda:99"])
def test_a_device_that_is_not_there_is_wrong_usage(metals, device):
    done = cli("distil-check", metals, "--device", device, "--steps", 3, "--seeds", 1, code=2)
    assert "--device: expected one that torch can use here" in done.stderr
    assert repr(device) in done.stderr


def test_dynamics_is_by_the_teacher_that_labelled(tmp_path):
    from ase.build import molecule

    frames = []
    for k in range(30):
        atoms = molecule("H2O")
        atoms.rattle(0.05, seed=k)
        frames.append(atoms)
    store = ml.create(tmp_path / "d.zarr", splits={"train": 0.6, "val": 0.1, "test": 0.3})
    store.append(frames, require=())
    store.add_labels("gfn2-xtb")
    with pytest.raises(DataError, match="expected the teacher that labelled the samples"):
        ml.distil_check(
            store, trajectory=3, steps=2, seeds=1, shares=[1.0], teacher_options={"electronic_temperature": 9000.0}
        )


def test_a_trajectory_that_is_too_long_is_named(metals):
    with pytest.raises(
        DataError, match="trajectory: expected up to 320 frames, 40 from each of 8 test samples, got 500"
    ):
        ml.distil_check(metals, trajectory=500, steps=2, seeds=1, shares=[1.0])
