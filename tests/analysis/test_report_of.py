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


@pytest.fixture(autouse=True)
def without_browser(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFFSTORE_BROWSER", "")
    monkeypatch.setenv("MLFFSTORE_CACHE", str(tmp_path / "cache"))
    pytest.importorskip("matplotlib")


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


def test_of_a_selection(clean, tmp_path):
    snap = ml.open(clean).snapshot()
    chosen = snap.select("periodic and n_atoms <= 8", order_by='"max_force.emt" desc', limit=20)
    html, pdf = write_report(chosen, tmp_path / "out")
    energies, total = figures(html)
    assert total == len(energies) == len(chosen) == 20
    np.testing.assert_allclose(np.sort(energies), np.sort(chosen.read().label("energy", "emt")), rtol=1e-9)
    head = header(html)
    assert "20 samples" in head
    assert (
        f"chosen from {len(snap):,} samples, where periodic and n_atoms &lt;= 8, ordered by &#34;max_force.emt&#34; desc"
        in head
    )
    assert pdf.read_bytes().startswith(b"%PDF-")


def test_of_a_release_and_of_a_selection_of_it(clean, tmp_path):
    metals = ml.open(clean).snapshot().select("periodic")
    options = {"name": "metals", "teacher": "emt", "allow_failing": True, "recheck": False}
    release = open_release(ml.export_release(metals, tmp_path / "release", **options).parent)
    html, _ = write_report(release, tmp_path / "out", provenance=release.provenance())
    energies, total = figures(html)
    assert total == len(release) == len(metals)
    assert "chosen from" not in header(html)
    np.testing.assert_allclose(np.sort(energies), np.sort(metals.read().label("energy", "emt")), rtol=1e-9)
    small = release.select("n_atoms <= 8")
    energies, total = figures(write_report(small, tmp_path / "small")[0])
    assert total == len(small) < len(release)
    np.testing.assert_allclose(np.sort(energies), np.sort(small.read().label("energy", "emt")), rtol=1e-9)
    assert f"chosen from {len(release):,} samples, where n_atoms &lt;= 8" in header(tmp_path / "small" / "report.html")


def test_of_a_selection_without_samples(clean, tmp_path):
    with pytest.raises(DataError, match="at least one sample"):
        write_report(ml.open(clean).snapshot().select("n_atoms > 1000"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
