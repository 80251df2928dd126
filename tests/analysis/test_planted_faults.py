"""Planted faults are found by name, without a teacher, on molecules without roots and on crystals."""

from __future__ import annotations

import pytest

import mlffstore as ml
from tests.planted import sets
from tests.planted.faults import FAULTS, found

#: Fault -> sets on which nothing but a teacher can find it, or only something else than its name.
UNSEEN = {
    "energy_offset_in_half_of_each_root": set(),
    "energy_and_forces_in_kcal": {"crystals"},
    "energy_of_two_samples_exchanged": set(),
    "numbers_permuted_in_each_sample": {"crystals"}, "numbers_permuted_in_one_sample": {"crystals"},
    "species_exchanged": {"crystals"}, "charge_off_by_two": {"molecules"}, "triplet_for_singlet": {"molecules"},
}  # fmt: skip


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    pytest.importorskip("tblite")
    folder = tmp_path_factory.mktemp("planted")
    paths = {"molecules": sets.molecules(folder, roots=False), "crystals": sets.crystals(folder)}
    return {name: ml.open(path).snapshot().to_xarray().load() for name, path in paths.items()}


@pytest.fixture(scope="module")
def clean(stores):
    return {name: ml.validate(ds).compute() for name, ds in stores.items()}


@pytest.mark.parametrize("name", ["molecules", "crystals"])
def test_clean_data_is_clean(clean, name):
    assert clean[name].ok
    assert clean[name].problems == []
    assert not clean[name].invalid.any()


@pytest.mark.parametrize("name", ["molecules", "crystals"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found_by_name(stores, clean, fault, name):
    spoiled = fault.spoil(stores[name].copy(deep=True))
    if spoiled is None:
        return  # such data cannot have it
    checks = found(ml.validate(spoiled), clean[name])
    assert bool(set(checks) & set(fault.checks)) == (name not in UNSEEN.get(fault.name, ())), checks
