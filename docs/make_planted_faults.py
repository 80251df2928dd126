"""Write the table of planted faults in docs/explanation/validation.md: ``python docs/make_planted_faults.py``.

Needs the extras of the teachers gfn2-xtb and chgnet, and ../shared/data (or $MLFFSTORE_SHARED) for the imported set; a few
minutes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parent.parent))

import mlffstore as ml
from mlffstore.analysis.validation import recheck
from tests.planted import sets
from tests.planted.faults import FAULTS, found

PAGE = Path(__file__).parent / "explanation" / "validation.md"
BEGIN, END = "<!-- planted faults: begin (python docs/make_planted_faults.py) -->", "<!-- planted faults: end -->"
SHARED = Path(os.environ.get("MLFFSTORE_SHARED", "../shared"))
SAMPLES = 150
recheck.QUICK_ATOMS = 150  # a few samples of each teacher are enough for faults of all samples


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stores = {
            "molecules": sets.molecules(folder, SAMPLES // 3),
            "imported": imported(folder),
            "mixed": mixed(folder),
            "crystals": sets.crystals(folder),
        }
        data = {key: ml.open(path).snapshot().to_xarray().load().mlff.head(168) for key, path in stores.items()}
        clean = {key: ml.validate(ds).compute() for key, ds in data.items()}
        for key, one in clean.items():
            print(key, data[key].sizes["sample"], "ok" if one.ok else one.table())
        lines = ["| planted fault | molecules with roots | imported DFT without roots | mixed pipeline store | crystals with stress |",
                 "|---|---|---|---|---|"]  # fmt: skip
        for fault in FAULTS:
            cells = [cell(fault, data[key], clean[key]) for key in stores]
            lines.append(f"| {fault.text} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    text = PAGE.read_text(encoding="utf-8")
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    PAGE.write_text("\n".join([before, *lines, after]), encoding="utf-8")


def cell(fault, ds, clean) -> str:
    """Return how a fault was found in a set."""
    spoiled = fault.spoil(ds.copy(deep=True))
    if spoiled is None:
        return ""
    validation = ml.validate(spoiled)
    checks = found(validation, clean)
    named = [check for check in checks if check in fault.checks]
    if named:
        word = "" if not validation.ok else " (warning)"
        return f"`{named[0]}`{word}"
    if checks:
        return f"otherwise: `{next(iter(checks))}`{'' if not validation.ok else ' (warning)'}"
    validation = ml.validate(spoiled, teacher="at hand")
    return "only with a teacher" if not validation.ok else f"no: {fault.unseen}"


def imported(folder: Path) -> str:
    """Return DFT-labelled crystals, each of them its own root."""
    ml.import_files([SHARED / "data" / "mlearn_Li_training.extxyz"], folder / "imported.zarr")
    return str(folder / "imported.zarr")


def mixed(folder: Path) -> str:
    """Return molecules and crystals as a recipe makes them."""
    recipe = yaml.safe_load((Path(__file__).parent.parent / "recipes" / "quickstart.yaml").read_text(encoding="utf-8"))
    for part in recipe["parts"]:
        part["samples"] = 80
    recipe["store"] = str(folder / "mixed.zarr")
    del recipe["release"]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "mlffstore", "run", "--no-recheck", str(folder / "recipe.yaml")], check=True)
    return recipe["store"]


if __name__ == "__main__":
    main()
