"""The report: what it holds, and its PDF with and without a browser."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest
from ase.build import bulk, molecule

import mlffstore as ml
from mlffstore.analysis.report import write_report
from mlffstore.analysis.report.browser import find_browser
from mlffstore.analysis.report.elements import place
from mlffstore.analysis.report.kinds import KINDS, formula, kinds
from mlffstore.analysis.report.page import script_json
from mlffstore.analysis.report.picture import layout, picture
from mlffstore.analysis.report.provenance import other_records, parts, total
from mlffstore.analysis.report.structures import pack
from mlffstore.errors import DataError


@pytest.fixture(scope="module")
def written(clean, tmp_path_factory):
    """Return the page and the PDF of a report that was written without a browser."""
    pytest.importorskip("matplotlib")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFFSTORE_BROWSER", "")
        return write_report(ml.open(clean).snapshot(), tmp_path_factory.mktemp("one"))


def data_of(html):
    """Return the data in a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html.read_text(encoding="utf-8"))
    return json.loads(found[1])


def test_the_same_report_has_the_same_bytes_and_a_pdf(clean, tmp_path, written, monkeypatch):
    one, pdf = written
    monkeypatch.setenv("MLFFSTORE_BROWSER", "")
    two, _ = write_report(ml.open(clean).snapshot(), tmp_path / "two")
    assert one.read_bytes() == two.read_bytes()
    assert pdf.read_bytes().startswith(b"%PDF-")
    assert pdf.stat().st_size > 50_000


@pytest.mark.skipif(find_browser() is None, reason="needs chromium")
def test_a_browser_prints_the_page(clean, tmp_path):
    _, pdf = write_report(ml.open(clean).snapshot(), tmp_path)
    assert b"Chromium" in pdf.read_bytes() or b"Skia/PDF" in pdf.read_bytes()
    assert pdf.stat().st_size > 50_000


def test_a_browser_that_fails_leaves_the_pdf_to_matplotlib(clean, tmp_path, monkeypatch, caplog):
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("MLFFSTORE_BROWSER", "false")
    _, pdf = write_report(ml.open(clean).snapshot(), tmp_path)
    assert b"Matplotlib" in pdf.read_bytes()
    assert "could not print the PDF" in caplog.text


def test_structures_and_figures_are_those_of_the_store(clean, written):
    snapshot = ml.open(clean).snapshot()
    data = data_of(written[0])
    assert data["rows"] == data["total"] == len(snapshot)
    batch = snapshot.read()
    packed, starts = data["structures"], data["structures"]["starts"]
    whole = np.frombuffer(base64.b64decode(packed["positions"]["data"]), "<i2").reshape(-1, 3)
    scale = np.repeat(packed["positions"]["scale"], np.diff(starts))[:, None]
    middle = np.repeat(np.reshape(packed["middle"], (-1, 3)), np.diff(starts), axis=0)
    assert np.abs(whole * scale + middle - batch.columns["positions"]).max() < 1e-3
    forces = packed["forces"]["emt"]
    assert forces["rows"] == np.flatnonzero(np.isfinite(batch.labels["emt"]["energy"])).tolist()
    columns = {column["key"]: column for column in data["columns"]}
    energy = np.array(columns["energy:emt"]["values"], float)
    np.testing.assert_allclose(energy, batch.labels["emt"]["energy"], rtol=1e-9)
    for chart in data["charts"]:  # every bar leads to as many listed samples as it counts
        if chart["kind"] == "histogram":
            counts = sum(np.array(one) for one in chart["groups"]["split"].values())
            values = np.array(columns[chart["key"]]["values"], float)
            np.testing.assert_array_equal(np.histogram(values[np.isfinite(values)], chart["edges"])[0], counts)


def test_vectors_keep_their_size_and_what_is_not_finite():
    values = np.array([[1.0, -2.0, 0.5], [np.nan, 0, 0], [0, 0, 0], [1e-3, 2e-3, -3e-3]])
    packed = pack(values, np.array([0, 2, 3, 4]))
    whole = np.frombuffer(base64.b64decode(packed["data"]), "<i2").reshape(-1, 3)
    found = np.where(whole == -32768, np.nan, whole * np.repeat(packed["scale"], [2, 1, 1])[:, None])
    np.testing.assert_allclose(found, values, atol=4e-5)
    np.testing.assert_allclose(found[3], values[3], rtol=1e-4)
    assert formula(np.array([17, 11])) == "ClNa"
    assert formula(np.array([200])) == "Z200"
    numbers = np.array([6, 1, 6, 1, 29, 12, 8, 11, 17, 79, 79, 78, 14, 6])
    found = kinds(numbers, np.array([0, 2, 5, 7, 9, 10, 12, 14]))
    expected = ["organic", "metal-organic", "oxide", "halide", "element", "alloy", "other"]
    assert [KINDS[k] for k in found] == expected


def test_json_in_a_script_cannot_end_it():
    text = script_json({"a": "</script><!-- & -->"})
    assert not set("<>&") & set(text)
    assert json.loads(text) == {"a": "</script><!-- & -->"}


def test_provenance_has_a_line_per_part():
    recipe = {"parts": [{"name": "a", "generator": "g", "teacher": "t", "samples": 32}, {"name": "b"}]}
    records = [
        {"version": 1, "time": "1", "recipe": recipe, "generators": {"a": {"seeds": []}}},
        *({"version": k, "part": "a", "task": k, "rejected": {"far": 1}, "cpu_seconds": 9.0, "accepted": 8,
           "calls": {"t": 16, "u": 4}} for k in range(2, 52)),
        {"version": 52, "time": "x", "import": "x.xyz"},
        {"version": 53, "time": "x", "import": "y.xyz"},
    ]  # fmt: skip
    first, second = parts(records)
    cost = ["2.5", "3,200", "0.12"]  # 1,000 calls and 450 s for 400 samples
    assert first.row() == ["a", "g", "t", "32", "400", "50", "50", "0", *cost, "2 to 51"]
    assert total([first, second]).cost() == cost
    assert second.cost() == ["-", "-", "-"]
    assert first.document()["generator"] == {"seeds": []}
    assert (second.name, second.tasks) == ("b", 0)
    assert [(title, len(several)) for title, several in other_records(records).items()] == [
        ("Recipe, software, generators, teachers", 1), ("import (2 commits)", 2)
    ]  # fmt: skip


def test_pictures_draw_every_atom_and_the_cell():
    atoms = bulk("NaCl", "rocksalt", 5.64, cubic=True)
    text = picture(atoms)
    assert text.count("<circle") == 8
    assert text.count("<line") == 12
    assert picture(molecule("CH3OH")).count("<line") == 0
    x, radius, colour, edges = layout(atoms)
    assert (x.shape, radius.shape, colour.shape, edges.shape) == ((8, 2), (8,), (8, 3), (12, 2, 2))


def test_the_periodic_table():
    cells = {place(z) for z in range(1, 119)}
    assert len(cells) == 118
    assert [place(z) for z in (1, 2, 5, 10, 21, 36, 72, 103, 118)] == [
        (1, 1), (1, 18), (2, 13), (2, 18), (4, 3), (4, 18), (6, 4), (10, 18), (7, 18)
    ]  # fmt: skip


def test_nothing_to_report_on(tmp_path):
    with pytest.raises(DataError, match="at least one sample"):
        write_report(ml.create(tmp_path / "d.zarr").snapshot(), tmp_path)
