"""YAML documents checked against a model: all problems at once, in words, each with its line and the nearest right key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from mlffstore.errors import problems_message
from mlffstore.runtime.words import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlffstore.errors import MlffstoreError

Document = TypeVar("Document", bound=BaseModel)
Place = tuple[int | str, ...]

#: Values that a document may have. Aliases of aliases repeat a line of text a billion times.
_LARGEST = 1_000_000
#: What was expected, by the type of pydantic's error, where it is the same for all values.
_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "dict_type": "a mapping (NAME: VALUE lines)",
    "model_type": "a mapping (NAME: VALUE lines)",
    "model_attributes_type": "a mapping (NAME: VALUE lines)",
    "tuple_type": "a list",
    "string_pattern_mismatch": "1 to 64 letters, digits, '_', '.' and '-', the first a letter or digit",
}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of documents, as messages speak of it.

    Attributes
    ----------
    noun : str
        Such as ``"recipe"``.
    refusal : str
        What a document with problems cannot be, such as ``"cannot be run"``.
    error : type of MlffstoreError
        What is raised.
    """

    noun: str
    refusal: str
    error: type[MlffstoreError]


def read_document(path: str | Path, model: type[Document], kind: Kind) -> Document:
    """Read a YAML file and check it against a model.

    Parameters
    ----------
    path : path
    model : type
        What the document must look like.
    kind : Kind

    Raises
    ------
    MlffstoreError
        The error of the kind, with all problems, each with its line and its place in the document.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise kind.error(f"{path}: the {kind.noun} cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise kind.error(
            f"{path}: expected a {kind.noun} in YAML, got bytes that are no UTF-8 text; check the path"
        ) from error
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        too_large = _size(tree, {}) > _LARGEST
        document = None if too_large else yaml.safe_load(text)
        lines, repeated = ({}, []) if too_large else _lines(tree)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that no calendar has
        raise kind.error(f"{path}: expected YAML, got a syntax error: {error}") from error
    except RecursionError as error:
        raise kind.error(
            f"{path}: expected a {kind.noun}, got YAML that is nested too deeply or contains itself"
        ) from error
    if too_large:
        raise kind.error(
            f"{path}: expected a {kind.noun} of at most {_LARGEST:,} values, got more, counting what aliases (*NAME) repeat"
        )
    return check_document(document, model, kind, str(path), lines, repeated)


def check_document(
    document: Any,
    model: type[Document],
    kind: Kind,
    where: str,
    lines: Mapping[Place, int] = MappingProxyType({}),
    repeated: Sequence[Place] = (),
) -> Document:
    """Check a document against a model.

    Parameters
    ----------
    document : object
        As YAML or JSON give it.
    model : type
        What the document must look like.
    kind : Kind
    where : str
        Where the document comes from, for messages.
    lines : mapping of tuple to int, optional
        Place in the document -> line of the file, if there is one.
    repeated : sequence of tuple, optional
        Places whose key occurs twice.

    Raises
    ------
    MlffstoreError
        The error of the kind, with all problems.
    """
    if not isinstance(document, Mapping):
        fields = [name for name, field in model.model_fields.items() if field.is_required()] or list(model.model_fields)
        raise kind.error(f"{where}: expected a mapping with {', '.join(fields)}, got {_kind(document)}")
    problems = {place: [f"{_name(place, document) or kind.noun}: this key occurs twice"] for place in repeated}
    checked: Document | None = None
    try:
        checked = model.model_validate(document)
    except ValidationError as error:
        every = error.errors()
        for problem in every:
            inner = len(problem["loc"])
            if problem["type"] == "too_short" and any(
                len(other["loc"]) > inner and other["loc"][:inner] == problem["loc"] for other in every
            ):
                continue  # pydantic does not count entries in which there are problems
            problems.setdefault(_known(problem["loc"], lines), []).append(_problem(problem, document, model, kind))
    if problems:
        messages = [
            (f"line {lines[place]}: " if lines.get(place) else "") + text
            for place, texts in sorted(problems.items(), key=lambda item: lines.get(item[0], 0))
            for text in texts
        ]
        raise kind.error(problems_message(f"{where}: the {kind.noun} {kind.refusal}:", messages))
    assert checked is not None
    return checked


def _problem(error: Any, document: Any, model: type[BaseModel], kind: Kind) -> str:
    """Return one error of pydantic in words."""
    place, value, context = error["loc"], error["input"], error.get("ctx") or {}
    name = _name(place, document) or kind.noun
    if error["type"] == "missing":
        return f"{name}: missing{_meaning(model, place)}"
    if error["type"] in ("extra_forbidden", "invalid_key"):
        fields = _fields(_model_at(model, place[:-1]))
        return f"{name}: unknown key{nearest(str(place[-1]), fields)} (expected {', '.join(fields)})"
    if error["type"] == "string_type":
        quoted = "; put it in quotes" if isinstance(value, (int, float)) and not isinstance(value, bool) else ""
        return f"{name}: expected text, got {_kind(value)}{quoted}"
    if error["type"] == "literal_error":
        choices = [choice for choice in _choices(model, place) if isinstance(choice, str)]
        hint = nearest(str(value), choices)
        return f"{name}: expected {context.get('expected')}, got {_shown(value)}{hint}"
    for limit, words in (("gt", "more than"), ("ge", "at least"), ("lt", "less than"), ("le", "at most")):
        if limit in context:
            return f"{name}: expected {words} {context[limit]:g}, got {_shown(value)}"
    if error["type"] == "value_error":
        text = str(context.get("error", error["msg"]))
        return f"{name}: {text}" if place else text
    if error["type"] == "too_short":
        return f"{name}: expected at least {context.get('min_length')}, got {context.get('actual_length')}"
    if error["type"] == "too_long":
        return f"{name}: expected at most {context.get('max_length')}, got {context.get('actual_length')}"
    if error["type"] in _EXPECTED:
        return f"{name}: expected {_EXPECTED[error['type']]}, got {_shown(value)}"
    return f"{name}: {error['msg']}, got {_shown(value)}"


def _shown(value: Any) -> str:
    """Return a value as it is shown in a message."""
    return _kind(value) if isinstance(value, (dict, list)) or value is None else repr(value)[:60]


def _kind(value: Any) -> str:
    """Return what a value of YAML is, in words."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return f"a mapping with {', '.join(map(str, list(value)[:5]))}" if value else "an empty mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    words = {bool: "the truth value", int: "the number", float: "the number", str: "the text"}
    return f"{words.get(type(value), 'the ' + type(value).__name__)} {str(value)[:60]!r}"


def _name(place: Place, document: Any) -> str:
    """Return a place in words, such as ``parts[0] (molecules).samples``."""
    out, here = "", document
    for step in place:
        inside, here = here, _step(here, step)
        if isinstance(step, int) and not isinstance(inside, dict):
            out += f"[{step}]"
            if isinstance(here, dict) and isinstance(here.get("name"), str):
                out += f" ({here['name'][:40]})"
        else:
            out += f".{step}" if out else str(step)
    return out


def _step(here: Any, step: int | str) -> Any:
    if isinstance(here, dict):
        return here.get(step)
    return here[step] if isinstance(here, list) and isinstance(step, int) and step < len(here) else None


def _model_at(model: type[BaseModel], place: Place) -> type[BaseModel] | None:
    """Return the model of the mapping at a place, or None."""
    here: Any = model
    for step in place:
        if isinstance(step, int):
            here = next((argument for argument in get_args(here) if argument is not Ellipsis), None)
        elif isinstance(here, type) and issubclass(here, BaseModel) and step in here.model_fields:
            here = here.model_fields[step].annotation
        else:
            return None
        if get_origin(here) in (Union, UnionType):  # of X | None
            here = next((argument for argument in get_args(here) if argument is not type(None)), None)
    return here if isinstance(here, type) and issubclass(here, BaseModel) else None


def _fields(model: type[BaseModel] | None) -> Mapping[str, Any]:
    return {} if model is None else model.model_fields


def _meaning(model: type[BaseModel], place: Place) -> str:
    """Return what a key means, in parentheses."""
    field = _fields(_model_at(model, place[:-1])).get(str(place[-1]))
    return f" ({field.description.rstrip('.')})" if field is not None and field.description else ""


def _choices(model: type[BaseModel], place: Place) -> tuple[Any, ...]:
    field = _fields(_model_at(model, place[:-1])).get(str(place[-1]))
    return () if field is None else get_args(field.annotation)


def _known(place: Place, lines: Mapping[Place, int]) -> Place:
    """Return the place, or the nearest one around it that is in the file."""
    if place and (*place[:-1], str(place[-1])) in lines:  # a number as a key
        return (*place[:-1], str(place[-1]))
    while place and place not in lines:
        place = place[:-1]
    return place


def _size(node: Any, known: dict[int, int]) -> int:
    """Return the number of values of a node, each alias counted as what it stands for; `known` holds those of nodes."""
    if id(node) not in known:
        inner = node.value if isinstance(node, yaml.CollectionNode) else []
        values = [value for _, value in inner] if isinstance(node, yaml.MappingNode) else inner
        known[id(node)] = 1 + sum(_size(value, known) for value in values)
    return known[id(node)]


def _lines(node: Any) -> tuple[dict[Place, int], list[Place]]:
    """Return the line of every place of a document, and the places whose key occurs twice."""
    lines: dict[Place, int] = {(): 0}
    repeated: list[Place] = []

    def walk(node: Any, place: Place) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner = (*place, str(key.value))
                if inner in lines:
                    repeated.append(inner)
                lines[inner] = key.start_mark.line + 1
                walk(value, inner)
        elif isinstance(node, yaml.SequenceNode):
            for k, value in enumerate(node.value):
                lines[*place, k] = value.start_mark.line + 1
                walk(value, (*place, k))

    walk(node, ())
    return lines, repeated
