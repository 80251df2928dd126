"""Orb-v2's real architecture with a seeded state dict: its own weights come from a network that tests do not have.

The numbers mean nothing, but everything that is ours is exercised: loading, graphs, batching, units and order of the labels.
"""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule

import mlffstore as ml
from mlffstore.contracts.conformance import check, failed
from mlffstore.contracts.hessian import from_forces
from mlffstore.contracts.probes import probe
from mlffstore.contracts.request import label_with
from mlffstore.errors import TeacherError

pytest.importorskip("orb_models")
torch = pytest.importorskip("torch")
# torch.jit in the package's own imports says nothing to our users.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning"),
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    from orb_models.forcefield import pretrained

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("orb") / "seeded.ckpt"
    torch.save(pretrained.orb_v2_architecture(device="cpu").state_dict(), path)
    return path


@pytest.fixture(scope="module")
def teacher(weights):
    return ml.get_teacher("orb-v2", weights=weights)


def frames():
    found = [molecule("H2O"), bulk("MgO", "rocksalt", 4.21, cubic=True), molecule("CH3OH"), bulk("Cu", cubic=True)]
    for i, frame in enumerate(found):
        frame.rattle(0.05, seed=i)
    return found


def calculator(teacher):
    """Return the package's own; from 0.6 on (Python 3.12) it lives elsewhere and takes the adapter too."""
    try:
        from orb_models.forcefield.inference.calculator import ORBCalculator
    except ImportError:
        from orb_models.forcefield.calculator import ORBCalculator

        return ORBCalculator(teacher._loaded(), device="cpu")
    return ORBCalculator(teacher._loaded(), teacher._adapter, device="cpu")


def test_labels_agree_with_the_packages_own_calculator(teacher):
    batch = ml.SampleBatch.from_ase(frames())
    labels = teacher.label(batch)
    assert labels.ok.all()
    for i, frame in enumerate(batch.to_ase()):
        frame.info = {}
        frame.calc = calculator(teacher)
        assert labels.energy[i] == pytest.approx(frame.get_potential_energy(), abs=1e-3)
        forces = labels.forces[batch.offsets[i] : batch.offsets[i + 1]]
        assert forces == pytest.approx(frame.get_forces(), abs=1e-3)
        if frame.pbc.all():
            assert labels.stress[i] == pytest.approx(frame.get_stress(), abs=1e-3)
        else:
            assert np.isnan(labels.stress[i]).all()


def test_it_keeps_the_contract_and_reports_the_gap_of_its_forces(teacher):
    checks = check(teacher, frames()[:2])
    assert failed(checks) == []
    gap = {one.name: one for one in checks}["forces against -dE/dx"]
    assert gap.passed is None
    assert gap.figure > 0.01


def test_identity_and_bad_files(teacher, weights, tmp_path):
    assert "sha256:" in teacher.info.fingerprint
    assert not teacher.info.conservative
    with pytest.raises(TeacherError, match="there is no file"):
        ml.get_teacher("orb-v2", weights="nothing.ckpt")
    (tmp_path / "bad.ckpt").write_bytes(b"not a state dict")
    labels = ml.get_teacher("orb-v2", weights=tmp_path / "bad.ckpt")
    with pytest.raises(TeacherError, match="does not hold the weights of this model"):
        labels.label(ml.SampleBatch.from_ase(frames()))


def test_weights_that_cannot_be_fetched_say_what_to_do(monkeypatch):
    import cached_path

    def refuse(url):
        raise ConnectionError("no network")

    monkeypatch.setattr(cached_path, "cached_path", refuse)
    with pytest.raises(TeacherError, match=r"could not be fetched from https://.*weights='FILE'"):
        ml.get_teacher("orb-v2").label(ml.SampleBatch.from_ase(frames()))


def test_a_full_device_halves_the_batch_and_goes_on(weights, monkeypatch):
    teacher = ml.get_teacher("orb-v2", weights=weights, batch_atoms=64)
    call = type(teacher)._call

    def full(self, embedding, chosen, group):
        if sum(len(chosen[i]) for i in group) > 12:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return call(self, embedding, chosen, group)

    monkeypatch.setattr(type(teacher), "_call", full)
    labels = teacher.label(ml.SampleBatch.from_ase(frames()))
    assert labels.ok.all()
    assert teacher.batch_atoms < 64


def test_the_embedding_is_what_the_heads_see_and_there_is_no_hessian(teacher):
    batch = ml.SampleBatch.from_ase(frames()[:2])
    labels = label_with(teacher, batch, ("embedding",))
    assert labels.more["embedding"].shape == (11, teacher.info.widths["embedding"])
    # The energy head reads the mean of these features: through the head they give the energy again.
    model = teacher._loaded()
    bare = batch.to_ase()
    for frame in bare:
        frame.info = {}
    graphs = teacher._graphs(bare)
    energy = model.heads["energy"].predict(torch.as_tensor(labels.more["embedding"]), graphs)
    assert energy.detach().numpy() == pytest.approx(labels.energy, abs=1e-3)
    assert "embedding" not in teacher.label(batch).more
    with pytest.raises(TeacherError, match="orb-v2 has no Hessian: its forces are predicted by a head of their own"):
        teacher.hessian_product(batch, np.ones((11, 3)))


def test_conservative_models_have_a_hessian(tmp_path):
    """Random weights too: the product is symmetric and the derivative of the forces."""
    from orb_models.forcefield import pretrained

    torch.manual_seed(0)
    path = tmp_path / "seeded.ckpt"
    torch.save(pretrained.orb_v3_conservative_architecture(device="cpu").state_dict(), path)
    teacher = ml.get_teacher("orb-v3-conservative-inf-omat", weights=path)
    batch = ml.SampleBatch.from_ase([frames()[0]]).astype("float64")
    u, v = probe(batch), probe(batch, 2)
    along_u, along_v = (teacher.hessian_product(batch, one) for one in (u, v))
    assert np.abs(along_u).max() > 0.1
    # float32, some 1 eV/angstrom^2; the five-point formula's error is of the same size with smooth random weights
    assert abs(float((v * along_u).sum() - (u * along_v).sum())) < 1e-4
    np.testing.assert_allclose(from_forces(teacher, batch, u)[0], along_u, atol=1e-2)
