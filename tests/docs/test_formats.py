"""docs/reference/formats.md says what the round trips say."""

from __future__ import annotations

import pytest

from docs import make_formats, round_trips


@pytest.mark.parametrize("name", make_formats.FORMATS)
def test_the_table_is_what_an_import_reports(name: str) -> None:
    for package, word in (("dpdata", "DeePMD"), ("pyarrow", "Parquet"), ("ijson", "JSON"), ("atompack", "atompack")):
        if word in name:
            pytest.importorskip(package)
    assert make_formats.row(name) in make_formats.PAGE.read_text(), "run python docs/make_formats.py"


@pytest.mark.parametrize("layout", round_trips.LAYOUTS)
def test_the_table_of_exports_is_what_comes_back(layout: str) -> None:
    package = {"parquet": "pyarrow", "aselmdb": "ase_db_backends", "atompack": "atompack"}.get(layout)
    if package is not None:
        pytest.importorskip(package)
    assert round_trips.row(layout) in make_formats.PAGE.read_text(), "run python docs/make_formats.py"
