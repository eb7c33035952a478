"""A model of a pool as the store's own contents have it, read without any of farmlease's code."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from tests.simulation.memory import Memory
from tests.simulation.naming import HostNames
from tests.support.farm_model import Device, Leased, Model, Rules, Session

__all__ = ["Holder", "changes", "take_over"]


class Holder(Protocol):
    """Who has a model of a pool."""

    model: Model
    version: int
    versions: dict[str, int]


def take_over(holder: Holder, memory: Memory, pool: str, names: HostNames) -> None:
    """Make the holder's model, and what goes with it, what the store holds now: each host under its first name."""
    tag = f"fl:{{citrix-a/{pool}/0}}:".encode()

    def fields(name: str) -> dict[str, str]:
        held = memory.fields(tag + name.encode())
        return {field.decode(): names.read(value.decode("utf-8", "backslashreplace")) for field, value in held.items()}

    def scores(name: str) -> dict[str, float]:
        found: dict[str, float] = {}
        for member, score in memory.scores(tag + name.encode()).items():
            called = names.read(member.decode())
            found[called] = max(score, found.get(called, score))
        return found

    meta = fields("meta")
    model = Model(_rules(meta) if "policy" in meta else holder.model.rules, holder.model.now)
    model.fence = int(meta.get("fence", 0))
    holder.version, holder.versions = int(meta.get("policy", 0)), {}
    for user, text in fields("leases").items():
        document = json.loads(text)
        holder.versions[user] = int(document["version"])
        _lease(model, user, document)
    model.nodes = {node: until for node, until in scores("nodes").items() if node[0] != "#"}
    for member in scores("sessions"):
        if member[0] == "#":
            node, _, rest = member[1:].partition("/")
            session, user, fence, reason = rest.rsplit("/", 3)
            model.words.add((node, session, user, int(fence), reason))
    for member, _ in sorted(scores("queue").items(), key=lambda entry: entry[1]):
        model.queue.append(_place(member))
    model.places = {_place(member): until for member, until in scores("waits").items()}
    model.barred = scores("barred")
    quarantined = scores("quarantine")
    model.set_aside = {
        seat: until for seat, until in scores("seats").items() if seat in quarantined and seat not in model.leases
    }
    model.hosts = {seat[1:] for seat in scores("seats") if seat[0] == "@"}
    holder.model = model


def changes(before: Model, after: Model, *, but_of: str = "") -> str:
    """Say what a pool has otherwise than before, apart from what it has written of itself; empty if nothing.

    ``but_of``: a user whose claims may have changed.
    """

    def sessions(model: Model) -> dict[Any, Any]:
        return {key: each for key, each in model.sessions.items() if key[0] != but_of}

    def seats(model: Model) -> dict[Any, Any]:
        own = set(model.seats_of(but_of)) if but_of in model.leases else set()
        return {seat: until for seat, until in model.held().items() if seat not in own}

    def leases(model: Model) -> dict[str, str]:
        return {user: each.id for user, each in model.leases.items() if user != but_of}

    found = [
        *_changed("session", sessions(before), sessions(after)),
        *_changed("seat", seats(before), seats(after)),
        *_changed("bar", before.barred, after.barred),
        *_changed("lease", leases(before), leases(after)),
    ]
    for user in leases(before).keys() & leases(after).keys():
        found += _changed(f"device of {user[:8]}", before.devices(user), after.devices(user))
        found += _changed(f"lease of {user[:8]}", _plain(before, user), _plain(after, user))
    return "; ".join(found)


def _plain(model: Model, user: str) -> dict[str, Any]:
    """Return a lease as it will be once its sessions end: the last beat of a node is a contact, and so is a hold's end.

    A node that has been silent for too long is forgotten while its session is held.
    """
    lease, sessions = model.leases[user], model.of(user)
    beats = [max(model.nodes.get(key[1], 0) - model.rules.timeout, each.hold) for key, each in sessions.items()]
    contact, named = max([lease.contact, *beats]), model.rules.kind == "named"
    until = max(lease.named_until, contact + model.rules.lease) if sessions and named else lease.named_until
    return {"back": lease.back, "until": until, "contact": contact, "replaced": lease.replaced}


def _changed(what: str, before: Mapping[Any, Any], after: Mapping[Any, Any]) -> Iterator[str]:
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            yield f"{what} {key} was {before.get(key)} and is {after.get(key)}"


def _rules(meta: dict[str, str]) -> Rules:
    return Rules(
        kind=meta["kind"], share=meta["share"], capacity=int(meta["capacity"]), overdraft=int(meta["overdraft"]),
        devices=int(meta["devices_per_user"]), sessions=int(meta["sessions_per_user"]), lease=int(meta["lease_ms"]),
        quarantine=int(meta["quarantine_ms"]), linger=int(meta["linger_ms"]), max_hold=int(meta["max_hold_ms"]),
        queue=int(meta["queue_ms"]) > 0, reserve=json.loads(meta["reserve"] or "{}"),
        timeout=int(meta["session_timeout_ms"]),
    )  # fmt: skip


def _lease(model: Model, user: str, document: dict[str, Any]) -> None:
    model.leases[user] = Leased(
        id=document["id"],
        contact=document["contact"],
        named_until=document.get("until", 0),
        back=bool(document.get("back")),
        replaced=list(document.get("replaced", ())),
        devices={
            name: Device(slot["seen"], slot["until"], slot.get("replaces", ""))
            for name, slot in dict(document["devices"]).items()
        },
        lingering=dict(document.get("lingering", ())),
        charges=dict(document.get("charges", ())),
    )
    for key, claim in dict(document["sessions"]).items():
        node, _, session = key.partition("/")
        seat, hold = claim.get("seat", user), claim.get("hold", 0)
        model.sessions[user, node, session] = Session(claim["device"], seat, claim["fence"], hold)


def _place(member: str) -> tuple[str, str, str]:
    node, _, rest = member.partition("/")
    session, _, user = rest.rpartition("/")
    return user, node, session
