"""FeNNol with the real ANI-1x weights."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.collections import g2

import mlffstore as ml
from mlffstore.contracts.conformance import check, failed
from mlffstore.contracts.probes import probe
from mlffstore.contracts.request import label_with
from mlffstore.errors import TeacherError

pytest.importorskip("fennol")
# jax warns of things in its own and flax's imports that say nothing to our users.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def weights(shared):
    return [shared / "models" / "ani1x" / f"ani1x_model{i}.fnx" for i in range(3)]


@pytest.fixture(scope="module")
def teacher(weights):
    return ml.get_teacher("fennol", weights=weights[0], name="ani1x", licence="MIT")


def mixed(n: int, seed: int = 0) -> ml.SampleBatch:
    rng = np.random.default_rng(seed)
    known = [frame for name in g2.names if set((frame := molecule(name)).numbers) <= {1, 6, 7, 8}]
    frames = []
    for _ in range(n):
        frame = known[rng.integers(len(known))].copy()
        frame.positions += rng.normal(0, 0.05, frame.positions.shape)
        frame.info = {}
        frames.append(frame)
    return ml.SampleBatch.from_ase(frames)


def test_reference_energies(teacher):
    """Energies of the model itself, given with the weights; float32 resolves 5e-4 eV of benzene's."""
    labels = teacher.label(ml.SampleBatch.from_ase([molecule("H2O"), molecule("C6H6")]))
    assert labels.energy == pytest.approx([-2078.6335, -6317.8979], abs=1e-3)
    assert teacher.info.elements == {1, 6, 7, 8}
    assert teacher.info.fingerprint.count("sha256:") == 1


def test_forces_and_energies_agree_with_the_packages_own_calculator(teacher, weights, thorough):
    from fennol.ase import FENNIXCalculator

    batch = mixed(4 if thorough else 2, seed=1)  # the calculator compiles for each of them, seconds each
    labels = teacher.label(batch)
    for i, frame in enumerate(batch.to_ase()):
        frame.calc = FENNIXCalculator(str(weights[0]), gpu_preprocessing=False)
        assert labels.energy[i] == pytest.approx(frame.get_potential_energy(), abs=2e-3)
        forces = labels.forces[batch.offsets[i] : batch.offsets[i + 1]]
        assert forces == pytest.approx(frame.get_forces(), abs=2e-3)


def test_it_keeps_the_contract(teacher):
    frames = [molecule("H2O"), molecule("CH3CONH2")]
    for frame in frames:
        frame.rattle(0.05, seed=3)
    assert failed(check(teacher, frames)) == []


def test_many_sizes_are_few_compilations(weights):
    teacher = ml.get_teacher("fennol", weights=weights[0])
    batch = mixed(600)
    first = teacher.label(batch)
    assert first.ok.all()
    assert teacher.n_compiled <= 8
    before = teacher.n_compiled
    assert np.array_equal(teacher.label(batch).energy, first.energy)
    assert teacher.n_compiled == before
    few = teacher.label(batch[:5])
    assert few.energy == pytest.approx(first.energy[:5], abs=1e-3)


def test_what_the_model_does_not_know_is_refused(teacher):
    frames = [molecule("H2O"), molecule("CH3SH"), bulk("C", cubic=True), molecule("NH3")]
    frames[3].info = {"charge": 1}
    labels = teacher.label(ml.SampleBatch.from_ase(frames))
    assert labels.ok.tolist() == [True, False, False, False]
    assert labels.reasons[1:] == (
        "ani1x does not know S",
        "ani1x: the sample is periodic",
        "ani1x knows no charge, the sample has +1 e",
    )
    assert np.isnan(labels.energy[1:]).all()


def test_a_fault_stays_alone(teacher, monkeypatch):
    batch = mixed(20)
    culprit = int(batch.content_hash[7])
    member = teacher._loaded()[0]
    call = type(member).call

    def fail(self, inputs, *, periodic):
        wanted = batch.positions[batch.offsets[7]] - batch.positions[batch.offsets[7] : batch.offsets[8]].mean(axis=0)
        if (np.abs(inputs["coordinates"] - wanted).sum(axis=1) < 1e-4).any():
            raise RuntimeError("model exploded")
        return call(self, inputs, periodic=periodic)

    monkeypatch.setattr(type(member), "call", fail)
    labels = teacher.label(batch)
    assert np.flatnonzero(~labels.ok).tolist() == [7], culprit
    assert labels.reasons[7] == "ani1x failed: RuntimeError: model exploded"


def test_a_committee_labels_with_the_mean_and_tells_its_spread(weights):
    committee = ml.get_teacher("fennol", weights=weights, name="ani1x")
    batch = mixed(6, seed=2)
    singles = [ml.get_teacher("fennol", weights=path).label(batch) for path in weights]
    labels = committee.label(batch)
    assert labels.energy == pytest.approx(np.mean([one.energy for one in singles], axis=0), abs=1e-3)
    assert labels.forces == pytest.approx(np.mean([one.forces for one in singles], axis=0), abs=1e-4)
    energy, forces = committee.spread(batch)
    assert energy.shape == (6,)
    assert forces.shape == (batch.n_atoms_total,)
    assert 0 < forces.max() < 2
    assert len(set(committee.info.fingerprint.split("sha256:"))) == 4
    with pytest.raises(TeacherError, match="at least two"):
        ml.get_teacher("fennol", weights=weights[0]).spread(batch)


def test_spread_atomic_energies_and_curvature(weights):
    """A committee's labels are means, so its Hessian is; its spread is the standard deviation of its members."""
    committee, single = (ml.get_teacher("fennol", weights=w, name="ani1x") for w in (weights, weights[0]))
    assert committee.info.properties == ("energy", "forces", "energy_std", "forces_std")
    batch = mixed(4, seed=7)
    labels = label_with(committee, batch, ("atomic_energies",))
    members = committee.label_members(batch)
    np.testing.assert_allclose(labels.more["energy_std"], np.std([one.energy for one in members], axis=0), atol=1e-9)
    scatter = np.stack([one.forces for one in members]).astype(float)
    scatter -= scatter.mean(axis=0)
    covariance = np.einsum("kai,kaj->aij", scatter, scatter) / len(members)
    squares = np.linalg.eigvalsh(covariance)[:, ::-1]
    np.testing.assert_allclose(labels.more["forces_std"], np.sqrt(np.maximum(squares, 0)), atol=1e-5)
    # The spread per atom that active learning uses is the same one.
    energy, forces = committee.spread(batch)
    np.testing.assert_allclose(labels.more["energy_std"] / batch.n_atoms, energy, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(labels.more["forces_std"], axis=1), forces, atol=1e-6)
    np.testing.assert_allclose(
        np.add.reduceat(labels.more["atomic_energies"], batch.offsets[:-1]), labels.energy, atol=1e-6
    )
    assert label_with(single, batch, ("embedding",)).more["embedding"].shape == (batch.n_atoms_total, 384)
    u, v = probe(batch), probe(batch, 2)
    along_u, along_v = (single.hessian_product(batch, one) for one in (u, v))
    work = [
        np.add.reduceat((a * b.astype(float)).sum(axis=1), batch.offsets[:-1]) for a, b in ((v, along_u), (u, along_v))
    ]
    # float32 rounds 1e-7 of 50 eV/angstrom^2 for each of some 30 coordinates
    assert np.abs(work[0] - work[1]).max() < 1e-2
    assert np.abs(single.hessian_product(batch, np.ones_like(u))).max() < 1e-3
    h = 1e-4  # CELU has kinks in its curvature, some within 0.0005 angstrom; forces are rounded at 1e-6
    positions = batch.positions.astype(float)
    ends = [
        ml.SampleBatch(
            n_atoms=batch.n_atoms,
            numbers=batch.numbers,
            positions=positions + k * h * u,
            multiplicity=batch.multiplicity,
        )
        for k in (1, -1)
    ]
    after, before = (single.label(one).forces.astype(float) for one in ends)
    assert np.median(np.abs((before - after) / (2 * h) - along_u)) < 0.01 * np.abs(along_u).mean()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_label_pass(workers, weights, tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(mixed(12), require=())
    report = store.add_labels("fennol", options={"weights": str(weights[0]), "name": "ani1x"}, workers=workers)
    assert report.labelled == 12
    assert store.snapshot().teachers == ("ani1x",)
    assert not np.isnan(store.snapshot().read().label("forces", "ani1x")).any()


def test_bad_options(weights, tmp_path):
    with pytest.raises(TeacherError, match="expected a model file"):
        ml.get_teacher("fennol")
    with pytest.raises(TeacherError, match="there is no file"):
        ml.get_teacher("fennol", weights="nothing.fnx")
    (tmp_path / "bad.fnx").write_bytes(b"not a model")
    with pytest.raises(TeacherError, match="is not a FeNNol model"):
        ml.get_teacher("fennol", weights=tmp_path / "bad.fnx").label(mixed(1))
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({}))
    with pytest.raises(TeacherError, match="may run any code"):
        ml.get_teacher("fennol", weights=tmp_path / "bad.pkl")
