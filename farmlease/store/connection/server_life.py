"""What a server says of itself by INFO: whether it is a master, and which of its lives this is.

Every Redis and Valkey says both. Other implementations and managed services may leave out a line or a whole section, or
know INFO without a section only. Where something else says the same, that is used: ROLE for the role, and for the life
the replication id, which a master has anew after each start and each promotion. Where nothing does, the store cannot be
used, since a loss of its data would pass unnoticed.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from redis.exceptions import NoPermissionError, ResponseError

from farmlease.store.connection.driver_errors import NotMaster, NotUnderstood, says_why

__all__ = ["life_of", "parse_info", "what_it_says"]

Ask = Callable[..., Awaitable[Any]]

#: What INFO may call the life of a server, the surest first.
_LIVES = ("run_id", "master_replid")
#: Said by a proxy or a service that has no replication id to say.
_NO_LIFE = frozenset({"", "?", "0" * 40})


def parse_info(answer: object) -> dict[str, str]:
    """Read an answer to INFO: lines of a name, a colon and a value."""
    text = answer.decode(errors="replace") if isinstance(answer, bytes) else str(answer)
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith("#"))


async def life_of(ask: Ask, server: object, replication: object) -> str:
    """Return the life of a master by its answers to INFO server and INFO replication, which may be errors.

    ``ask`` sends one command more where these do not suffice. NotMaster for a replica, NotUnderstood if it cannot be
    told, and the server's error where it says why it does not answer.
    """
    told = await _told(ask, server, replication)
    role = told.get("role") or await _role(ask)
    if role not in {"master", "slave", "replica"}:
        raise NotUnderstood(
            "says neither by INFO nor by ROLE whether it is a master: farmlease needs one of them from a store"
        )
    if role != "master":
        raise NotMaster
    life = next((told[name] for name in _LIVES if told.get(name, "") not in _NO_LIFE), None)
    if life is None:
        raise NotUnderstood(
            "has neither run_id nor master_replid in INFO: a loss of its data would pass unnoticed, so it cannot be a "
            "farm's store"
        )
    return life


async def what_it_says(ask: Ask) -> Mapping[str, str]:
    """Ask a server what it says of itself and of its replication. Its error where it says why it does not answer."""
    answers: list[object] = []
    for section in ("server", "replication"):
        try:
            answers.append(await ask("INFO", section))
        except ResponseError as error:
            answers.append(error)
    return await _told(ask, *answers)


async def _told(ask: Ask, server: object, replication: object) -> Mapping[str, str]:
    """Return what INFO says; the whole of it where it knows no sections, and nothing where there is no INFO."""
    told: dict[str, str] = {}
    for each in (server, replication):
        if isinstance(each, Exception) and says_why(each):
            raise each
        told |= {} if isinstance(each, Exception) else parse_info(each)
    if "role" in told and told.keys() & set(_LIVES):
        return told
    try:
        return parse_info(await ask("INFO")) | told
    except ResponseError as error:
        if says_why(error):
            raise
        return told


async def _role(ask: Ask) -> str:
    """Return what ROLE says; empty where it says nothing, and also where we may not ask: INFO is what we may."""
    try:
        answer = await ask("ROLE")
    except ResponseError as error:
        if says_why(error) and not isinstance(error, NoPermissionError):
            raise
        return ""
    first = answer[0] if isinstance(answer, list) and answer else b""
    return first.decode(errors="replace") if isinstance(first, bytes) else str(first)
