"""The values of a node's configuration, each as it would stand in the file, and where it comes from.

A secret is not among them: only the URL of the store may hold one, and it is shown without its password.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, SecretStr

from farmlease.cli.output.format import Row
from farmlease.config.model import Config, checked, origin
from farmlease.config.source import Given
from farmlease.domain.duration import format_duration

__all__ = ["values"]

#: What stands before the host of a URL: a name, and a password behind a colon. The last ``@`` ends it.
_PASSWORD = re.compile(r"(?<=://)([^:/?#]*):.*@", re.DOTALL)


def values(given: Given) -> Iterator[Row]:
    """Yield each value with its key and its origin, in the file's order; ConfigError if they are not valid."""
    return _rows(given, checked(given), ())


def _rows(given: Given, section: BaseModel, where: tuple[str, ...]) -> Iterator[Row]:
    for name, field in type(section).model_fields.items():
        key, value = (*where, field.alias or name), getattr(section, name)
        if isinstance(section, Config) and isinstance(value, BaseModel) and name != "identity":
            yield from _rows(given, value, key)
        elif name != "identity" or value is not None:
            yield {"key": ".".join(key), "value": _shown(name, value), "from": origin(given, key)}


def _shown(name: str, value: object) -> object:
    """Return a value as the file has it."""
    shown: object = value
    match value:
        case SecretStr():
            shown = _PASSWORD.sub(r"\1:***@", value.get_secret_value())
        case BaseModel():
            shown = value.model_dump(mode="json", by_alias=True)
        case Path():
            shown = str(value)
        case tuple():
            shown = list(value)
        case int() if name.endswith("_ms"):
            shown = format_duration(value) if value else "0"
        case int() if name.endswith("_percent"):
            shown = f"{value}%"
    return shown
