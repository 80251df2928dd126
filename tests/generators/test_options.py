"""Options of generators and seeds that are of another type are refused: they were cut up, rounded or taken for true."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from ase.build import bulk

import mlffstore as ml
from mlffstore.errors import DataError
from mlffstore_generators.seeds import defects, get_seeds, known
from mlffstore_generators.seeds.base import NoSeedError


@pytest.mark.parametrize(
    ("generator", "options", "message"),
    [
        ("md", {"temperatures": [300, float("nan")]}, r"md: temperatures\[1\]: expected a finite number, got nan"),
        ("md", {"temperatures": 300}, "md: temperatures: expected a list, got 300"),
        ("md", {"temperatures": "300"}, "md: temperatures: expected a list, got '300'"),
        ("md", {"frames": 2.5}, "md: frames: expected an integer, got 2.5"),
        ("md", {"frames": True}, "md: frames: expected an integer, got True"),
        ("md", {"parallel": "8"}, "md: parallel: expected an integer, got '8'"),
        ("md", {"friction": float("inf")}, "md: friction: expected a finite number, got inf"),
        ("md", {"timestep_fs": "1"}, "md: timestep_fs: expected a number, got '1'"),
        ("rattle", {"amplitude": [0.01, "0.1"]}, r"rattle: amplitude\[1\]: expected a number, got '0.1'"),
        ("rattle", {"strained": True}, "rattle: strained: expected a number, got True"),
        ("scan", {"bond": 1.5}, "scan: bond: expected a list, got 1.5"),
        ("normal-modes", {"max_distance": float("nan")}, "normal-modes: max_distance: expected a finite number"),
        ("normal-modes", {"scheme": 3}, "normal-modes: scheme: expected text, got 3"),
        ("rattle-relax", {"size": float("nan")}, "rattle-relax: size: expected a finite number"),
        ("molecules", {"equilibration_fs": float("nan")}, "molecules: equilibration_fs: expected a finite number"),
        ("crystals", {"elements": ["Cu", "Xy"]}, "crystals: elements: expected symbols of elements, got 'Xy'"),
        ("crystals", {"elements": []}, "crystals: elements: expected at least one symbol, got none"),
    ],
)
def test_generators(generator, options, message):
    with pytest.raises(DataError, match=message):
        ml.get_generator(generator, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "crystals", "elements": "CuO"}, "crystals: elements: expected symbols of elements, got 'CuO'"),
        ({"name": "defects", "elements": [29]}, r"defects: elements\[0\]: expected text, got 29"),
        ({"name": "random-crystals", "max_atoms": 20.5}, "random-crystals: max_atoms: expected an integer, got 20.5"),
        ({"name": "clusters", "molecules": [2.7, 6.2]}, r"clusters: molecules\[0\]: expected an integer, got 2.7"),
        ({"name": "clusters", "neutral": "no"}, "clusters: neutral: expected true or false, got 'no'"),
        ({"name": "liquids", "temperature": float("nan")}, "liquids: temperature: expected a finite number"),
        ({"name": "molecules", "neutral": 1}, "molecules: neutral: expected true or false, got 1"),
        ({"name": "nanoparticles", "vacuum": float("nan")}, "nanoparticles: vacuum: expected a finite number"),
        ({"name": "slabs", "thickness": "8"}, "slabs: thickness: expected a number, got '8'"),
        ({"name": "relaxed", "cell": "false"}, "relaxed: cell: expected true or false, got 'false'"),
        ({"name": "relaxed", "fmax": float("nan")}, "relaxed: fmax: expected a finite number"),
        ({"name": "few-atoms", "distance": [0.8, float("nan")]}, r"few-atoms: distance\[1\]: expected a finite number"),
        ({"name": "files", "paths": [3]}, r"files: paths\[0\]: expected text, got 3"),
    ],
    ids=lambda one: one["name"] if isinstance(one, dict) else "",
)
def test_seeds(options, message):
    with pytest.raises(DataError, match=message):
        get_seeds(options)


def test_defaults_and_what_numpy_and_yaml_give_are_right():
    for name in known():
        if name != "files":
            get_seeds(name)
    made = ml.get_generator(
        "md", temperatures=np.array([300, 500]), frames=np.int64(4), interval_fs=np.float32(25), friction=1
    )
    assert (made.temperatures, made.frames, made.interval_fs) == ((300.0, 500.0), 4, 25.0)


def test_one_element_and_one_kind_are_given_by_themselves():
    """`elements: Cu` was carbon and nothing else that exists."""
    assert get_seeds({"name": "crystals", "elements": "Cu"}).elements == ("Cu",)
    assert get_seeds({"name": "molecules", "ions": "anion"}).ions == ("anion",)


def test_interstitials_are_of_elements_that_are_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(defects, "_KINDS", ("interstitial",))
    bulk("Cs", cubic=True).write(tmp_path / "host.extxyz")
    host = {"name": "files", "paths": str(tmp_path / "host.extxyz")}
    guests = set()
    for options in ({"elements": ["Cs", "H"]}, {}):
        seeds = get_seeds({"name": "defects", "host": host, **options})
        for k in range(60):
            with contextlib.suppress(NoSeedError):
                guests.add(seeds.draw(np.random.default_rng(k)).atoms.symbols[-1])
        if options:
            assert "H" in guests
            assert guests <= {"Cs", "H"}
    assert "C" in guests
