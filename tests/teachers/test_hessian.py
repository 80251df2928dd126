"""Hessian-vector products: shared directions, symmetric, the derivative of the forces, and their way into a store."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule

import mlffstore as ml
from mlffstore.contracts.hessian import from_forces, hessian_product
from mlffstore.contracts.probes import MOST, names_of, probe
from mlffstore.contracts.request import label_with, wanted
from mlffstore.errors import DataError, TeacherError


def rattled(*frames):
    for i, frame in enumerate(frames):
        frame.rattle(0.05, seed=i)
    return ml.SampleBatch.from_ase(list(frames))


def per_sample(batch, values):
    """Return sums over atoms and components."""
    return np.add.reduceat(values.astype(float).sum(axis=1), batch.offsets[:-1])


def test_directions_follow_from_the_structure_alone():
    batch = rattled(*(molecule("C6H6") for _ in range(400)))
    first = probe(batch)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(probe(batch.take([7, 3])), np.concatenate([first[84:96], first[36:48]]))
    second = probe(batch, 2)
    # 14,400 normal numbers: the mean is known to 0.008, the variance to 0.012, a correlation to 0.008; five of these.
    assert abs(first.mean()) < 0.04
    assert abs(first.var() - 1) < 0.06
    assert abs((first * second).mean()) < 0.04
    # The definition is that of docs/format.md, forever: other implementations draw the same numbers.
    water = ml.SampleBatch(n_atoms=[1], numbers=[8], positions=[[0.0, 0.0, 0.0]], multiplicity=[1])
    np.testing.assert_allclose(probe(water)[0], WATER, atol=1e-6)


def by_definition(content_hash: int, number: int, count: int) -> list[float]:
    """Compute the definition with Python's integers."""
    golden, top = 0x9E3779B97F4A7C15, 2**64

    def mix(x: int) -> int:
        x ^= x >> 30
        x = x * 0xBF58476D1CE4E5B9 % top
        x ^= x >> 27
        x = x * 0x94D049BB133111EB % top
        return x ^ (x >> 31)

    seed = mix((content_hash + golden * number) % top)
    out = []
    for i in range(count):
        a, b = ((mix((seed + golden * (2 * i + k)) % top) >> 11) * 2.0**-53 for k in (1, 2))
        out.append(float(np.sqrt(-2 * np.log(1 - a)) * np.cos(2 * np.pi * b)))
    return out


WATER = by_definition(
    int(ml.SampleBatch(n_atoms=[1], numbers=[8], positions=[[0.0, 0.0, 0.0]], multiplicity=[1]).content_hash[0]), 1, 3
)


# Noise of forces over the step of 0.005 angstrom, and the error of the five-point formula; autograd in float32 rounds at
# 1e-6 of some 50 eV/angstrom^2.
CASES = [("gfn2-xtb", 0.05, False), ("chgnet", 1e-3, True), ("sevennet-0", 1e-3, True), ("emt", 1e-3, False)]


@pytest.mark.parametrize(("name", "tolerance", "exact"), CASES)
def test_products_are_symmetric_and_the_derivative_of_the_forces(name, tolerance, exact):
    teacher = ml.get_teacher(name)
    if name == "gfn2-xtb":
        batch = rattled(molecule("H2O"), molecule("CH3OH"))
    elif name == "emt":
        batch = rattled(bulk("Cu", cubic=True), bulk("Al", cubic=True))
    else:
        batch = rattled(bulk("MgO", "rocksalt", 4.21, cubic=True), bulk("NaCl", "rocksalt", 5.6))
    batch = batch.astype("float64")
    u, v = probe(batch), probe(batch, 2)
    (along_u, error), (along_v, _) = (hessian_product(teacher, batch, one) for one in (u, v))
    assert (error is None) is exact
    difference = per_sample(batch, v * along_u) - per_sample(batch, u * along_v)
    assert np.abs(difference / np.sqrt(3 * batch.n_atoms)).max() < tolerance
    assert np.abs(along_u).max() > 1
    shifted = hessian_product(teacher, batch, np.ones_like(u))[0]
    assert np.abs(shifted).max() < tolerance
    if not exact:
        # The curvature of the energy along the direction, of which no force is part.
        h = 0.005
        moved = [ml.SampleBatch(**structure(batch, batch.positions + k * h * u)) for k in (-1, 0, 1)]
        low, here, high = (teacher.label(one).energy for one in moved)
        curvature = per_sample(batch, u * along_u)
        # Of fourth order in the energy: (h |u|)^2 / 12 of a quartic term some ten times the quadratic one.
        np.testing.assert_allclose((low - 2 * here + high) / h**2, curvature, rtol=0.01)
    else:
        # At 0.0005 angstrom forces in float32 (1e-5 eV/angstrom) give 0.02; CHGNet's curvature changes within 0.001.
        h = 5e-4
        after, before = (
            teacher.label(ml.SampleBatch(**structure(batch, batch.positions + k * h * u))) for k in (1, -1)
        )
        difference = -(after.forces.astype(float) - before.forces) / (2 * h)
        assert np.sqrt(np.square(difference - along_u).mean()) < 0.03 * np.sqrt(np.square(along_u).mean())


def structure(batch, positions):
    names = ("n_atoms", "numbers", "cell", "pbc", "charge", "multiplicity")
    return {"positions": positions, **{name: batch.columns[name] for name in names}}


def test_the_estimated_error_of_differences_bounds_what_a_smaller_step_changes():
    teacher, batch = ml.get_teacher("emt"), rattled(bulk("Cu", cubic=True)).astype("float64")
    u = probe(batch)
    product, error = from_forces(teacher, batch, u)
    half, _ = from_forces(teacher, batch, 0.5 * u)  # half of the direction: half of the step, half of the product
    assert np.abs(product - 2 * half).max() <= error.max()
    assert error.max() < 0.01 * np.abs(product).max()


def test_all_teachers_of_a_store_share_the_directions(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append([*rattled(bulk("Cu", cubic=True), bulk("Ni", cubic=True)).to_ase(), molecule("H2O")], require=())
    asked = ("energy", "forces", "hessian_product", "hessian_product_2", "hessian_error", "atomic_energies")
    report = store.add_labels("emt", properties=asked, workers=2)
    assert (report.labelled, report.refused) == (2, 1)
    store.add_labels("chgnet", properties=("hessian_product",))
    batch = store.snapshot().read()
    for number in (1, 2):
        name, direction = names_of(number)
        np.testing.assert_array_equal(batch.labels["emt"][direction][:8], probe(batch, number)[:8])
        assert np.isnan(batch.labels["emt"][name][8:]).all()
        assert np.isnan(batch.labels["emt"][direction][8:]).all()
    assert set(batch.labels["chgnet"]) == {"hessian_product", "hessian_probe"}
    np.testing.assert_array_equal(batch.labels["chgnet"]["hessian_probe"], batch.labels["emt"]["hessian_probe"])
    assert 0 < np.nanmax(batch.labels["emt"]["hessian_error"]) < 0.1
    assert batch.property_of("hessian_error").unit == "eV/angstrom^2"
    assert store.add_labels("emt", properties=asked).versions == []
    frames = store.snapshot().read([0]).to_ase("emt")
    assert frames[0].arrays["hessian_product_2"].shape == (4, 3)


def test_what_has_no_hessian_says_so():
    from dataclasses import replace

    teacher = ml.get_teacher("emt")
    teacher._info = replace(teacher.info, conservative=False)
    batch = rattled(bulk("Cu", cubic=True))
    with pytest.raises(TeacherError, match="forces are predicted by a head of their own"):
        hessian_product(teacher, batch, probe(batch))
    with pytest.raises(DataError, match="properties: emt has no Hessian"):
        wanted(teacher, ("hessian_product",))
    with pytest.raises(DataError, match=f"on request atomic_energies.*got hessian_product_{MOST + 1}"):
        wanted(ml.get_teacher("emt"), (f"hessian_product_{MOST + 1}",))
    with pytest.raises(DataError, match="differentiates its forces exactly"):
        wanted(ml.get_teacher("chgnet"), ("hessian_error",))
    labels = label_with(ml.get_teacher("emt"), ml.SampleBatch.from_ase([molecule("H2O")]), ("hessian_product",))
    assert np.isnan(labels.more["hessian_product"]).all()
