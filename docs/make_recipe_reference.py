"""Write docs/reference/recipe.md from the models of recipes and the docstrings of plugins: ``python docs/make_recipe_reference.py``."""

from __future__ import annotations

import inspect
import json
import re
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from mlffstore.contracts.registry import available, load
from mlffstore.pipeline.campaign import ActiveRecipe
from mlffstore.pipeline.recipe import Recipe
from mlffstore_generators.seeds import known, seeds_class

HEAD = """# Recipes, every key

`mlffstore run RECIPE` makes what [a recipe](#a-recipe) says, `mlffstore active RECIPE` follows
[a campaign of active learning](#a-campaign). Both are YAML. A key that does not exist is an error that names the line and the
nearest right key. `docs/how_to/generate.md` says which sampler and which seeds serve for what.
"""


def models(annotation: Any) -> list[type[BaseModel]]:
    """Return the models that an annotation contains."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in models(part)]


def kind(annotation: Any) -> str:
    """Return a type in the words of YAML."""
    arguments = [part for part in typing.get_args(annotation) if part is not type(None)]
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is typing.Annotated:
        return kind(arguments[0])
    if origin is tuple:
        inside = models(annotation)
        if inside:
            return "list of mappings"
        return f"list of {kind(arguments[0])}s" if arguments[1] is ... else f"[{', '.join(kind(a) for a in arguments)}]"
    if origin is dict or models(annotation) == [annotation]:
        return "mapping"
    if origin is not None:
        return " or ".join(kind(part) for part in arguments)
    return {str: "text", int: "integer", float: "number", Any: "any"}.get(annotation, str(annotation))


def default(field: Any) -> str:
    """Return the default of a key."""
    if field.default_factory is not None:
        return f"`{json.dumps(field.default_factory())}`"
    if field.default is PydanticUndefined:
        return "required"
    if isinstance(field.default, BaseModel):
        return "see below"
    return "none" if field.default is None else f"`{json.dumps(field.default)}`"


def table(model: type[BaseModel], title: str, level: int, seen: set[type[BaseModel]]) -> list[str]:
    """Return the table of the keys of a model, and those of the models inside."""
    about = (inspect.getdoc(model) or "").split("\n\n")[0].replace("\n", " ")
    out = [f"{'#' * level} {title}\n", f"{about}\n", "| key | value | default | meaning |\n|---|---|---|---|"]
    inside: list[tuple[str, type[BaseModel]]] = []
    for name, field in model.model_fields.items():
        inner = models(field.annotation)
        meaning = field.description or (inspect.getdoc(inner[0]) if inner else "") or ""
        out.append(f"| `{name}` | {kind(field.annotation)} | {default(field)} | {' '.join(meaning.split())} |")
        inside += [(name, one) for one in inner if one not in seen]
    out.append("")
    for name, one in inside:
        seen.add(one)
        out += table(one, f"`{name}`", level + 1, seen)
    return out


def meanings(subject: Any) -> dict[str, tuple[str, str]]:
    """Return type and meaning of each parameter of a docstring in the style of numpydoc."""
    section = re.search(
        r"^Parameters\n-+\n(.*?)(?=^\w[\w ]*\n-+\n|\Z)", inspect.getdoc(subject) or "", re.DOTALL | re.MULTILINE
    )
    out: dict[str, tuple[str, str]] = {}
    entries = r"^(\S[^:\n]*?) : ([^\n]*)\n((?:^ +[^\n]*\n?|^\n)*)"
    for names, what, text in re.findall(entries, section[1] if section else "", re.MULTILINE):
        out |= dict.fromkeys(names.split(", "), (what.replace(", optional", ""), " ".join(text.split())))
    return out


def options(subject: Any) -> list[str]:
    """Return a table of the options of a plugin: defaults of its signature, meanings of its docstrings."""
    known_meanings: dict[str, tuple[str, str]] = {}
    for part in reversed(inspect.getmro(subject)):
        known_meanings |= meanings(part)
    rows = []
    for name, parameter in inspect.signature(subject).parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        what, text = known_meanings.get(name, ("", ""))
        value = (
            "required"
            if parameter.default is parameter.empty
            else f"`{json.dumps(plain(parameter.default), default=str)}`"
        )
        rows.append(f"| `{name}` | {what} | {value} | {text} |".replace("|  |", "| |"))
    return (
        ["| option | value | default | meaning |\n|---|---|---|---|", *rows, ""] if rows else ["It has no options.\n"]
    )


def plain(value: Any) -> Any:
    """Return a default; that of a dataclass which makes its own is an empty mapping."""
    return {} if type(value).__name__ == "_HAS_DEFAULT_FACTORY_CLASS" else value


def plugin(name: str, subject: Any) -> list[str]:
    """Return the section of one plugin."""
    first = (inspect.getdoc(subject) or "").split("\n\n")[0].replace("\n", " ")
    return [f"### {name}\n", f"{first}\n", *options(subject)]


def page() -> str:
    """Return the page."""
    out = [HEAD, *table(Recipe, "A recipe", 2, {Recipe}), *table(ActiveRecipe, "A campaign", 2, {ActiveRecipe, Recipe})]
    out.append("## Options of the generators\n")
    ours = [name for name, point in available("generator").items() if point.value.startswith("mlffstore_generators")]
    for name in ours:
        out += plugin(name, load("generator", name))
    out.append("## Options of the seeds\n")
    out.append("A sampler takes `seeds: NAME`, or `seeds: {name: NAME, ...}` with these options.\n")
    for name in known():
        out += plugin(name, seeds_class(name))
    return "\n".join(out).rstrip() + "\n"


if __name__ == "__main__":
    target = Path(__file__).parent / "reference" / "recipe.md"
    target.write_text(page())
    print(f"wrote {target}")
