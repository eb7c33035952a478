"""The JSON documents of the HTTP interface and of ``-o json``. Times are RFC 3339 in UTC.

One module for both, so that they cannot differ. Field names are a public promise: add, never rename.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from farmlease.domain.explanation import Explanation, How, Place, PoolExplanation, changes
from farmlease.domain.model import Blocker, Decision, Denial, Grant, LeaseView, PoolUse, Restricted
from farmlease.domain.node_view import NodeView
from farmlease.domain.usage import Hour

__all__ = [
    "Document",
    "decision_document",
    "decision_line",
    "explanation_document",
    "hour_document",
    "lease_document",
    "node_document",
    "pool_document",
    "timestamp",
]

Document = dict[str, Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def timestamp(at_ms: int | None) -> str | None:
    """Return an instant as ``2026-12-21T09:00:00.250Z``."""
    if at_ms is None:
        return None
    return (_EPOCH + timedelta(milliseconds=at_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def decision_document(decision: Decision) -> Document:
    """Return the answer to "may this session start?"."""
    match decision:
        case Grant():
            return _grant(decision)
        case Restricted():
            return {
                "decision": "restricted",
                "user": decision.user.canonical,
                "node": decision.node,
                "session": decision.session,
            }
        case Denial():
            return _denial(decision)


def _grant(grant: Grant) -> Document:
    return {
        "decision": "granted",
        "user": grant.user.canonical,
        "pool": grant.pool,
        "kind": grant.kind.value,
        "device": grant.device,
        "node": grant.node,
        "session": grant.session,
        "fence": grant.fence,
        "lease": {
            "id": grant.lease.id,
            "issued_at": timestamp(grant.lease.issued_at),
            "expires_at": timestamp(grant.lease.expires_at),
        },
        "source": grant.source.value,
        "overdraft": grant.overdraft,
    }


def _denial(denial: Denial) -> Document:
    document: Document = {
        "decision": "denied",
        "reason": denial.reason.value,
        "pool": denial.pool,
        "detail": denial.detail,
        "retry_at": timestamp(denial.retry_at),
        "blocking": [_blocker(claim) for claim in denial.blocking],
    }
    if denial.capacity is not None:
        document |= {"held": denial.held, "capacity": denial.capacity}
    return document


def _blocker(claim: Blocker) -> Document:
    what = {"device": claim.device} if claim.device is not None else {"session": claim.session}
    return {**what, "node": claim.node, "until": timestamp(claim.until)}


def explanation_document(explanation: Explanation) -> Document:
    """Return what a start would be answered and why, as ``explain -o json`` and ``POST /v1/explain`` show it."""
    ruling = explanation.ruling
    return {
        "user": explanation.user.canonical,
        "node": explanation.node,
        "identity": [{"why": each.why, "line": each.line} for each in explanation.reading],
        "groups": None if explanation.groups is None else list(explanation.groups),
        "groups_from": explanation.groups_from.value,
        "rule": None if ruling is None else {"number": ruling.number, "line": ruling.line, "why": ruling.why},
        "pools": [_pool_explanation(each) for each in explanation.pools],
        "answer": _answer(explanation.answer, explanation.how),
        "changes": list(changes(explanation)),
    }


def _pool_explanation(told: PoolExplanation) -> Document:
    lease = told.lease
    return {
        "pool": told.pool.name,
        "kind": told.pool.kind.value,
        "sets": [{"set": each.name, "held": each.held, "most": each.most} for each in told.sets],
        "lease": None
        if lease is None
        else {
            "id": lease.id,
            "issued_at": timestamp(lease.issued_at),
            "expires_at": timestamp(told.lease_until),
            "devices": [
                {"device": device, "until": timestamp(until)}
                for device, until in sorted(lease.device_deadlines(told.now).items())
            ],
            "sessions": [
                {"node": member.partition("#")[0], "session": member.partition("/")[2]}
                for member in sorted(lease.sessions)
            ],
        },
        "answer": _answer(told.answer, told.how),
    }


def _answer(answer: Decision | Place, how: How | None) -> Document:
    """Return an answer that was not given: without the numbers that a grant would get only then."""
    if isinstance(answer, Place):
        return {"decision": "waiting", "ahead": answer.ahead}
    document = decision_document(answer)
    if how is not None:
        del document["fence"], document["lease"]["id"]
        document["how"] = how.value
    return document


def lease_document(view: LeaseView) -> Document:
    """Return a lease as ``lease list -o json`` shows it."""
    return {
        "user": view.user,
        "pool": view.pool,
        "kind": view.kind.value,
        "state": view.state.value,
        "devices": [{"device": claim.device, "until": timestamp(claim.until)} for claim in view.devices],
        "sessions": [
            {"node": claim.node, "session": claim.session, "started_at": timestamp(claim.started_at)}
            for claim in view.sessions
        ],
        "issued_at": timestamp(view.lease.issued_at),
        "expires_at": timestamp(view.lease.expires_at),
        "fence": view.fence,
        "overdraft": view.overdraft,
    }


def pool_document(use: PoolUse) -> Document:
    """Return how full a pool is, as ``pool show -o json`` shows it."""
    return {
        "name": use.name,
        "kind": use.kind.value,
        "capacity": use.capacity,
        "used": use.used,
        "quarantined": use.quarantined,
        "free": use.free,
        "reserved": use.reserved,
        "queued": use.queued,
    }


def hour_document(pool: str, hour: Hour) -> Document:
    """Return an hour of a pool, as ``usage -o json`` shows it."""
    return {
        "hour": timestamp(hour.begins_at),
        "pool": pool,
        "capacity": hour.capacity,
        "peak": hour.peak,
        "average": round(hour.average, 3),
        "denied": sum(hour.denials.values()),
        "denials": dict(sorted(hour.denials.items())),
        "counted_s": round(hour.counted_ms / 1000, 3),
    }


def decision_line(*, at: int, **fields: str | int) -> Document:
    """Return a line of the audit, as ``audit -o json`` shows it; a field that an event does not have is null."""
    return {"at": timestamp(at), **{name: value or None for name, value in fields.items()}}


def node_document(view: NodeView, wished_by: str | None) -> Document:
    """Return a node as ``node list -o json`` shows it; ``wished_by``: who last drained or undrained it."""
    return {
        "node": view.node,
        "state": view.state.value,
        "sessions": view.sessions,
        "owed": view.owed,
        "version": view.version,
        "health": view.health,
        "health_listen": view.listen,
        "incarnation": view.incarnation,
        "namesakes": view.namesakes,
        "started_at": timestamp(view.started_at),
        "since": timestamp(view.since),
        "last_heard_at": timestamp(view.seen_at),
        "heard_ago_s": max(0, view.now - view.seen_at) // 1000,
        "drain": {
            "wished": view.wish.draining,
            "at": timestamp(view.wish.at) if view.wish.version else None,
            "by": wished_by,
        },
    }
