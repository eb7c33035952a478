"""TOML documents of an administrator, checked by pydantic models, with errors that name the place.

An error is one line: key, line where it is certain, what is wrong, and for an unknown key the nearest valid one.
This module must never echo a value: a document may hold a password.
"""

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Annotated, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from farmlease.domain.duration import parse_duration
from farmlease.errors import InvalidInput

__all__ = [
    "Count",
    "Duration",
    "Location",
    "Positive",
    "Section",
    "dotted",
    "every_fault",
    "field_type",
    "first_fault",
    "in_force",
    "line_of",
    "refusal",
    "validated_by",
]

Location = tuple[str | int, ...]  #: where a value stands: ``("pool", 1, "capacity")``

_HEADER = re.compile(r"\s*\[\s*([\w.\-\s]+?)\s*\]\s*(?:#.*)?")
_ARRAY_HEADER = re.compile(r"\s*\[\[\s*([\w.\-\s]+?)\s*\]\]\s*(?:#.*)?")
_KEY = r"""(?:[\w\-]+|"[^"\\\n]*"|'[^'\n]*')"""
_KEYS = re.compile(_KEY)
_ASSIGNMENT = re.compile(rf"\s*({_KEY}(?:\s*\.\s*{_KEY})*)\s*=")
#: What these rules do not follow: strings of several lines, and quoted names in a table's header.
_UNCERTAIN = re.compile(r"""\"{3}|'{3}|^\s*\[[^\]\n]*["']""", re.MULTILINE)
_MOST = 10**9
#: Pydantic's errors name Python's types; an administrator needs TOML's.
_WORDS = {
    "missing": "is required",
    "model_type": "must be a table of keys",
    "mapping_type": "must be a table of keys",
    "dict_type": "must be a table of keys",
    "tuple_type": 'must be a list, such as ["..."]',
    "too_short": "must not be empty",
    "string_type": "must be a string",
    "path_type": "must be a string",
    "int_type": "must be a whole number",
}


class Section(BaseModel):
    """A table of a document: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def refusal(why: str, *at: str | int) -> PydanticCustomError:
    """Return the error for a validator to raise, at ``at`` below the value it checks."""
    return PydanticCustomError("refused", "{why}", {"why": why, "at": at})


def in_force(info: ValidationInfo) -> bool:
    """Whether the document is in force already: what was let in by an earlier version of farmlease must still open."""
    return bool(info.context and info.context.get("in_force"))


def validated_by(check: Callable[[str], object]) -> AfterValidator:
    """Return a validator that refuses a string for which ``check`` raises InvalidInput."""

    def validate(text: str) -> str:
        try:
            check(text)
        except InvalidInput as error:
            raise refusal(str(error)) from None
        return text

    return AfterValidator(validate)


def _milliseconds(value: object) -> int:
    """Return the milliseconds of a duration as written in a document."""
    if isinstance(value, int) and not isinstance(value, bool) and value == 0:
        return 0
    try:
        return parse_duration(value if isinstance(value, str) else "")
    except InvalidInput as error:
        raise refusal(str(error)) from None


Duration = Annotated[int, BeforeValidator(_milliseconds)]  #: written "90s", kept as milliseconds
Count = Annotated[int, Field(strict=True, ge=0, le=_MOST)]
Positive = Annotated[int, Field(strict=True, ge=1, le=_MOST)]


def every_fault(error: ValidationError, model: type[BaseModel]) -> list[tuple[Location, str]]:
    """Return where each fault is and what to do about it, without any value; a wrong key first.

    It often explains why another one is missing.
    """
    found = error.errors(include_url=False, include_input=False)
    faults = [fault for fault in found if not _follows(fault, found)]
    faults.sort(key=lambda fault: fault["type"] != "extra_forbidden")
    return [_where_and_why(fault, model) for fault in faults]


def first_fault(error: ValidationError, model: type[BaseModel]) -> tuple[Location, str]:
    """Return where the first fault is and what to do about it, without any value."""
    (where, why), *more = every_fault(error, model)
    return where, f"{why} (and {len(more)} more)" if more else why


def _follows(fault: ErrorDetails, faults: list[ErrorDetails]) -> bool:
    """Whether a fault only follows from another: a default that lacks a key, a list that lacks a bad entry."""
    where = fault["loc"]
    inside = any(where == other["loc"][:-1][: len(where)] for other in faults)
    return fault["type"] == "default_factory_not_called" or (fault["type"] == "too_short" and inside)


def _where_and_why(fault: ErrorDetails, model: type[BaseModel]) -> tuple[Location, str]:
    where = fault["loc"]
    match fault["type"]:
        case "extra_forbidden":
            return where, f'unknown key; the nearest valid one is "{_nearest_key(model, where)}"'
        case "refused":
            context = fault["ctx"]
            return where + tuple(context["at"]), str(context["why"])
        case kind:
            return where, _WORDS.get(kind) or fault["msg"][:1].lower() + fault["msg"][1:]


def field_type(model: type[BaseModel], where: Location) -> object:
    """Return the annotated type of the value at ``where``, or None if the document has no such place."""
    kind: object = model
    for part in where:
        if isinstance(part, int):
            continue
        table = next(_models_in(kind), None)
        fields = {} if table is None else {field.alias or name: field for name, field in table.model_fields.items()}
        if part not in fields:
            return None
        kind = fields[part].annotation
    return kind


def _models_in(kind: object) -> Iterator[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for argument in get_args(kind):
        yield from _models_in(argument)


def _nearest_key(model: type[BaseModel], where: Location) -> str:
    table = next(_models_in(field_type(model, where[:-1])), model)
    valid = [field.alias or name for name, field in table.model_fields.items()]
    return difflib.get_close_matches(str(where[-1]), valid, n=1, cutoff=0)[0]


def dotted(where: Location) -> str:
    """Return a location as an administrator reads it: ``pool[1].capacity``, counted from 0."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).removeprefix(".")


def line_of(text: str, where: Location) -> int | None:
    """Return the line (from 1) of the key at ``where``, else of what encloses it; None where that is not certain."""
    if _UNCERTAIN.search(text):
        return None
    lines = dict(reversed([*_places(text)]))  # of a table written in several places, the first
    return next((lines[where[:end]] for end in range(len(where), 0, -1) if where[:end] in lines), None)


def _places(text: str) -> Iterator[tuple[Location, int]]:
    """Yield each table and key that stands on a line of its own, with its line."""
    seen: Counter[Location] = Counter()
    table: Location = ()
    for number, line in enumerate(text.split("\n"), start=1):
        if header := _ARRAY_HEADER.fullmatch(line):
            table = _indexed(_parts(header[1]), seen)
            table = (*table, seen[table])
            seen[table[:-1]] += 1
            yield table, number
        elif header := _HEADER.fullmatch(line):
            table = _indexed(_parts(header[1]), seen)
            yield table, number
        elif assignment := _ASSIGNMENT.match(line):
            parts = _parts(assignment[1])
            for end in range(1, len(parts) + 1):
                yield table + parts[:end], number


def _parts(key: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _KEYS.findall(key))


def _indexed(parts: tuple[str, ...], seen: Counter[Location]) -> Location:
    """Return a table's location with the number of the latest entry of each array of tables it lies in."""
    where: Location = ()
    for part in parts[:-1]:
        where = (*where, part)
        if seen[where]:
            where = (*where, seen[where] - 1)
    return (*where, parts[-1])
