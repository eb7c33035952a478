"""L9: no agent's health says ``pass`` while it shows a session whose seat the store does not count, or the other way.

A difference that a heartbeat finds is mended before the next but one, or told. Each agent's own monitor is asked, at
each of its heartbeats.
"""

from collections.abc import Callable, Iterator

from farmlease.domain.health import Status
from farmlease.domain.session_states import SessionState
from farmlease.node.journal.sessions import NodeSession
from tests.simulation.host import HEARTBEAT, Host
from tests.simulation.ledger import Key, Ledger

__all__ = ["Monitoring"]

#: Seconds for which a difference may last while health says ``pass``.
_LASTS = 2 * HEARTBEAT
_UNCOUNTED = "is not counted"

Difference = tuple[str, str, Key, int]  #: what, pool, session, fence


class Monitoring:
    """What monitors of the farm's hosts were told at each heartbeat."""

    def __init__(self, ledger: Ledger, now: Callable[[], float], key: Callable[[Host, NodeSession], Key]) -> None:
        self._ledger = ledger
        self._now = now
        self._key = key
        self._since: dict[tuple[str, int], dict[Difference, float]] = {}  #: by host and life of its agent

    def carried(self, pool: str) -> None:
        """A script was carried out: what it mended has to last anew, should it come again before the next look."""
        sessions = self._ledger.pools[pool].model.sessions if pool in self._ledger.pools else {}

        def is_mended(difference: Difference) -> bool:
            what, where, key, fence = difference
            counted = key in sessions and sessions[key].fence == fence
            return where == pool and counted == (what == _UNCOUNTED)

        for owner, found in self._since.items():
            if any(map(is_mended, found)):
                self._since[owner] = {each: since for each, since in found.items() if not is_mended(each)}

    def beaten(self, host: Host) -> str | None:
        """A heartbeat of a host is over: what its monitor says now is true, or something was wrong before it."""
        host.node.monitor.look()
        known = self._since.pop((host.name, host.lives), {})
        checks = host.node.monitor.health.checks
        if any(each.status is not Status.PASS for each in checks if each.name != "sessions"):  # but that it drains
            return None
        found = {each: known.get(each, self._now()) for each in self._differences(host)}
        self._since[host.name, host.lives] = found
        late = sorted(each for each, since in found.items() if self._now() - since >= _LASTS)
        if not late:
            return None
        what, pool, key, fence = late[0]
        return f"health of {host.name} says pass, and session {key[2]} in {pool} (fence {fence}) {what}"

    def _differences(self, host: Host) -> Iterator[Difference]:
        for pool, account in self._ledger.pools.items():
            shown = {
                (self._key(host, each), each.grant.fence)
                for each in host.book
                if each.pool == pool and each.state is SessionState.ACTIVE and each.grant is not None
            }
            counted = {(key, each.fence) for key, each in account.model.sessions.items() if key[1] == host.member}
            yield from ((_UNCOUNTED, pool, *each) for each in shown - counted)
            yield from (("is counted and not there", pool, *each) for each in counted - shown)
