"""docs/reference/formats.md says what the round trips say."""

from __future__ import annotations

import pytest

from docs import make_formats


@pytest.mark.parametrize("name", make_formats.FORMATS)
def test_the_table_is_what_an_import_reports(name: str) -> None:
    for package, word in (("dpdata", "DeePMD"), ("pyarrow", "Parquet"), ("ijson", "JSON")):
        if word in name:
            pytest.importorskip(package)
    assert make_formats.row(name) in make_formats.PAGE.read_text(), "run python docs/make_formats.py"
