"""`mlffstore teachers` and `mlffstore generators`: what is installed."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from mlffstore.cli.output import AsJson, grid, out, print_json
from mlffstore.errors import MlffstoreError
from mlffstore.registry import available, get_generator, get_teacher

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def _first_line(point: EntryPoint) -> str:
    return (inspect.getdoc(point.load()) or "").split("\n")[0]


def teachers(as_json: AsJson = False) -> None:
    """List the teachers, what they label, and how to install what is missing."""
    found: list[dict[str, Any]] = []
    for name, point in available("teacher").items():
        try:
            about = get_teacher(name).info
            found.append({"name": name, "installed": True, "about": _first_line(point), **about.to_json()})
        except (MlffstoreError, ImportError) as error:
            found.append({"name": name, "installed": False, "about": str(error)})
    if as_json:
        print_json(found)
        return
    rows = [
        [
            one["name"],
            "yes" if one["installed"] else "no",
            ", ".join(one.get("domains", ())),
            ", ".join(one.get("properties", ())),
            str(len(one["elements"])) if one.get("elements") else "",
            one.get("licence", ""),
            one["about"],
        ]
        for one in found
    ]
    out.print(grid(["teacher", "installed", "domain", "labels", "elements", "licence", ""], rows))


def generators(as_json: AsJson = False) -> None:
    """List the generators and their options."""
    found: list[dict[str, Any]] = []
    for name, point in available("generator").items():
        try:
            options = get_generator(name).provenance().get("options", {})
            found.append({"name": name, "installed": True, "about": _first_line(point), "options": options})
        except (MlffstoreError, ImportError) as error:
            found.append({"name": name, "installed": False, "about": str(error), "options": {}})
    if as_json:
        print_json(found)
        return
    for one in found:
        out.print(f"[bold]{one['name']}[/bold]{'' if one['installed'] else ' (not installed)'}  {one['about']}")
        for option, value in one["options"].items():
            out.print(f"    {option} = {value}", markup=False)
