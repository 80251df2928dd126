"""`write_report`: the HTML page and the PDF of a snapshot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlffstore.errors import DataError, missing_dependency
from mlffstore.runtime.paths import local_path

if TYPE_CHECKING:
    import os

    from mlffstore.contracts.protocols import Teacher
    from mlffstore.store.samples import Samples


def write_report(
    snapshot: Samples,
    folder: str | os.PathLike[str],
    *,
    title: str | None = None,
    policy: Any = None,
    teacher: Teacher | None = None,
    provenance: list[dict[str, Any]] | None = None,
    diversity: bool = False,
    seed: int = 0,
) -> tuple[Path, Path]:
    """Write ``report.html`` and ``report.pdf``.

    Parameters
    ----------
    snapshot : Samples
    folder : path
        The folder of the report. It is created if it does not exist; an older report in it is replaced.
    title : str, optional
        Title of the report; the name of the store by default.
    policy, teacher
        As for `mlffstore.validate`.
    provenance : list of dict, optional
        Records that the report shows, as `Store.provenance` returns them.
    diversity : bool, optional
        Whether the diversity score is computed (extra ``diversity``), which takes about a minute.
    seed : int, optional
        Seed of the choice of structures that are shown.

    Returns
    -------
    html, pdf : Path

    Notes
    -----
    The HTML is one file that works offline. If Chromium is installed, the PDF is the same page, printed by it; otherwise
    matplotlib draws tables, charts and pictures. The environment variable ``MLFFSTORE_BROWSER`` names another Chromium, or
    is empty for none.

    Raises
    ------
    MissingDependencyError
        If there is neither Chromium nor matplotlib.
    DataError
        If the snapshot has no samples.
    """
    from importlib.util import find_spec

    from mlffstore.analysis.report.browser import find_browser, print_page

    browser = find_browser()
    if browser is None and find_spec("matplotlib") is None:
        raise missing_dependency("matplotlib", "report", "the PDF of the report")
    if not len(snapshot):
        raise DataError(f"{snapshot.url}: expected at least one sample to report on, got an empty store")
    from mlffstore.analysis.report.contents import gather
    from mlffstore.analysis.report.page import page

    name = title or Path(snapshot.url.rstrip("/")).stem
    contents = gather(
        snapshot, provenance or [], title=name, policy=policy, teacher=teacher, seed=seed, diversity=diversity
    )
    target = local_path(folder)
    target.mkdir(parents=True, exist_ok=True)
    html, pdf = target / "report.html", target / "report.pdf"
    html.write_text(page(contents), encoding="utf-8")
    if browser is None or not print_page(browser, html, pdf):
        from mlffstore.analysis.report.printed import write_pdf

        write_pdf(contents, pdf)
    return html, pdf
