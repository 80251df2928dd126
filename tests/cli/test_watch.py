"""Watching a run: the panel of a real terminal, and lines of JSON."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys

import pytest
import yaml
from typer.testing import CliRunner

import mlffstore as ml
from mlffstore.cli.app import app


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"elements": ["Cu", "Al", "Ni", "Pd", "Ag", "Au", "Pt"], "elemental": 1.0, "max_atoms": 20}
    part = {"generator": "crystals", "options": options, "teacher": "emt", "samples": 12, "samples_per_task": 4}
    document = {"name": "watched", "store": "w.zarr", "parts": [{"name": "one", **part}, {"name": "two", **part}]}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(document))
    return str(tmp_path / "r.yaml")


def test_each_line_is_an_event(recipe):
    done = CliRunner().invoke(app, ["run", recipe, "--workers", "1", "--json-lines", "--no-recheck"])
    assert done.exit_code == 0, done.output
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == ["start", *["task"] * (len(events) - 2), "end"]
    tasks = events[1:-1]
    assert events[0]["tasks"] == 6
    assert sum(event["accepted"] for event in tasks) == events[-1]["accepted"] == len(ml.open("w.zarr")) == 24
    assert [event["tasks_done"] for event in tasks] == list(range(1, len(tasks) + 1))
    assert tasks[-1]["samples"] == 24
    assert all(event["calls"]["EMT"] >= event["accepted"] for event in tasks if "EMT" in event["calls"])
    assert {event["part"] for event in tasks} == {"one", "two"}
    again = CliRunner().invoke(app, ["run", recipe, "--workers", "1", "--json-lines", "--no-recheck"])
    first, last = (json.loads(line) for line in again.stdout.splitlines())
    assert first["done_before"] == 6
    assert last["accepted"] == 0


def test_a_terminal_has_a_panel(recipe):
    """It shows every part with what is kept and wanted, and leaves the terminal as it was."""
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    command = [sys.executable, "-m", "mlffstore", "run", recipe, "--workers", "1", "--no-recheck"]
    process = subprocess.Popen(command, stderr=slave, stdout=subprocess.DEVNULL, env=environment)
    os.close(slave)
    seen = b""
    while True:
        try:
            part = os.read(master, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        seen += part
    assert process.wait() == 0
    text = seen.decode()
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text[text.rindex("watched: w.zarr") :])
    assert re.search(r"\d+/\d+ tasks, [\d.]+ samples/s, .* left, 1 process; store ", last)
    for name in ("one", "two"):
        assert re.search(rf"{name} +12 +12 +\d+", last), last
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is visible again"
