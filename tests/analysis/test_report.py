"""The report, opened in a browser: figures are there, nothing is fetched, nothing fails, it fits a phone."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
from ase.build import bulk, molecule

import mlffstore as ml
from mlffstore.analysis.report import write_report
from mlffstore.analysis.report.page import place
from mlffstore.analysis.report.picture import layout, picture
from mlffstore.errors import DataError

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def report(clean, tmp_path_factory):
    """A report of a dataset with rejected samples and with samples that two teachers labelled."""
    folder = tmp_path_factory.mktemp("report")
    store = ml.create(folder / "d.zarr")
    batch = ml.open(clean).snapshot().read(slice(0, 90), teacher="emt")
    labels = batch.labels["emt"]
    shaken = labels["forces"] + np.random.default_rng(0).normal(0, 0.1, labels["forces"].shape)
    twice = batch.with_labels("other", energy=labels["energy"] + 5, forces=shaken)
    store.commit(twice, rejected=batch.structures().take([0, 1, 2]), reasons=["|F| above 50 <eV/A>"] * 2 + ["d_min"])
    store.append(ml.open(clean).snapshot().read(slice(168, None), teacher="gfn2-xtb"))
    return write_report(store.snapshot(), folder / "out", title="A <test> & more", provenance=store.provenance())


@pytest.fixture(scope="module")
def browser():
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
    if not driver or not chromium:
        pytest.skip("needs chromium and chromedriver (Debian's packages chromium and chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for word in (
        "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    ):  # fmt: skip
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(driver))
    yield found
    found.quit()


def test_a_browser_shows_it_without_a_complaint(report, browser):
    from selenium.webdriver.common.by import By

    html, _ = report
    browser.get(html.as_uri())
    assert browser.get_log("browser") == []
    assert browser.title == "A <test> & more"
    figures = browser.find_elements(By.CSS_SELECTOR, "figure svg")
    assert len(figures) > 15
    assert all(one.size["width"] > 200 and one.size["height"] > 100 for one in figures)
    for name in ("map-by-sampler", "disagreement", "parity", "size-by-split"):
        drawn = browser.find_elements(By.CSS_SELECTOR, f"#figure-{name} svg path, #figure-{name} svg image")
        assert len(drawn) > 5, name
    assert len(browser.find_elements(By.CSS_SELECTOR, ".gallery svg.structure circle")) > 500
    assert len(browser.find_elements(By.CSS_SELECTOR, ".worst .card")) == 10
    first = browser.find_elements(By.TAG_NAME, "section")[0]
    assert first.get_attribute("id") == "acceptance"
    text = browser.find_element(By.TAG_NAME, "body").text
    assert "|F| above 50 <eV/A>" in text
    assert "Cu" in browser.find_element(By.CSS_SELECTOR, ".elements").text
    fetched = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in fetched if not name.startswith("data:")] == []


def test_it_fits_a_phone_in_the_dark(report, browser):
    html, _ = report
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 375, "height": 700, "deviceScaleFactor": 2, "mobile": True}
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    browser.get(html.as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 375
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    ink = browser.execute_script("return getComputedStyle(document.querySelector('figure svg text')).fill")
    brightness = [sum(int(x) for x in re.findall(r"\d+", colour)[:3]) for colour in (paper, ink)]
    assert brightness[0] < 120 < 500 < brightness[1]


def test_the_same_report_has_the_same_bytes_and_a_pdf(report, clean, tmp_path):
    snapshot = ml.open(clean).snapshot()
    one = write_report(snapshot, tmp_path / "one")
    two = write_report(snapshot, tmp_path / "two")
    assert one[0].read_bytes() == two[0].read_bytes()
    assert report[1].read_bytes().startswith(b"%PDF-")
    assert report[1].stat().st_size > 50_000


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
