"""One lease in words: what it is, where it is used, and what happens next and when."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from farmlease.admin.revocations import Revocation
from farmlease.domain.duration import format_duration
from farmlease.domain.model import Kind, LeaseState, LeaseView
from farmlease.domain.node_view import NodeView
from farmlease.domain.policy import Pool
from farmlease.domain.wording import moment

__all__ = ["SUMMARY_INDENT", "Event", "events", "lease_summary"]


class Event(NamedTuple):
    """What happens to a lease without the user, at ``at`` (ms) by the store's clock."""

    at: int
    what: str


#: Columns before the text of each line.
SUMMARY_INDENT = 12


def lease_summary(
    view: LeaseView,
    pool: Pool,
    hosts: Mapping[str, NodeView],
    others: Sequence[LeaseView] = (),
    revocation: Revocation | None = None,
) -> str:
    """Return a lease in words, a line for each fact. ``hosts``: the known nodes of the farm by name.

    ``others``: leases of the same person in the same pool, under other names. ``revocation``: what keeps the user out.
    """
    beyond = ", beyond the capacity" if view.overdraft else ""
    devices = [
        f"{claim.device} ({'in use now' if claim.until is None else f'until {moment(claim.until)}'})"
        for claim in view.devices
    ]
    sessions = [
        f"{claim.session} on {claim.node} since {_past(claim.started_at)}{_silent_note(hosts.get(claim.node))}"
        for claim in view.sessions
    ]
    last = "now" if view.sessions else _past(view.last_contact_at)
    return "\n".join(
        [
            f"{view.user} holds a {view.kind} seat of pool {view.pool}, {view.state}{beyond}",
            f"  lease     {view.lease.id} since {_past(view.lease.issued_at)}",
            *_listed("devices", devices),
            *_listed("sessions", sessions),
            f"  contact   {last}",
            f"  expires   {moment(view.lease.expires_at)}{', and later while a session lasts' * bool(view.sessions)}",
            *([] if revocation is None else _listed("revoked", [revocation.text])),
            *_listed("next", _next(view, pool, hosts)),
            *(line for other in others for line in _listed("second", _mending(view, other))),
        ]
    )


def _mending(view: LeaseView, other: LeaseView) -> list[str]:
    """Return that a person holds two seats, and the line that gives the other one back."""
    return [
        f"{other.user} is the same person and holds a seat of its own, {other.state}; one of the two is to go:",
        f"farmlease lease return {shlex.quote(other.user)} --pool {other.pool}",
        f"farmlease lease return {shlex.quote(view.user)} --pool {view.pool}",
    ]


def events(view: LeaseView, pool: Pool, hosts: Mapping[str, NodeView]) -> list[Event]:
    """Return what happens to a lease if the user does not come back, in order."""
    return sorted(_events(view, pool, hosts))


def _events(view: LeaseView, pool: Pool, hosts: Mapping[str, NodeView]) -> Iterator[Event]:
    for session in view.sessions:
        host, hold = hosts.get(session.node), session.hold_until or 0
        if host is not None and not host.heard:
            ends = max(host.seen_at + pool.session_timeout_ms, hold)
            yield Event(ends, f"session {session.session} ends, as {session.node} is {host.state}")
        elif hold:
            yield Event(hold, f"the hold of session {session.session} is over")
    if view.state is LeaseState.QUARANTINED:
        yield Event(view.lease.expires_at, "the quarantine ends and the seat falls free")
        return
    for claim in view.devices:
        if claim.until is not None:
            yield Event(claim.until, f"the slot of device {claim.device} falls free")
    if not view.sessions:
        yield Event(view.lease.expires_at, "the seat falls free")


def _next(view: LeaseView, pool: Pool, hosts: Mapping[str, NodeView]) -> list[str]:
    lines = [f"{moment(event.at)} {event.what}" for event in events(view, pool, hosts)]
    if view.sessions:
        kept = {Kind.NAMED: pool.lease_ms, Kind.FLOATING: pool.linger_ms}.get(view.kind, 0)
        later = f"{format_duration(kept)} later, if nobody comes before" if kept else "at once"
        lines.append(f"when the last session has ended: the seat falls free {later}")
    return lines


def _silent_note(host: NodeView | None) -> str:
    return "" if host is None or host.heard else f", which is {host.state} since {_past(host.seen_at)}"


def _listed(title: str, lines: list[str]) -> list[str]:
    """Return lines under a title, one below the other."""
    first, *others = lines or ["none"]
    return [f"  {title:<9} {first}", *(f"{'':12}{other}" for other in others)]


def _past(at_ms: int) -> str:
    """Return a past time, rounded down to the minute."""
    return f"{datetime.fromtimestamp(at_ms // 1000, UTC):%Y-%m-%d %H:%M UTC}"
