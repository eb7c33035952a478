"""The life of one session on one node, as a table.

Its law: every state is left only by an event that the table names; any other event is one error, ``IllegalEvent``, and
changes nothing. A session that may hold something in the store ends through ``ending``, which survives restarts, so
that a lost answer can leave no seat behind; only the store's own denial ends a session at once.

This module must never act: it names the next state; the agent writes it down and acts.
"""

from enum import StrEnum
from types import MappingProxyType

from farmlease.errors import FarmleaseError

__all__ = ["TABLE", "IllegalEvent", "SessionEvent", "SessionState", "diagram", "next_state"]


class IllegalEvent(FarmleaseError):
    """An event that cannot happen to a session in this state. Nothing was changed."""


class SessionState(StrEnum):
    """Where a session on this node is in its life."""

    STARTING = "starting"  #: written to the journal; the store is being asked
    ACTIVE = "active"  #: has its seat
    WAITING = "waiting"  #: has a place in the queue
    INVALID = "invalid"  #: its seat is lost, the agent tries to get it back
    LOST = "lost"  #: its seat is lost for good, and the hook ``lost`` was run
    ENDING = "ending"  #: over for the user; its end has yet to be delivered to the store
    ENDED = "ended"  #: over for the user and the store

    @property
    def shown(self) -> bool:
        """Whether the API shows a session in this state."""
        return self in _SHOWN


class SessionEvent(StrEnum):
    """What can happen to a session."""

    GRANTED = "granted"  #: the store, or a valid receipt, gave the seat, perhaps once more
    QUEUED = "queued"  #: the store gave a place in the queue, or confirmed it
    DENIED = "denied"  #: the store answered that it holds nothing for this session
    UNANSWERED = "unanswered"  #: there was no answer; the store may have taken a seat all the same
    SEAT_LOST = "seat_lost"  #: the store reported that the claim is gone
    REACQUIRED = "reacquired"  #: the seat, or another one, is back
    GAVE_UP = "gave_up"  #: the last attempt to get the seat back failed, or the wait in the queue was too long
    END_ASKED = "end_asked"  #: the user or the host ended it, or its process has ended
    RELEASED = "released"  #: the store confirmed the end


_S, _E = SessionState, SessionEvent

_SHOWN = frozenset({_S.ACTIVE, _S.WAITING, _S.INVALID, _S.LOST})

#: State, then event, then the state that follows. What is not here cannot happen.
TABLE = MappingProxyType(
    {
        _S.STARTING: MappingProxyType(
            {
                _E.GRANTED: _S.ACTIVE,
                _E.QUEUED: _S.WAITING,
                _E.DENIED: _S.ENDED,
                _E.UNANSWERED: _S.ENDING,
                _E.END_ASKED: _S.ENDING,
            }
        ),
        _S.WAITING: MappingProxyType(
            {
                _E.GRANTED: _S.ACTIVE,
                _E.QUEUED: _S.WAITING,
                _E.DENIED: _S.ENDED,
                _E.GAVE_UP: _S.ENDING,
                _E.END_ASKED: _S.ENDING,
            }
        ),
        _S.ACTIVE: MappingProxyType(
            {
                _E.GRANTED: _S.ACTIVE,
                _E.SEAT_LOST: _S.INVALID,
                _E.END_ASKED: _S.ENDING,
            }
        ),
        _S.INVALID: MappingProxyType(
            {
                _E.REACQUIRED: _S.ACTIVE,
                _E.GAVE_UP: _S.LOST,
                _E.END_ASKED: _S.ENDING,
            }
        ),
        _S.LOST: MappingProxyType({_E.END_ASKED: _S.ENDING}),
        _S.ENDING: MappingProxyType({_E.END_ASKED: _S.ENDING, _E.RELEASED: _S.ENDED}),
        _S.ENDED: MappingProxyType({}),
    }
)


def next_state(state: SessionState, event: SessionEvent) -> SessionState:
    """Return the state that follows; raises IllegalEvent where the table has no such step."""
    following = TABLE[state].get(event)
    if following is None:
        raise IllegalEvent(f"a session that is {state} cannot be {event}; this is a fault of farmlease, report it")
    return following


def diagram() -> str:
    """Return the table as a Mermaid state diagram, for the documentation."""
    steps = (f"    {state} --> {after}: {event}" for state, row in TABLE.items() for event, after in row.items())
    ends = (f"    {state} --> [*]" for state, row in TABLE.items() if not row)
    return "\n".join(["stateDiagram-v2", f"    [*] --> {SessionState.STARTING}", *steps, *ends, ""])
