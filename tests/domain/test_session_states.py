"""The table of a session's states keeps its law."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmlease.domain.session_states import TABLE, IllegalEvent, SessionEvent, SessionState, diagram, next_state

STEPS = [(state, event) for state in SessionState for event in SessionEvent]


def reachable(start: SessionState) -> set[SessionState]:
    """Every state that can follow ``start``, and ``start``."""
    seen, todo = {start}, [start]
    while todo:
        for after in TABLE[todo.pop()].values():
            if after not in seen:
                seen.add(after)
                todo.append(after)
    return seen


@pytest.mark.parametrize(("state", "event"), STEPS)
def test_the_table_is_the_law(state: SessionState, event: SessionEvent) -> None:
    """Each event in each state either leads where the table says or is one error."""
    if event in TABLE[state]:
        assert TABLE[state][event] is next_state(state, event)
    else:
        with pytest.raises(IllegalEvent, match=f"{state} cannot be {event}"):
            next_state(state, event)


def test_every_state_can_be_reached_and_ends() -> None:
    """No state is dead wood, and from each one a session can end."""
    assert set(SessionState) == set(TABLE) == reachable(SessionState.STARTING)
    assert [] == [state for state in SessionState if SessionState.ENDED not in reachable(state)]


def test_every_event_is_of_use() -> None:
    """No event is declared that cannot happen."""
    assert set(SessionEvent) == {event for row in TABLE.values() for event in row}


def test_nothing_follows_the_end() -> None:
    """Only ended has no way out."""
    assert [SessionState.ENDED] == [state for state, row in TABLE.items() if not row]


def test_what_may_hold_a_seat_ends_through_the_store() -> None:
    """L3: a session ends at once only by the store's own denial or confirmation, so no seat leaks."""
    ends = {
        (state, event) for state, row in TABLE.items() for event, after in row.items() if after is SessionState.ENDED
    }
    assert ends == {
        (SessionState.STARTING, SessionEvent.DENIED),
        (SessionState.WAITING, SessionEvent.DENIED),
        (SessionState.ENDING, SessionEvent.RELEASED),
    }


def test_use_without_a_seat_is_never_active() -> None:
    """L4: after its seat is lost a session is active again only by being re-acquired."""
    back = {
        (state, event)
        for state in (SessionState.INVALID, SessionState.LOST, SessionState.ENDING)
        for event, after in TABLE[state].items()
        if after is SessionState.ACTIVE
    }
    assert {(SessionState.INVALID, SessionEvent.REACQUIRED)} == back


@given(st.lists(st.sampled_from(SessionEvent), max_size=30))
def test_an_illegal_event_changes_nothing(events: list[SessionEvent]) -> None:
    """A life with illegal events in it is the same life without them."""
    state, legal = SessionState.STARTING, []
    for event in events:
        try:
            state = next_state(state, event)
        except IllegalEvent:
            continue
        legal.append(event)
    again = SessionState.STARTING
    for event in legal:
        again = next_state(again, event)
    assert state is again


@pytest.mark.parametrize("state", [state for state in SessionState if state is not SessionState.ENDED])
def test_end_can_be_asked_again_and_again(state: SessionState) -> None:
    """Whatever a session does, it can be asked to end, also when it was asked before."""
    assert SessionState.ENDING is next_state(state, SessionEvent.END_ASKED)


def test_the_api_shows_four_states() -> None:
    """What is not yet or no longer a session of the user is not shown."""
    assert {"active", "waiting", "invalid", "lost"} == {state.value for state in SessionState if state.shown}


def test_diagram_has_each_step_once() -> None:
    """The diagram in the documentation is the table."""
    lines = diagram().splitlines()
    steps = {f"    {state} --> {after}: {event}" for state, row in TABLE.items() for event, after in row.items()}
    assert "stateDiagram-v2" == lines[0]
    assert steps | {"    [*] --> starting", "    ended --> [*]"} == set(lines[1:])
    assert len(steps) + 3 == len(lines)
