"""The documentation is true: its Python runs, its links lead somewhere, its reference of the command line is current."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import mlffstore as ml

ROOT = Path(__file__).parents[2]
# The card of a release belongs to its files, which are not kept here; tests of the exporter run its code.
OURS = [page for page in (ROOT / "docs").rglob("*.md") if page.name != "card.md"]
PAGES = sorted([*OURS, ROOT / "README.md"])
KINDS = ("generator", "teacher", "exporter")
RUN = [page for page in PAGES if "```python" in page.read_text() and page.name != "quickstart.md"]


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_python_of_a_page_runs(page, tmp_path, monkeypatch):
    """All blocks of a page, one after another, as one script in an empty folder.

    Only pages that start processes get an interpreter of their own, which takes seconds to import everything.
    """
    script = tmp_path / "page.py"
    script.write_text("\n\n".join(blocks(page)))
    if '__name__ == "__main__"' in script.read_text():
        done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    else:
        monkeypatch.chdir(tmp_path)
        runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_page_is_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text()
    for page in OURS:
        assert page.relative_to(ROOT / "docs").as_posix() in menu


def reference(page: str) -> list[str]:
    """Return the names that a page of the reference lists."""
    return re.findall(r"^::: (\S+)$", (ROOT / "docs" / "reference" / page).read_text(), re.MULTILINE)


def test_every_public_name_is_listed_once():
    public, plugins, internal = (reference(page) for page in ("python.md", "plugins.md", "internal.md"))
    listed = [*public, *plugins, *internal]
    assert [name for name in listed if listed.count(name) > 1] == []
    missing = {f"mlffstore.{name}" for name in ml.__all__ if name != "__version__"} - set(public)
    assert missing == set()


def test_every_package_is_in_the_internal_reference():
    packages = [ROOT / name for name in ("mlffstore", *(f"{kind}s/mlffstore_{kind}s" for kind in KINDS))]
    found = {
        ".".join(path.parent.relative_to(package.parent).parts)
        for package in packages
        for path in package.rglob("__init__.py")
    }
    assert set(reference("internal.md")) == found - {
        "mlffstore",
        "mlffstore.analysis",
    }  # these have no modules of their own


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/explanation/architecture.md"])
def test_files_that_a_page_names_exist(page):
    folders = ("mlffstore", "generators", "teachers", "exporters", "tests", "docs")
    files = [path.relative_to(ROOT).as_posix() for folder in folders for path in (ROOT / folder).rglob("*")]
    files += [path.name for path in ROOT.iterdir()]
    for name in re.findall(r"`([\w./-]+\.(?:py|yaml|md|toml))`", (ROOT / page).read_text()):
        assert any(f"/{file}".endswith(f"/{name}") for file in files), name


@pytest.mark.parametrize("name", ["cli", "recipe"])
def test_the_generated_reference_is_current(name):
    script = f"make_{name}_reference.py"
    page = runpy.run_path(str(ROOT / "docs" / script))["page"]()
    assert (ROOT / "docs" / "reference" / f"{name}.md").read_text() == page, f"run: python docs/{script}"


def test_every_key_and_option_of_a_recipe_has_a_meaning():
    rows = re.findall(r"^\| `.*\|$", (ROOT / "docs" / "reference" / "recipe.md").read_text(), re.MULTILINE)
    assert len(rows) > 100
    assert [row for row in rows if row.split("|")[-2].strip() == ""] == []


def test_the_verbs_in_the_readme_exist():
    text = (ROOT / "README.md").read_text()
    page = (ROOT / "docs" / "reference" / "cli.md").read_text()
    verbs = re.search(r"The command line: (.*?)\. Start", text, re.DOTALL)[1]
    for verb in re.findall(r"`(?:mlffstore )?([a-z-]+)", verbs):
        assert f"## {verb}\n" in page


def test_the_messages_on_the_page_of_questions_exist():
    """Quoted as the code has them, but for numbers."""
    source = "".join(path.read_text() for path in (ROOT / "mlffstore").rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)
    page = (ROOT / "docs" / "reference" / "questions.md").read_text()
    quoted = re.findall(r"^\*\*`([a-z][^`]+)`", page, re.MULTILINE)
    assert len(quoted) >= 4
    for message in quoted:
        assert all(part in source for part in re.split(r"\d+ ", message)), message
