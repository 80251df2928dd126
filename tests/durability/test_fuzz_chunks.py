"""Hostile chunks with right checksums: decoding reads and writes no byte beyond them, and raises only our error."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("guard pages need mprotect of Linux", allow_module_level=True)


def decode(seed: int, number: int, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.durability.guarded", str(seed), str(number), *options]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize(("seed", "number"), [(0, 1000), pytest.param(1, 100_000, marks=pytest.mark.slow)])
def test_no_chunk_is_read_beyond_its_end(seed, number):
    done = decode(seed, number)
    assert done.returncode == 0, done.stderr[-5000:]
    outcome = json.loads(done.stdout)
    assert outcome["refused"] + outcome["decoded"] == number
    assert outcome["by the library"] > 0.3 * number, "the library is asked only about chunks that pass our checks"


def test_the_guard_pages_notice_a_missing_check():
    """The test above can fail: without our check of the header the library reads on behind the chunk."""
    assert decode(0, 1000, "--unchecked").returncode == -signal.SIGSEGV
