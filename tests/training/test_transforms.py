"""Transforms: turned samples have the labels that the teacher gives to them, references and scales are those of the data."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mlffstore as ml
from mlffstore.errors import DataError
from mlffstore.training.transforms import (
    Compose,
    Normalise,
    RandomRotation,
    ReferenceEnergy,
    from_statistics,
    rotations,
)
from tests.samples import metal_frames, mixed_frames


@pytest.fixture
def store(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    for k in range(4):
        store.append(mixed_frames(40, seed=k), teacher="emt")
    return store


def test_a_turned_sample_has_the_turned_labels_of_the_teacher(tmp_path):
    """EMT labels the turned structures again: energies stay, forces and stress turn with them."""
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(8), teacher="emt")
    torch.manual_seed(0)
    data = ml.TorchDataset(store, split=None, transform=RandomRotation(), dtype=torch.float64, neighbours=4.0)
    batch = data.batch(range(8))
    turned = ml.SampleBatch(
        n_atoms=batch["n_atoms"],
        numbers=batch["numbers"],
        positions=batch["positions"],
        cell=batch["cell"],
        pbc=batch["pbc"],
    )
    labels = ml.get_teacher("emt").label(turned)
    # The stored labels are float32.
    assert batch["energy"].numpy() == pytest.approx(labels.energy, abs=1e-5)
    assert batch["forces"].numpy() == pytest.approx(labels.forces, abs=1e-5)
    assert batch["stress"].numpy() == pytest.approx(labels.stress, abs=1e-6)
    i, j = batch["edge_index"]
    d = (batch["positions"][j] + batch["shift"] - batch["positions"][i]).norm(dim=1)
    assert d.max() < 4.0 + 1e-9
    assert torch.equal(batch["batch"][i], batch["batch"][j])
    plain = ml.TorchDataset(store, split=None, dtype=torch.float64, neighbours=4.0).batch(range(8))
    before = (plain["positions"][j] + plain["shift"] - plain["positions"][i]).norm(dim=1)
    assert torch.allclose(d, before)
    joined = data.collate([data[k] for k in range(8)])
    assert torch.equal(joined["edge_index"], batch["edge_index"])


def test_rotations_are_proper():
    turn = rotations(50)
    assert torch.allclose(turn @ turn.transpose(1, 2), torch.eye(3, dtype=turn.dtype).expand(50, 3, 3), atol=1e-12)
    assert torch.allclose(torch.linalg.det(turn), torch.ones(50, dtype=turn.dtype))


def test_references_and_normalisation(store, tmp_path):
    import yaml

    normal = ml.statistics(store).normalisation()
    path = tmp_path / "statistics.yaml"
    path.write_text(yaml.safe_dump({"normalisation": {"emt": normal}}))
    data = ml.TorchDataset(store, split="train", transform=from_statistics(path))
    batch = data.batch(range(len(data)))
    assert float((batch["energy"] / batch["n_atoms"]).mean()) == pytest.approx(0, abs=1e-9)
    assert float(batch["forces"].double().pow(2).mean().sqrt()) == pytest.approx(1, rel=1e-5)
    raw = ml.TorchDataset(store, split="train").batch([0])
    out = Compose(
        ReferenceEnergy({"Cu": 1.0, "Al": 1.0, "Ni": 1.0, "Pd": 1.0, "H": 1, "C": 1, "O": 1, "N": 1}),
        Normalise(-1.0, 2.0),
    )(raw)
    assert out["energy"].item() == pytest.approx(raw["energy"].item() / 2)
    with pytest.raises(DataError, match="energy of every element"):
        ReferenceEnergy({"He": 1.0})(raw)


def test_what_is_derived_from_the_energy_keeps_its_relation(tmp_path):
    n, rng = 6, np.random.default_rng(0)
    forces = {name: rng.normal(size=(2 * n, 3)) for name in ("forces", "hessian_probe", "hessian_product")}
    atomic = rng.normal(size=2 * n)
    atomic[-2:] = np.nan  # of one sample there are none
    labels = {"energy": atomic.reshape(n, 2).sum(axis=1), "atomic_energies": atomic, "energy_std": np.ones(n), **forces}
    labels["energy"][-1] = 1.5
    store = ml.create(tmp_path / "d.zarr")
    store.append(
        ml.SampleBatch(n_atoms=[2] * n, numbers=[1, 8] * n, positions=rng.normal(size=(2 * n, 3)), labels={"t": labels})
    )
    names = tuple(labels)
    raw = ml.TorchDataset(store, split=None, properties=names, dtype=torch.float64).batch(range(n))
    transform = Compose(ReferenceEnergy({"H": 0.25, "O": -2.0}), Normalise(0.5, 4.0))
    out = ml.TorchDataset(store, split=None, properties=names, transform=transform, dtype=torch.float64).batch(range(n))
    for name in ("forces", "hessian_product", "energy_std"):
        torch.testing.assert_close(out[name], raw[name] / 4.0)
    torch.testing.assert_close(out["hessian_probe"], raw["hessian_probe"])  # a direction, no energy
    sums = out["atomic_energies"].reshape(n, 2).sum(dim=1)
    torch.testing.assert_close(sums[:-1], out["energy"][:-1])  # they still add up
    assert out["atomic_energies"][-2:].tolist() == [0.0, 0.0]
    assert not out["atomic_energies_mask"][-1]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Normalise(float("nan"), 1.0), "shift: expected a finite number"),
        (lambda: Normalise(0.0, float("inf")), "scale: expected a finite number"),
        (lambda: Normalise(0.0, 0.0), "positive scale"),
        (lambda: ReferenceEnergy({"H": float("inf")}), "expected a finite number"),
        (lambda: ReferenceEnergy({"Xq": 1.0}), "'Xq'"),
        (lambda: ReferenceEnergy({300: 1.0}), "300"),
    ],
)
def test_numbers_that_are_none_are_refused(make, words):
    with pytest.raises(DataError, match=words):
        make()


@pytest.mark.parametrize("text", ["samples: 3", "a: [", "- 1", "normalisation: {emt: 3}", None])
def test_files_that_are_no_statistics(tmp_path, text):
    if text is not None:
        (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(DataError, match=r"expected .*s\.yaml to be what"):
        from_statistics(tmp_path / "s.yaml")


def test_an_element_of_atomic_energies_alone_is_missed():
    batch = {
        "numbers": torch.tensor([1, 1, 8]), "batch": torch.tensor([0, 0, 1]), "n_atoms": torch.tensor([2, 1]),
        "energy": torch.tensor([-1.0, 0.0]).double(), "energy_mask": torch.tensor([True, False]),
        "atomic_energies": torch.tensor([-0.5, -0.5, -70.0]).double(),
    }  # fmt: skip
    with pytest.raises(DataError, match=r"atomic numbers \[8\]"):
        ReferenceEnergy({"H": -0.4})(batch)
