"""Write docs/teachers.md, the conformance table of every built-in teacher: ``python docs/make_teachers.py``.

FeNNol is examined with the weights of ANI-1x in $MLFFSTORE_SHARED/models/ani1x (default ../shared). Orb's weights come from
the network; without --orb-weights its real architecture is examined with a seeded state dict, and the page says so.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlffstore as ml
from mlffstore.contracts.conformance import check, failed
from mlffstore.contracts.structures import default_samples

if TYPE_CHECKING:
    from mlffstore.contracts.examination import Check

HEAD = """# The teachers, examined

This page is written by `python docs/make_teachers.py`; `mlffstore teachers check NAME` prints the same for any teacher, with your
weights on your machine. The structures are rattled molecules and strained, rattled crystals, those of them that the teacher can label.

A figure is the largest deviation found; in brackets the largest that passes, which follows from the precision in which the
teacher computes (`mlffstore.contracts.conformance.check` says how). **Figures without brackets are reported, not judged**: where forces
are a head of their own they are no gradient of the energy and need not turn with the structure. An empty field means that
the question does not apply.
"""
ORB = """Orb here is the package's real architecture with a **random, seeded state dict**, since its weights come from a network:
what the table shows for it is that graphs, batching, units and order of labels are right. How far Orb-v2's forces are from
the gradient of its energy is a property of its weights: run `mlffstore teachers check orb-v2` where they can be fetched.
What fails for Orb-v3 with random weights fails in the package's own calls in float64 too: its energy is not exactly the sum
of those of two molecules 15 to 100 angstrom apart, and with at most 20 neighbours the energy jumps when a neighbour
changes, which a strain does.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orb-weights", help="state dict of Orb-v2")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    ani = sorted((Path(os.environ.get("MLFFSTORE_SHARED", "../shared")) / "models" / "ani1x").glob("*.fnx"))
    columns: dict[str, tuple[Any, list[Check]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        teachers = {
            "emt": ml.get_teacher("emt"),
            "gfn2-xtb": ml.get_teacher("gfn2-xtb"),
            "gfn1-xtb": ml.get_teacher("gfn1-xtb"),
            "chgnet": ml.get_teacher("chgnet"),
            "sevennet-0": ml.get_teacher("sevennet-0"),
            "fennol, ANI-1x": ml.get_teacher("fennol", weights=ani[0], name="ani1x", licence="MIT"),
            "fennol, 3 x ANI-1x": ml.get_teacher("fennol", weights=ani, name="ani1x", licence="MIT"),
            "orb-v2": ml.get_teacher("orb-v2", weights=args.orb_weights or seeded(folder, "orb_v2")),
            "orb-v3-conservative-inf-omat": ml.get_teacher(
                "orb-v3-conservative-inf-omat", weights=seeded(folder, "orb_v3_conservative_inf_omat")
            ),
            "orb-v3-conservative-20-omat": ml.get_teacher(
                "orb-v3-conservative-20-omat", weights=seeded(folder, "orb_v3_conservative_20_omat")
            ),
            "orb-v3-direct-20-omat": ml.get_teacher(
                "orb-v3-direct-20-omat", weights=seeded(folder, "orb_v3_direct_20_omat")
            ),
        }
        for name, teacher in teachers.items():
            columns[name] = (teacher.info, check(teacher))
            print(f"{name}: {len(failed(columns[name][1]))} of {len(columns[name][1])} failed", flush=True)
            for one in failed(columns[name][1]):
                print(f"    {one}")
    target = Path(__file__).parent / "teachers.md"
    target.write_text(page(columns))
    print(f"wrote {target}")


def seeded(folder: str, model: str) -> Path:
    """Save a random state dict of a model of orb-models, the same at every call, and return its path."""
    import torch
    from orb_models.forcefield import pretrained

    torch.manual_seed(0)
    path = Path(folder) / f"{model}.ckpt"
    architecture = getattr(pretrained, f"{model.replace('_20_omat', '').replace('_inf_omat', '')}_architecture")
    if model.endswith("_20_omat"):
        from orb_models.forcefield.atomic_system import SystemConfig

        made = architecture(device="cpu", system_config=SystemConfig(radius=6.0, max_num_neighbors=20))
    else:
        made = architecture(device="cpu")
    torch.save(made.state_dict(), path)
    return path


def page(columns: dict[str, tuple[Any, list[Check]]]) -> str:
    """Return the page."""
    out = [
        HEAD,
        "| teacher | labels | of | precision | forces | licence | structures | failed |\n|---|---|---|---|---|---|---|---|",
    ]
    for name, (info, checks) in columns.items():
        domains = " and ".join({"molecule": "molecules", "periodic": "crystals"}[one] for one in sorted(info.domains))
        elements = (
            "all elements" if info.elements is None or len(info.elements) > 100 else f"{len(info.elements)} elements"
        )
        out[-1] += (
            f"\n| {name} | {', '.join(info.properties)} | {domains} of {elements} | {info.precision} | "
            f"{'gradient' if info.conservative else 'a head of their own'} | {info.licence} | "
            f"{len(default_samples(info))} | {len(failed(checks))} of {len(checks)} |"
        )
    out[-1] += "\n"
    out.append(ORB)
    rows: dict[str, str] = {
        one.name: one.unit for _, checks in columns.values() for one in checks if not math.isnan(one.figure)
    }
    units = {"eV/angstrom": "eV/Å", "eV/angstrom^3": "eV/Å³"}
    out.append("## Figures\n")
    table = [f"| check | unit | {' | '.join(columns)} |", "|---|---|" + "---|" * len(columns)]
    for row, unit in rows.items():
        fields = []
        for _, checks in columns.values():
            found = next((one for one in checks if one.name == row), None)
            fields.append("" if found is None or math.isnan(found.figure) else _figure(found))
        shown = "" if unit.startswith("of ") else units.get(unit, unit)
        table.append(f"| {row} | {shown} | {' | '.join(fields)} |")
    out.append("\n".join(table) + "\n")
    versions = [f"- {name}: {info.fingerprint}; {_software(info)}" for name, (info, _) in columns.items()]
    out.append("## Versions\n\n" + "\n".join(versions))
    return "\n".join(out) + "\n"


def _figure(one: Check) -> str:
    figure = f"{one.figure:.1e}" if one.figure and (one.figure < 0.01 or one.figure > 1e4) else f"{one.figure:.3g}"
    if one.passed is None:
        return figure
    limit = f"{one.limit:.1e}" if one.limit and one.limit < 0.01 else f"{one.limit:.3g}"
    return f"{figure} ({limit})" if one.passed else f"**FAILED: {figure} ({limit})**"


def _software(info: Any) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(info.software.items()))


if __name__ == "__main__":
    main()
