"""Reports of a selection and of a release show their samples alone, and say what was selected."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.analysis.report import write_report
from mlffstore.errors import DataError
from mlffstore.release.samples import open_release
from tests.samples import mixed_frames


@pytest.fixture(autouse=True)
def without_browser(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFFSTORE_BROWSER", "")
    monkeypatch.setenv("MLFFSTORE_CACHE", str(tmp_path / "cache"))
    pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A small store: the pictures of a report take most of its time."""
    store = ml.create(tmp_path_factory.mktemp("store") / "d.zarr")
    store.append(mixed_frames(24), teacher="emt")
    return store


def data_of(html):
    """Return the data in a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html.read_text(encoding="utf-8"))
    return json.loads(found[1])


def header(html):
    """Return the sentence in the head of a page."""
    return re.search(r"<header>.*?</header>", html.read_text(encoding="utf-8"), re.S)[0]


def figures(html):
    """Return the energies in the list of a page, and how many samples it is about."""
    data = data_of(html)
    columns = {column["key"]: column for column in data["columns"]}
    return np.array(columns["energy:emt"]["values"], float), data["total"]


def test_of_a_selection(store, tmp_path):
    snap = store.snapshot()
    chosen = snap.select("periodic and n_atoms <= 16", order_by="max_force desc", limit=6)
    html, pdf = write_report(chosen, tmp_path / "out")
    energies, total = figures(html)
    assert total == len(energies) == len(chosen) == 6
    np.testing.assert_allclose(np.sort(energies), np.sort(chosen.read().label("energy", "emt")), rtol=1e-9)
    head = header(html)
    assert "6 samples" in head
    assert (
        f"chosen from {len(snap):,} samples, where periodic and n_atoms &lt;= 16, ordered by max_force desc, the first 6"
        in head
    )
    assert pdf.read_bytes().startswith(b"%PDF-")


def test_of_a_release(store, tmp_path):
    metals = store.snapshot().select("periodic")
    options = {"name": "metals", "teacher": "emt", "allow_failing": True, "recheck": False}
    release = open_release(ml.export_release(metals, tmp_path / "release", **options).parent)
    html, _ = write_report(release, tmp_path / "out", provenance=release.provenance())
    energies, total = figures(html)
    assert total == len(release) == len(metals)
    assert "chosen from" not in header(html)
    np.testing.assert_allclose(np.sort(energies), np.sort(metals.read().label("energy", "emt")), rtol=1e-9)


def test_of_a_selection_without_samples(store, tmp_path):
    with pytest.raises(DataError, match="at least one sample"):
        write_report(store.snapshot().select("n_atoms > 1000"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
