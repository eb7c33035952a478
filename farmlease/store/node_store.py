"""What the nodes of a farm report of themselves, and what administrators wish of them: one method per script.

Guaranteed: a wish is kept until another takes its place; repeating a call changes nothing. Not guaranteed: that a
node's report is still true. No limit depends on anything here. Errors are ``StoreUnavailable`` and ``StoreRefused``.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from farmlease.domain.node_view import SILENT_MS, NodeView, Wish
from farmlease.store.answers.session import NOTHING, Known
from farmlease.store.keys import Shard, node_keys
from farmlease.store.lease_store import ScriptRunner, swept
from farmlease.store.script import Script

__all__ = ["DrainRequest", "NodeStore", "Report", "ReportReply", "in_json"]

DRAIN = Script.load("drain")
GUESTS = Script.load("guests")
RENAME_NODE = Script.load("rename_node")
REPORT = Script.load("report")
ROSTER = Script.load("roster")

#: What an administrator asked on the node itself since it last reported.
DrainRequest = Literal["drain", "undrain", ""]

#: Sessions of a host that are counted, at most: more than any host has.
_MOST_GUESTS = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a node reports of itself; see ``NodeView``."""

    incarnation: str
    version: str
    sessions: int
    owed: int
    draining: bool
    stopping: bool
    health: str
    listen: str
    leaving: bool = False
    host: str = ""  #: what tells this host, as it is booted now, from every other
    generation: int = 0  #: number of its journal's state


@dataclass(frozen=True, slots=True)
class ReportReply:
    """The answer to a report: what is wished of the node, at what time of the store's (ms).

    ``namesakes``: how many other hosts report under the same name.
    """

    wish: Wish
    now: int
    namesakes: int


class NodeStore:
    """The nodes of one farm in Redis."""

    def __init__(self, connection: ScriptRunner, farm: str) -> None:
        self._connection = connection
        self._farm = farm

    async def report(
        self, node: str, report: Report, known: Wish, asked: DrainRequest, by: bytes, former: Sequence[str] = ()
    ) -> ReportReply:
        """Report what ``node`` is, the wish it follows, and what was asked on it since; return what is wished now.

        ``by``: the administrator who asked, sealed. ``former``: names under which it reported before in this life.
        """
        arguments = REPORT.ordered(
            {
                "node": node, "report": json.dumps(asdict(report)), "known": json.dumps(asdict(known)), "asked": asked,
                "by": by, "wisher": in_json(by), "former": json.dumps([*former]),
            }
        )  # fmt: skip
        _, wish, now, namesakes = await self._connection.call(REPORT, node_keys(self._farm), arguments)
        return ReportReply(_wish(json.loads(wish)), int(now), int(namesakes))

    async def drain(self, node: str, *, on: bool, by: bytes) -> bool:
        """Wish that a node take no new users, or takes them again. False if no such node is known. ``by``: sealed."""
        wish = "drain" if on else "undrain"
        arguments = DRAIN.ordered({"node": node, "wish": wish, "by": by, "wisher": in_json(by)})
        (word,) = await self._connection.call(DRAIN, node_keys(self._farm), arguments)
        return bool(word != b"unknown")

    async def roster(self) -> list[NodeView]:
        """Every node that is known, by name."""
        _, now, *words = await self._connection.call(ROSTER, node_keys(self._farm)[:1], [])
        pairs = zip(*(iter(words),) * 2, strict=True)
        found = [_view_or_none(node, entry, int(now)) for node, entry in pairs]
        return sorted(filter(None, found), key=lambda view: view.node)

    async def rename_node(self, pool: str, old: str, new: str, known: Known = NOTHING) -> int | None:
        """Have what a pool counts for ``old`` (node#incarnation) go on under ``new``, the same life by another name.

        Return how many sessions moved; None if this is not the store that is ``known``, or nothing was ever there.
        """
        arguments = RENAME_NODE.ordered({"old": old, "new": new, **known.arguments()})
        answer = await swept(self._connection, RENAME_NODE, Shard(self._farm, pool), arguments)
        return int(answer[1]) if answer[0] == b"renamed" else None

    async def guests(self, pool: str, node: str) -> int:
        """How many sessions of a pool live on a host, by the store's own count, whatever the host reports."""
        arguments = GUESTS.ordered({"node": node, "most": _MOST_GUESTS})
        _, count = await self._connection.call(GUESTS, Shard(self._farm, pool).keys(), arguments)
        return int(count)


def in_json(sealed: bytes) -> str:
    """Return sealed bytes as a wish keeps them."""
    return base64.b64encode(sealed).decode()


def _wish(found: Mapping[str, Any]) -> Wish:
    return Wish(version=int(found["version"]), draining=found["draining"], at=int(found["at"]), by=found["by"])


def _view_or_none(node: bytes, entry: bytes, now: int) -> NodeView | None:
    """Return what is known of a node; None of an entry that is damaged: the node's next report writes it anew."""
    try:
        return _view(node.decode(), json.loads(entry), now)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _view(node: str, entry: Mapping[str, Any], now: int) -> NodeView:
    return NodeView(
        node=node,
        incarnation=entry["incarnation"],
        version=entry["version"],
        sessions=int(entry["sessions"]),
        owed=int(entry["owed"]),
        draining=entry["draining"],
        stopping=entry["stopping"],
        health=entry["health"],
        listen=entry["listen"],
        started_at=int(entry["since"]),
        seen_at=int(entry["seen"]),
        now=now,
        wish=_wish(entry["wish"]),
        leaving=entry.get("leaving", False),  # an earlier version does not report it, nor the next two
        host=entry.get("host", ""),
        generation=int(entry.get("generation", 0)),
        namesakes=int(entry.get("namesakes", 0)) if now - int(entry["seen"]) <= SILENT_MS else 0,
    )
