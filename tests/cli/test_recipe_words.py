"""What is wrong with a recipe is told in words, with the line and the nearest right key."""

from __future__ import annotations

import pytest

from mlffstore.errors import RecipeError
from mlffstore.pipeline.campaign import load_active_recipe
from mlffstore.pipeline.recipe import load_recipe
from tests.command import cli

RECIPE = """\
name: small
store: d.zarr
precision: float32
checks:
  force_max: 30
parts:
  - name: metals
    generator: crystals
    teacher: emt
    samples: 8
"""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("samples: 8", "sampels: 8", "line 10: parts[0] (metals).sampels: unknown key; did you mean 'samples'?"),
        ("samples: 8", "sampels: 8", "line 7: parts[0] (metals).samples: missing (Samples wanted."),
        ("samples: 8", "samples: many", "line 10: parts[0] (metals).samples: expected a whole number, got 'many'"),
        ("samples: 8", "samples: 1.5", "expected a whole number, got 1.5"),
        ("samples: 8", "samples: 0", "expected more than 0, got 0"),
        ("samples: 8", "samples: yes", "expected a value, got true"),
        ("samples: 8", "samples: [1]", "expected a whole number, got a list of 1"),
        ("samples: 8", "samples:", "expected a whole number, got nothing"),
        ("samples: 8", f"samples: {'9' * 5000}", "samples"),
        ("samples: 8", "samples: 8\n    samples: 9", "line 11: parts[0] (metals).samples: this key occurs twice"),
        ("samples: 8", "samples: 8\n    options: [1]", "parts[0] (metals).options: expected a mapping"),
        ("samples: 8", "samples: 8\n    options: {1: 2}", "options"),
        ("float32", "float23", "line 3: precision: expected 'float32' or 'float64', got 'float23'; did you mean 'float32'?"),
        ("name: small", "name: 2024", "line 1: name: expected text, got the number '2024'; put it in quotes"),
        ("name: small", "name: a b", "letters, digits"),
        ("force_max: 30", "force_max: -1", "line 5: checks.force_max: expected more than 0, got -1"),
        ("force_max: 30", "force_max: .nan", "checks.force_max: expected a finite number, got nan"),
        ("  force_max: 30", "  - 1", "checks: expected a mapping (NAME: VALUE lines), got a list of 1"),
        ("checks:", "check:", "line 4: check: unknown key; did you mean 'checks'?"),
        ("store: d.zarr\n", "", "store: missing (Path of the store"),
        ("parts:\n", "parts: 3\nx:\n", "parts: expected a list, got 3"),
        ("samples: 8", "samples: 8\n  - name: metals\n    generator: a\n    teacher: b\n    samples: 1", "different names"),
        ("name: small", "name: small\n1: 2", "line 2: 1: unknown key"),
        ("name: small", "name: small\n2026-13-45: 2", ""),
        ("name: small", "name: &a [*a]", "contains itself"),
        ("force_max: 30", "elements: [Cu, Xx]", "line 5: checks.elements: expected symbols of elements"),
        ("force_max: 30", "elements: [X]", "checks.elements: expected symbols of elements"),
        ("force_max: 30", "elements: [cu]", "checks.elements: expected symbols of elements"),
        ("force_max: 30", "elements: []", "checks.elements: expected symbols of elements, such as [H, C, O], got none"),
        ("force_max: 30", "n_atoms: [60, 2]", "line 5: checks.n_atoms: expected the fewest atoms and then the most"),
        ("force_max: 30", "n_atoms: [-5, 0]", "checks.n_atoms: expected the fewest atoms and then the most"),
        ("precision: float32", "release: {version: '1.0'}", "release.version: expected a semantic version such as"),
        ("precision: float32", "release: {version: 1.0.0+x}", "release.version: expected a semantic version"),
    ],
)  # fmt: skip
def test_problems(tmp_path, old, new, words):
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE.replace(old, new))
    assert old in RECIPE
    done = cli("run", path, code=3)
    assert words in done.stderr
    assert "pydantic" not in done.stderr
    assert not (tmp_path / "d.zarr").exists()


@pytest.mark.parametrize("old", ["samples: 8", "name: metals", "teacher: emt", "generator: crystals"])
def test_a_fault_in_a_part_is_told_once(tmp_path, old):
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE.replace(old, old.partition(":")[0] + ": -4"))
    told = [line for line in cli("run", path, code=3).stderr.splitlines() if "line" in line]
    assert len(told) == 1
    assert "parts[0]" in told[0]
    path.write_text(RECIPE.partition("parts:")[0] + "parts: []\n")
    assert "parts: expected at least 1, got 0" in cli("run", path, code=3).stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "expected a mapping with name, store, parts, got nothing"),
        (b"- 1", "got a list of 1"),
        (b"hello", "got the text 'hello'"),
        (b"\xff\xfe\x00", "no UTF-8 text"),
        (b"a: [", "syntax error"),
        (b"a: 2026-13-45", "syntax error"),
        (b"[" * 1000, "nested too deeply"),
        (
            b"a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
            + b"".join(b"%c: &%c [%s]\n" % (k + 1, k + 1, b", ".join([b"*%c" % k] * 10)) for k in b"abcdefgh"),
            "at most 1,000,000 values",
        ),
        (b"!!python/object:os.system {}", "syntax error"),
    ],
)
def test_files_that_are_no_recipe(tmp_path, content, words):
    (tmp_path / "r.yaml").write_bytes(content)
    with pytest.raises(RecipeError, match=words):
        load_recipe(tmp_path / "r.yaml")
    assert words in cli("active", tmp_path / "r.yaml", code=3).stderr.replace(
        "name, store, pool, committee, teacher", "name, store, parts"
    )


def test_a_right_recipe(tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE)
    assert load_recipe(tmp_path / "r.yaml").parts[0].samples == 8


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("crystals", "crystal", "did you mean 'crystals'"),
        ("emt", "emd", "part 'metals': teacher: expected one of"),
        ("samples: 8", "samples: 8\n    options: {max_atom: 3}", "unknown option 'max_atom'; did you mean 'max_atoms'"),
        ("samples: 8", "samples: 8\n    options: {max_atoms: many}", "crystals"),
        (
            "samples: 8",
            "samples: 8\n    teacher_options: {a: 3}",
            "teacher 'emt': unknown option 'a' (it has no options)",
        ),
        (
            "generator: crystals",
            "generator: rattle\n    options: {frames: -4}",
            "expected 1 to 40 frames of a seed, got -4",
        ),
        ("store: d.zarr", "store: d.zarr\nsplits: {train: 0.5, val: 0.1, test: 0.1}", "add up to 1"),
    ],
)
def test_plugins_and_their_options(tmp_path, monkeypatch, old, new, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE.replace(old, new))
    assert words in cli("run", "r.yaml", "-w", 1, code=3).stderr
    assert not (tmp_path / "d.zarr").exists()


def test_active_recipes(tmp_path):
    (tmp_path / "r.yaml").write_text(
        "name: a\nstore: d.zarr\npool: {generator: crystals}\ncommittee: [{teacher: emt}]\nteacher: emt\nwindow: [2, 1]\n"
    )
    with pytest.raises(RecipeError, match="line 4: committee: expected at least 2, got 1"):
        load_active_recipe(tmp_path / "r.yaml")
