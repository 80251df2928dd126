"""Validation of charges, dipoles, atomic energies, moments and Hessian products: planted faults are found by name."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.analysis.validation.property_checks import DATASET_CHECKS
from tests.signals import signals

MOLECULES = (
    "H2O", "NH3", "CH4", "HCl", "H2CO", "HCN", "CH3OH", "CH3Cl", "H3CNH2", "CH3CH2OH", "CH3CHO", "CH3CN", "HCOOH",
    "CH3SH", "SH2", "PH3", "SO2", "CO2", "C2H4", "C6H6", "CH3CONH2",
)  # fmt: skip
STEP = 0.005


@pytest.fixture(scope="module")
def ds(tmp_path_factory):
    """Return molecules of the G2 set with GFN2-xTB's labels, Hessian products by differences of its forces among them."""
    pytest.importorskip("tblite")
    from ase.build import molecule

    teacher = ml.get_teacher("gfn2-xtb")
    batch = ml.SampleBatch.from_ase([molecule(name) for name in MOLECULES])
    labels = teacher.label(batch)
    probe = np.random.default_rng(0).normal(size=(batch.n_atoms_total, 3))
    probe /= np.linalg.norm(probe, axis=1)[:, None]
    forces = []
    for sign in (1, -1):
        moved = ml.SampleBatch(
            n_atoms=batch.n_atoms, numbers=batch.numbers, positions=batch.positions + sign * STEP * probe
        )
        forces.append(teacher.label(moved).forces.astype(np.float64))
    rng = np.random.default_rng(1)
    shares = rng.normal(size=batch.n_atoms_total)
    shares += np.repeat((labels.energy - np.add.reduceat(shares, batch.offsets[:-1])) / batch.n_atoms, batch.n_atoms)
    named = {
        "energy": labels.energy, "forces": labels.forces, **labels.more, "hessian_probe": probe,
        "hessian_product": -(forces[0] - forces[1]) / (2 * STEP), "atomic_energies": shares,
        "magmoms": 0.1 * shares / np.abs(shares).max(),
    }  # fmt: skip
    store = ml.create(tmp_path_factory.mktemp("p") / "d.zarr")
    store.append(batch.with_labels("gfn2", **named))
    return store.snapshot().to_xarray().load()


def checks(ds):
    found = ml.validate(ds)
    return found, {one.check: one for one in found.checks if one.check in DATASET_CHECKS}


def test_right_properties_pass(ds):
    found, by_name = checks(ds)
    assert {one.state for one in by_name.values()} == {"pass"}, found.table()
    assert "charges -0." in by_name["property_values"].text
    assert by_name["dipole_units"].n == len(MOLECULES)
    assert not {"property_range", "property_sums", "not_finite"} & {finding.check for finding in found.findings}
    by_bonds = checks(ds.drop_vars("charges"))[1]["dipole_units"]
    assert "electronegativities" in by_bonds.text
    assert by_bonds.state == "pass"


def scaled(name, factor):
    return lambda ds: ds.assign({name: (ds[name].dims, ds[name].values * factor, ds[name].attrs)})


def per_sample(name, change):
    """Change the values of each sample: a function of its rows."""

    def spoil(ds):
        values = ds[name].values.copy()
        starts = np.concatenate([[0], np.cumsum(ds.n_atoms.values)])
        for a, b in itertools.pairwise(starts):
            values[a:b] = change(values[a:b])
        return ds.assign({name: (ds[name].dims, values, ds[name].attrs)})

    return spoil


@pytest.mark.parametrize(
    ("check", "spoil"),
    [
        ("charge_sums", lambda ds: ds.assign(charge=ds.charge + 1, multiplicity=ds.multiplicity + 1)),
        ("dipole_units", scaled("dipole", 4.80320)),
        ("dipole_units", scaled("dipole", 1 / 0.529177)),
        ("dipole_units", scaled("dipole", -1)),
        ("dipole_units", lambda ds: scaled("dipole", 4.80320)(ds.drop_vars("charges"))),
        ("hessian_products", scaled("hessian_product", -1)),
        ("hessian_products", scaled("hessian_product", 1 / 97.1736)),
        ("hessian_products", per_sample("hessian_product", np.abs)),
        ("hessian_products", per_sample("hessian_product", lambda rows: rows - rows.min(axis=0))),
        ("atomic_energy_sums", scaled("atomic_energies", 1 / 27.2114)),
        ("atomic_energy_sums", per_sample("atomic_energies", lambda rows: rows - rows.mean(axis=0))),
        ("charge_sums", per_sample("charges", lambda rows: rows + 0.1)),
        ("property_values", scaled("charges", 1000)),
        ("property_values", scaled("magmoms", 927.4)),
    ],
)
def test_planted_faults_are_found_by_name(ds, check, spoil):
    found, by_name = checks(spoil(ds))
    assert by_name[check].state == "fail", found.table()
    assert not found.ok
    assert "expected" in by_name[check].text


def test_one_wrong_sample_is_found(ds):
    charges = ds.charges.values.copy()
    charges[0] += 0.4
    moments = ds.magmoms.values.copy()
    moments[5] = np.inf
    spoiled = ds.assign(charges=(ds.charges.dims, charges, ds.charges.attrs), magmoms=(ds.magmoms.dims, moments, {}))
    found, by_name = checks(spoiled)
    assert by_name["charge_sums"].state == "pass"
    assert found.failed("property_sums").tolist() == [0]
    assert found.failed("not_finite").tolist() == [1]


def test_what_is_not_there_is_not_measured(ds):
    _, by_name = checks(ds.drop_vars(["hessian_probe", "energy"]))
    assert by_name["hessian_products"].state == "not measured"
    assert by_name["atomic_energy_sums"].state == "not measured"
    few = checks(ds.mlff.isel([0, 3]))[1]
    assert few["dipole_units"].state == "not measured"
    plain = ds[["n_atoms", "numbers", "positions", "cell", "pbc", "charge", "multiplicity", "energy", "forces"]]
    assert {one.state for one in checks(plain)[1].values()} == {"nothing"}
    with pytest.raises(ml.errors.PolicyError, match="min_slop"):
        ml.validate(ds, {"checks": {"dipole_units": {"min_slop": 1}}})
    demanding = ml.validate(ds.mlff.isel([0, 3]), {"checks": {"dipole_units": {"required": True}}})
    assert [problem.check for problem in demanding.problems] == ["dipole_units"]


def test_teachers_of_different_widths_are_measured_apart(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(signals(), require=())
    values = {one.teacher: one for one in ml.validate(store).checks if one.check == "property_values"}
    assert set(values) == {"a", "b"}
    assert "expected no negative numbers, got" in values["a"].text  # the random numbers of a spread
    off = {"checks": {"property_values": {"max_fraction": 1}}}
    values = {one.teacher: one for one in ml.validate(store, off).checks if one.check == "property_values"}
    assert "embedding" in values["b"].text
    assert "test_polarizability" in values["a"].text
