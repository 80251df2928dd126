"""Descriptions of stores: the lines that `mlffstore info` prints and that a notebook shows."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, Protocol

from mlffstore.runtime.words import counted

if TYPE_CHECKING:
    from mlffstore.format.commit import Commit
    from mlffstore.store.snapshot import Snapshot


class Describable(Protocol):
    """What a description needs of a store."""

    @property
    def url(self) -> str:
        """Where the store is."""
        ...

    @property
    def tags(self) -> dict[str, int]:
        """Tags and the versions that they name."""
        ...

    settings: dict[str, Any]

    def snapshot(self) -> Snapshot:
        """Return the newest snapshot."""
        ...

    def history(self, last: int | None = None) -> list[Commit]:
        """Return the commits, oldest first."""
        ...


def human_bytes(n: int) -> str:
    """Return a number of bytes with a unit.

    Examples
    --------
    >>> human_bytes(532), human_bytes(1_500_000)
    ('532 B', '1.5 MB')
    """
    value = float(n)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def describe(store: Describable) -> dict[str, Any]:
    """Return the description of a store that `mlffstore info` shows, as plain types."""
    out = store.snapshot().summary()
    out["tags"] = store.tags
    out["splits"] = store.settings["splits"]
    out["last_commits"] = [
        {"version": c.version, "time": c.time, "operation": c.operation, "samples": c.n_samples, "key": c.key or c.note}
        for c in store.history(last=5)
    ]
    return out


def lines(about: dict[str, Any], *, show_all: bool = False) -> list[tuple[str, str]]:
    """Return the description of a store as pairs of a heading and a line of text; long lists are cut unless all is shown."""
    n = about["samples"]
    share = f" ({100 * about['periodic'] / n:.0f} %)" if n else ""
    elements = sorted(about["elements"], key=lambda symbol: -about["elements"][symbol])
    few = len(elements) if show_all else 24
    shown = " ".join(elements[:few]) + (f" and {len(elements) - few} more" if len(elements) > few else "")
    raw = f" ({human_bytes(about['nbytes_raw'])} uncompressed)" if about["nbytes"] else ""
    least, most = about["n_atoms_min"], about["n_atoms_max"]
    sizes = f", {least if least == most else f'{least} to {most}'} per sample" if n else ""
    out = [
        ("samples", f"{n:,}"),
        ("atoms", f"{about['atoms']:,}{sizes}"),
        ("periodic", f"{about['periodic']:,}{share}"),
        ("elements", f"{len(elements)}: {shown}" if elements else "none yet"),
        ("teachers", ", ".join(f"{teacher} ({count:,})" for teacher, count in about["teachers"].items()) or "none yet"),
        ("quarantined", f"{about['quarantined']:,}"),
        ("columns", f"{human_bytes(about['nbytes'])} in {counted(about['segments'], 'segment')}{raw}"),
        ("on disk", f"{human_bytes(about['nbytes_on_disk'])} with metadata, rejected samples and log"),
        ("precision", about["precision"]),
        ("version", str(about["version"])),
    ]
    if about.get("tags"):
        out.append(("tags", ", ".join(f"{name} = {version}" for name, version in about["tags"].items())))
    if about.get("splits"):
        out.append(("splits", ", ".join(f"{name} {100 * share:g} %" for name, share in about["splits"].items())))
    return out


def html_table(store: Describable) -> str:
    """Return the description of a store as an HTML table."""
    about = describe(store)
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th><td style='text-align:left'>{html.escape(text)}</td></tr>"
        for name, text in lines(about)
    )
    return f"<table><caption><b>mlffstore.Store</b> {html.escape(store.url)}</caption>{rows}</table>"
