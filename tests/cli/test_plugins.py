"""Plugins that break are listed as broken, and the others work; teachers under other names in the store."""

from __future__ import annotations

import json
import sys

import pytest

import mlffstore as ml
from mlffstore.errors import PluginError, RegistryError
from tests.command import cli
from tests.samples import metal_frames


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """Install a package whose plugins break in several ways."""
    folder = tmp_path / "site"
    about = folder / "badplugins-1.2.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: badplugins\nVersion: 1.2\n")
    names = {"syntax": "bad_syntax:A", "absent": "bad_absent:A", "raises": "bad_raises:A", "init": "bad_init:A",
             "no-name": "bad_init:B", "not-callable": "bad_init:C"}  # fmt: skip
    lines = [f"{name} = {target}" for name, target in names.items()]
    groups = ["mlffstore.teachers", "mlffstore.generators", "mlffstore.exporters"]
    (about / "entry_points.txt").write_text("\n".join(f"[{group}]\n" + "\n".join(lines) for group in groups))
    (folder / "bad_syntax.py").write_text("def (:\n")
    (folder / "bad_raises.py").write_text("1 / 0\n")
    (folder / "bad_init.py").write_text(
        "class A:\n    def __init__(self, size=1):\n        raise KeyError('[red]size[/red]')\nC = 3\n"
    )
    monkeypatch.syspath_prepend(folder)
    yield list(names)
    for module in ("bad_syntax", "bad_raises", "bad_init"):
        sys.modules.pop(module, None)


@pytest.mark.parametrize("verb", ["teachers", "generators"])
def test_plugins_that_break_are_listed_and_the_others_work(plugins, verb):
    found = {one["name"]: one for one in json.loads(cli(verb, "--json").stdout)}
    for name in plugins:
        assert found[name]["state"] == "broken"
        assert not found[name]["installed"]
    assert found["emt" if verb == "teachers" else "crystals"]["state"] == "installed"
    text = cli(verb).stdout
    assert "ZeroDivisionError" in text
    assert "badplugins 1.2" in text
    assert "[red]size[/red]" in text


@pytest.mark.parametrize("make", [ml.get_teacher, ml.get_generator])
def test_errors_of_broken_plugins(plugins, make):
    with pytest.raises(PluginError, match=r"of the package badplugins 1\.2 is broken: bad_absent:A cannot be imported"):
        make("absent")
    with pytest.raises(PluginError, match="cannot be made with size=2: KeyError"):
        make("init", size=2)
    with pytest.raises(PluginError, match="cannot be made with its defaults"):
        make("not-callable")
    with pytest.raises(RegistryError, match="unknown option 'sice'; did you mean 'size'"):
        make("init", sice=2)
    assert ml.get_teacher("emt").info.name == "emt"


def test_a_broken_plugin_ends_its_verb_in_words(plugins, tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(2), teacher="emt")
    assert "is broken" in cli("label", store.url, "-t", "syntax", code=3).stderr
    assert "is broken" in cli("export", store.url, "-f", "raises", code=3).stderr


def test_labels_under_another_name_are_validated_with_their_teacher(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(6), teacher="mine")
    assert (
        "expected a teacher whose labels are in the store (mine)"
        in cli("validate", store.url, "-t", "emt", code=2).stderr
    )
    assert cli("validate", store.url, "--teacher", "emt=mine").exit_code == 0
    wrong = metal_frames(6)
    for atoms in wrong:
        atoms.calc.results["energy"] += 1.0
    store.append(wrong, teacher="shifted")
    document = json.loads(cli("validate", store.url, "--teacher", "emt=shifted", "--json", code=None).stdout)
    assert "teacher_energy" in {one["check"] for one in document["findings"]}


def test_label_takes_options(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(2), teacher="other")
    arguments = ("label", store.url, "-t", "ase:ase.calculators.emt:EMT", "-O", "name=mine", "-O", "asap-cutoff=true")
    assert "2 samples by mine, in 1 commit" in cli(*arguments).stdout
