"""Fixtures for the tests of training."""

from __future__ import annotations

import pytest


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Return an empty cache folder of this test's own."""
    monkeypatch.setenv("MLFFSTORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
