"""A store or release that somebody else made may say anything: no verb prints control characters or lets markup act."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest

import mlffstore as ml
from mlffstore.errors import FormatError
from mlffstore.format.codec import crc32c
from tests.command import cli
from tests.samples import metal_frames

#: Clears the screen, sets the title, turns text around, breaks the line; markup of rich, HTML, and Markdown.
EVIL = (
    "x\x1b[2J\x1b]0;title\x07\u202e\r\n\x9b31m[red]b[/red][/]<script>alert(1)</script><img src=x onerror=alert(2)>&`|"
)
_ACTIVE = ("\x1b", "\x07", "\x9b", "\u202e", "\r", "\x00")


def forge(folder: Path, change) -> None:
    """Rewrite all entries of a log, as `change` does with each, with a right chain and right checksums."""
    parent = None
    for path in sorted((folder / "_log").glob("*.json")):
        document = json.loads(path.read_bytes())
        document.pop("crc32c")
        change(document)
        document["parent"] = parent
        head = json.dumps(document, separators=(",", ":"))[:-1].encode()
        data = head + b',"crc32c":%d}\n' % crc32c(head)
        path.write_bytes(data)
        parent = hashlib.sha256(data).hexdigest()[:32]
    shutil.rmtree(folder / "_checkpoint", ignore_errors=True)


def everything(document) -> None:
    """Put hostile text wherever an entry has free text."""
    if document["key"] is not None:
        document["key"] = EVIL + document["key"]
    document["time"] = "2026-01-01T00:00:00Z" + EVIL
    for name in ("tag", "reason"):
        if name in document:
            document[name] = EVIL
    for segment in [*document.get("segments", ()), *document.get("quarantine", ())]:
        segment["vocabulary"] = {name: [EVIL + word for word in words] for name, words in segment["vocabulary"].items()}
        for column in segment["columns"].values():
            column |= {name: EVIL for name in ("unit", "long_name") if name in column}
    for teacher in document.get("teachers", {}):
        document["teachers"][teacher] = {"fingerprint": EVIL, "model": EVIL, EVIL: EVIL}
    if "provenance" in document:
        document["provenance"] = {EVIL: EVIL, "part": EVIL, "recipe": {"name": EVIL}, "task": 1}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Return stores with a hostile log: everything at once, and one kind of text at a time."""
    folder = tmp_path_factory.mktemp("evil")
    store = ml.create(folder / "[red]d[/].zarr")
    store.append(metal_frames(12), teacher="emt", key="k", provenance={"a": 1})
    store.append(metal_frames(2, seed=3), teacher="emt", source="s", sampler="t")
    store.add_column("dose", [1.0] * 14)
    store.remove([1], reason="bad")
    store.tag("v1")
    out = []
    for name in ("all", "key", "time", "tag", "reason", "segments", "quarantine", "teachers", "provenance"):
        copy = Path(shutil.copytree(store.url, folder / f"[red]{name}[/].zarr"))

        def change(document, name=name):
            changed = json.loads(json.dumps(document))
            everything(changed)
            document |= {
                part: value for part, value in changed.items() if name == part or (name == "all" and part != "time")
            }

        forge(copy, change)
        out.append(copy)
    return out


VERBS = {
    "info": ("info", "STORE"),
    "log": ("log", "STORE", "--all"),
    "verify": ("verify", "STORE", "--full", "--all"),
    "validate": ("validate", "STORE"),
    "stats": ("stats", "STORE"),
    "report": ("report", "STORE", "--out", "OUT/report"),
    "export": ("export", "STORE", "--allow-failing", "--out", "OUT/release", "--name", "r", "--teacher", "emt"),
    "gc": ("gc", "STORE"),
    "compact": ("compact", "STORE"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_no_text_of_a_store_acts(stores, verb, tmp_path):
    said = ""
    for i, store in enumerate(stores[:1] if verb == "report" else stores):  # it takes ten seconds
        out = tmp_path / str(i)
        out.mkdir()
        arguments = [word.replace("STORE", str(store)).replace("OUT", str(out)) for word in VERBS[verb]]
        done = cli(*arguments, code=None)
        assert done.exit_code in (0, 1, 3), f"{store.name}: {done.stdout}{done.stderr}"
        said += done.stdout + done.stderr
        for file in out.rglob("*"):
            if file.suffix in (".html", ".md", ".txt", ".cff") or file.name == "SHA256SUMS":
                said += (text := re.sub(r"(?m)^```json$.*?^```$", "", file.read_text(), flags=re.DOTALL))
                assert not any(tag in text.lower() for tag in ("<script>alert", "<img src=x")), file
    assert not [character for character in _ACTIVE if character in said]


@pytest.mark.parametrize("verb", ["info", "log", "verify"])
def test_a_terminal_shows_markup_as_it_is(stores, verb, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for store in stores:
        done = cli(*[word.replace("STORE", str(store)) for word in VERBS[verb]], code=None)
        assert done.exit_code in (0, 1, 3)
        assert "\x1b[2J" not in done.stdout + done.stderr


def test_the_notebook_shows_a_store_as_text(stores):
    for store in stores:
        if "[red]time" in str(store):
            with pytest.raises(FormatError, match="time: unexpected value"):
                ml.open(store)
            continue
        opened = ml.open(store)
        for text in (opened._repr_html_(), opened.snapshot().to_xarray()._repr_html_()):
            assert "<script>alert" not in text
            assert "<img src=x" not in text
