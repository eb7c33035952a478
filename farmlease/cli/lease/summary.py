"""The whole story of one lease, in words: what it is, where it is used, and what happens next and when."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from farmlease.domain.duration import format_duration
from farmlease.domain.model import Kind, LeaseState, LeaseView
from farmlease.domain.node_view import NodeView
from farmlease.domain.policy import Pool
from farmlease.domain.wording import moment

__all__ = ["STORY_INDENT", "Event", "events", "since", "story"]


class Event(NamedTuple):
    """Something that happens to a lease by itself, at ``at`` (ms) by the store's clock, if nobody comes before."""

    at: int
    what: str


#: Columns before what each line says.
STORY_INDENT = 12


def story(view: LeaseView, pool: Pool, hosts: Mapping[str, NodeView]) -> str:
    """Return a lease in words, a line for each thing. ``hosts``: the farm's nodes by name, as far as they are known."""
    beyond = ", beyond the capacity" if view.overdraft else ""
    devices = [
        f"{claim.device} ({'in use now' if claim.until is None else f'until {moment(claim.until)}'})"
        for claim in view.devices
    ]
    sessions = [
        f"{claim.session} on {claim.node} since {since(claim.started_at)}{_trouble(hosts.get(claim.node))}"
        for claim in view.sessions
    ]
    last = "now" if view.sessions else since(view.last_contact_at)
    return "\n".join(
        [
            f"{view.user} holds a {view.kind} seat of pool {view.pool}, {view.state}{beyond}",
            f"  lease     {view.lease.id} since {since(view.lease.issued_at)}",
            *_listed("devices", devices),
            *_listed("sessions", sessions),
            f"  contact   {last}",
            f"  expires   {moment(view.lease.expires_at)}{', and later while a session lasts' * bool(view.sessions)}",
            *_listed("next", _next(view, pool, hosts)),
        ]
    )


def events(view: LeaseView, pool: Pool, hosts: Mapping[str, NodeView]) -> list[Event]:
    """Return what happens to a lease if nobody comes before, in order."""
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
    told = [f"{moment(event.at)} {event.what}" for event in events(view, pool, hosts)]
    if view.sessions:
        kept = {Kind.NAMED: pool.lease_ms, Kind.FLOATING: pool.linger_ms}.get(view.kind, 0)
        later = f"{format_duration(kept)} later, if nobody comes before" if kept else "at once"
        told.append(f"when the last session has ended: the seat falls free {later}")
    return told


def _trouble(host: NodeView | None) -> str:
    return "" if host is None or host.heard else f", which is {host.state} since {since(host.seen_at)}"


def _listed(title: str, lines: list[str]) -> list[str]:
    """Return lines under a title, one below the other."""
    first, *others = lines or ["none"]
    return [f"  {title:<9} {first}", *(f"{'':12}{other}" for other in others)]


def since(at_ms: int) -> str:
    """Return a past instant as a person reads it, rounded down to the minute."""
    return f"{datetime.fromtimestamp(at_ms // 1000, UTC):%Y-%m-%d %H:%M UTC}"
