"""The page of the report, used in a browser: nothing fails, nothing is fetched, clicks and filters lead to structures."""

from __future__ import annotations

import re
import shutil
import time

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

import mlffstore as ml
from mlffstore.analysis.report import write_report

HOSTILE = "d_min </script><img src=x onerror=\"document.title='run'\">"


@pytest.fixture(scope="module")
def report(clean, tmp_path_factory):
    """A report with rejected samples, duplicates, leakage, and samples that two teachers labelled."""
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("report")
    store = ml.create(folder / "d.zarr")
    batch = ml.open(clean).snapshot().read(slice(0, 90), teacher="emt").with_source("<b>bulk</b>", "strain-rattle")
    labels = batch.labels["emt"]
    shaken = labels["forces"] + np.random.default_rng(0).normal(0, 0.1, labels["forces"].shape)
    twice = batch.with_labels("other", energy=labels["energy"] + 5, forces=shaken)
    reasons = ["|F| above 50 <eV/A>"] * 2 + [HOSTILE]
    store.commit(twice, rejected=batch.structures().take([0, 1, 2]), reasons=reasons)
    store.append(ml.open(clean).snapshot().read(slice(168, None), teacher="gfn2-xtb"))
    store.append(batch.take(range(4)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFFSTORE_BROWSER", "")
        html, _ = write_report(store.snapshot(), folder / "out", title="A <test> & more", provenance=store.provenance())
    return html


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
        "--headless", "--no-sandbox", "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", "--disable-dev-shm-usage", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
        "--window-size=1200,900",
    ):  # fmt: skip
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driven = webdriver.Chrome(options=options, service=Service(driver))
    yield driven
    driven.quit()


@pytest.fixture
def page(report, browser):
    """The report, freshly loaded; the browser has nothing to complain of at the end."""
    browser.get("about:blank")
    browser.get(report.as_uri())
    browser.get_log("browser")
    yield browser
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


def find(page, selector):
    from selenium.webdriver.common.by import By

    return page.find_elements(By.CSS_SELECTOR, selector)


def press(page, selector):
    page.execute_script("arguments[0].click()", find(page, selector)[0])


def wait(page, script):
    for _ in range(100):
        if page.execute_script(f"return {script}"):
            return
        time.sleep(0.1)
    raise AssertionError(f"expected to become true within 10 s: {script}")


def count(page):
    return int(re.match(r"[\d,]+", find(page, ".count")[0].text)[0].replace(",", ""))


def test_it_loads_without_a_complaint_and_fetches_nothing(report, browser):
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get(report.as_uri())
    browser.execute_script("dispatchEvent(new Event('beforeprint')); dispatchEvent(new Event('afterprint'))")
    assert browser.get_log("browser") == []
    assert browser.title == "A <test> & more"
    assert browser.execute_script("return document.querySelectorAll('img').length") == 0
    assert HOSTILE in find(browser, "#quarantine")[0].text
    fetched = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in fetched if not name.startswith(("data:", "blob:"))] == []
    figures = find(browser, "figure .main-svg")
    assert len(figures) > 15
    for name in ("map", "parity-emt-other", "n_atoms", "spread"):
        drawn = f"#chart-{name} .points path, #chart-{name} .point path"
        assert len(find(browser, drawn)) > 5, name
    assert not browser.execute_script(
        "return [...document.querySelectorAll('.modebar-btn')].some(b => /share|cloud/i.test(b.dataset.title))"
    )
    assert len(find(browser, ".worst .card")) == 12


def test_a_click_opens_a_structure_with_its_labels_and_forces(page):
    press(page, ".rows tbody tr")
    wait(page, "document.querySelector('dialog').open && document.querySelector('dialog canvas')")
    text = find(page, "dialog")[0].text
    assert "emt" in text
    assert "<b>bulk</b>" in text
    assert "The longest arrow is" in text
    assert "2 more listed with the same structure" in text  # one that was appended, and a rejected one
    blank = "document.querySelector('dialog canvas').toDataURL().length"
    before = page.execute_script(f"return {blank}")
    press(page, "#show-images")
    assert page.execute_script(f"return {blank}") != before
    first = find(page, "dialog h2")[0].text
    press(page, "dialog [aria-label=next]")
    assert find(page, "dialog h2")[0].text != first
    page.set_window_size(400, 400)  # drawn without a GPU, a large picture takes a second
    for _ in range(20):  # one context of WebGL serves them all
        press(page, "dialog [aria-label=next]")
    page.set_window_size(1200, 900)
    press(page, "dialog [aria-label=close]")
    assert not page.execute_script("return document.querySelector('dialog').open")


def test_filters_filter_and_columns_sort(page):
    every = count(page)
    search = find(page, "#search")[0]
    search.send_keys("C6H6")
    shown = {cell.text for cell in find(page, ".rows tbody td:nth-child(3)")}
    assert shown == {"C6H6"}
    assert count(page) == 4
    search.clear()
    search.send_keys(" ")
    press(page, ".chip")
    assert count(page) == every
    heading = next(one for one in find(page, ".rows th button") if one.text.startswith("largest |F|, emt"))
    page.execute_script("arguments[0].click()", heading)
    values = page.execute_script(
        "return report.state.rows.map(row => report.columns.get('force_max:emt').values[row]).filter(x => x !== null)"
    )
    assert values == sorted(values, reverse=True)


def test_numbers_of_the_tables_lead_to_their_samples(page):
    for section, name in (("#quarantine", HOSTILE), ("#quarantine", "|F| above 50 <eV/A>")):
        line = next(row for row in find(page, f"{section} tbody tr") if name in row.text)
        expected = int(line.text.removeprefix(name))
        page.execute_script("arguments[0].querySelector('.go').click()", line)
        assert count(page) == expected
        assert len(find(page, ".rows tbody tr.odd")) == expected
    line = next(row for row in find(page, "#duplicates-and-leakage tbody tr") if row.text.startswith("duplicate"))
    page.execute_script("arguments[0].querySelector('.go').click()", line)
    assert count(page) == 4
    page.execute_script(
        "[...document.querySelectorAll('.elements button')].find(b => b.textContent.startsWith('Cu')).click()"
    )
    assert {("Cu" in row.text) for row in find(page, ".rows tbody tr")} == {True}


def test_charts_lead_to_structures(page):
    page.execute_script("document.getElementById('chart-n_atoms').scrollIntoView()")
    wait(page, "document.querySelector('#chart-n_atoms .point path')")
    counted = page.execute_script(
        "const plot = document.querySelector('#chart-n_atoms .plot');"
        "const y = plot.data.map(trace => trace.y), i = y[0].findIndex((_, k) => y.some(one => one[k]));"
        "plot.emit('plotly_click', {points: [{customdata: [i]}]}); return y.reduce((sum, one) => sum + one[i], 0)"
    )
    assert count(page) == counted > 0
    page.execute_script("document.getElementById('chart-map').scrollIntoView()")
    wait(page, "document.querySelector('#chart-map .points path')")
    page.execute_script(
        "const plot = document.querySelector('#chart-map .plot');"
        "plot.emit('plotly_selected', {points: plot.data[0].customdata.slice(0, 7).map(row => ({customdata: row}))})"
    )
    assert count(page) == 7
    page.execute_script(
        "const plot = document.querySelector('#chart-map .plot');"
        "plot.emit('plotly_click', {points: [{customdata: plot.data[0].customdata[3]}]})"
    )
    assert page.execute_script("return document.querySelector('dialog').open")


def test_without_webgl_there_is_a_flat_picture(page):
    page.execute_script("HTMLCanvasElement.prototype.getContext = () => null")
    press(page, ".rows tbody tr")
    assert len(find(page, "dialog .view circle")) > 1
    assert "no WebGL" in find(page, "dialog")[0].text


def test_structures_without_labels_and_without_positions(browser, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFFSTORE_BROWSER", "")
    broken, slab = molecule("CH4"), bulk("Cu", cubic=True)
    broken.positions[2] = np.nan
    slab.pbc = [True, True, False]
    store = ml.create(tmp_path / "d.zarr")
    rejected = ml.SampleBatch.from_ase([broken])
    store.commit(ml.SampleBatch.from_ase([slab, Atoms("He")]), rejected=rejected, reasons=["not finite"], require=())
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get(write_report(store.snapshot(), tmp_path)[0].as_uri())
    press(browser, "#quarantine .go")
    press(browser, ".rows tbody tr")
    text = find(browser, "dialog")[0].text
    assert "not finite" in text
    assert "1 atom has no finite position" in text
    for row in range(3):
        browser.execute_script(f"viewer.open({row})")
    assert browser.get_log("browser") == []


def test_it_fits_a_phone_in_the_dark(report, browser):
    metrics = {"width": 375, "height": 700, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    browser.get("about:blank")
    browser.get(report.as_uri())
    wait(browser, "document.querySelector('.rows tbody tr')")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 375
    browser.execute_script("document.getElementById('chart-n_atoms').scrollIntoView()")
    wait(browser, "document.querySelector('#chart-n_atoms .xtick text')")
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    ink = browser.execute_script("return getComputedStyle(document.querySelector('#chart-n_atoms .xtick text')).fill")
    brightness = [sum(int(x) for x in re.findall(r"\d+", colour)[:3]) for colour in (paper, ink)]
    assert brightness[0] < 120 < 500 < brightness[1]
    press(browser, ".rows tbody tr")
    wait(browser, "document.querySelector('dialog canvas')")
    assert browser.execute_script("return document.querySelector('dialog').scrollWidth") <= 375
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
