"""The answers of the health listener, which needs no token: whether this node can serve a logon sent to it now.

An answer names no user, touches neither store nor journal, and changes nothing. ``probe_server.py`` reads the requests.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from farmlease.domain.characters import shown
from farmlease.domain.health import Check, Health, Status
from farmlease.node.health.metrics import CONTENT_TYPE
from farmlease.node.health.monitor import HealthMonitor

__all__ = ["Answer", "agent_line", "answer"]

_JSON = "application/health+json"
_TEXT = "text/plain; charset=utf-8"
_METHODS = ("GET", "HEAD", "OPTIONS")
_ALLOW = MappingProxyType({"Allow": ", ".join(_METHODS), "Cache-Control": "no-store"})
#: Characters of a reason that reach HAProxy's page of statistics.
_LONGEST_REASON = 80


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer. ``body`` is whole even where the method is one that is answered without it."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: _ALLOW)


def answer(monitor: HealthMonitor, method: str, path: str, accept: str = "") -> Answer:
    """Answer one request of the health listener. ``accept``: the header as it came."""
    as_json = _JSON in accept.lower()
    match path if method in _METHODS else None:
        case None:
            return Answer(405, _TEXT, b"method not allowed: use GET, HEAD or OPTIONS\n")
        case "/livez" | "*":  # the star is the server as a whole, for OPTIONS
            alive = Health(status=Status.PASS, ready=True, checks=())
            return _document(alive) if as_json else Answer(200, _TEXT, b"pass\n")
        case "/readyz":
            found = monitor.health
            return _document(found) if as_json else Answer(_status(found), _TEXT, _words(found))
        case "/healthz":
            return _document(monitor.health)
        case "/metrics":
            return Answer(200, CONTENT_TYPE, monitor.page)
        case _:
            return Answer(404, _TEXT, b"there are /livez, /readyz, /healthz and /metrics\n")


def agent_line(found: Health) -> bytes:
    """Return what HAProxy's agent-check reads: one line in ASCII.

    ``up`` takes back the agent's own ``down``, and no more. No word of it touches HAProxy's administrative state:
    ``ready``, ``drain`` and ``maint`` would undo what an operator has set there. By a weight of 0 nobody new comes, and
    who has a session here comes back.
    """
    if found.status is Status.FAIL:
        reason = found.why.encode("ascii", "replace").decode("ascii")
        printable = "".join(character if character.isprintable() else " " for character in reason)
        return f"down #{printable[:_LONGEST_REASON]}\n".encode()
    return f"up {0 if found.draining else found.weight}%\n".encode()


def _status(found: Health) -> int:
    return 200 if found.ready else 503


def _words(found: Health) -> bytes:
    """The status, and what is not well."""
    return shown(f"{found.status} {found.why}".strip()).encode() + b"\n"


def _document(found: Health) -> Answer:
    """The health+json format: a status word, and for each thing looked at its own."""
    document: dict[str, object] = {"status": found.status.value}
    if found.why:
        document["output"] = found.why
    document["checks"] = {check.name: [_entry(check)] for check in found.checks}
    return Answer(_status(found), _JSON, json.dumps(document).encode())


def _entry(check: Check) -> dict[str, str]:
    return {"status": check.status.value, "output": check.output}
