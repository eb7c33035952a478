"""The judge of the faults finds what is wrong, and accuses nobody else."""

import time

import pytest

from tests.faults.history import History, Loss, Spell
from tests.faults.judge import BOUND, Trouble, judge, judge_nothing_lost
from tests.support.patience import within

FOREVER = float("inf")


@pytest.fixture
def history() -> History:
    """A history of two nodes that the store keeps for a minute."""
    made = History()
    for node in ("n0", "n1"):
        made.promises[node] = [(made.began, made.began + 60)]
    return made


def spell(history: History, session: str, since: float, until: float = FOREVER, node: str = "n0") -> Spell:
    """A seat of its own in use, in seconds since the history began."""
    began = history.began
    made = Spell(node, session, session, session, began + since, began + since, began + until)
    history.spells.append(made)
    return made


def verdict(history: History, *troubles: Trouble) -> list[str]:
    """The laws that were broken, with one seat."""
    judge(history, 1, 0.0, list(troubles))
    return [line.partition(":")[0] for line in history.violations]


def test_one_after_the_other_is_fine(history: History) -> None:
    """A seat goes from one to the next."""
    spell(history, "1", 0.1, 1.0)
    spell(history, "2", 1.0)
    assert [] == verdict(history)


def test_two_on_one_seat_are_found(history: History) -> None:
    """L1: on two nodes, and only for a moment."""
    spell(history, "1", 0.1, 1.2)
    spell(history, "2", 1.0, node="n1")
    assert ["L1"] == verdict(history)


def test_a_node_that_the_store_does_not_keep_uses_no_seats(history: History) -> None:
    """A node that is cut off past its deadline has lost its seats, and is told later."""
    history.promises["n0"] = [(history.began, history.began + 0.9)]
    spell(history, "1", 0.1)
    spell(history, "2", 1.0, node="n1")
    assert [] == verdict(history)


@pytest.mark.parametrize(("counted", "found"), [(0.0, ["L1"]), (FOREVER, []), (1.5, ["L1"]), (2.5, [])])
def test_what_a_receipt_let_in_is_promised_nothing_by_a_later_beat(
    history: History, counted: float, found: list[str]
) -> None:
    """L1: its node was not kept for a moment; until the store counts it, a renewed promise is none to it."""
    began = history.began
    history.promises["n0"] = [(began, began + 0.9), (began + 1.1, began + 60)]
    spell(history, "1", 0.5).counted = began + counted if counted else 0.0
    spell(history, "2", 1.0, 2.0, node="n1")
    assert found == verdict(history)


def test_a_lease_without_a_session_keeps_its_seat(history: History) -> None:
    """L1: what a user was promised until a moment is nobody else's before."""
    lease = spell(history, "1", 0.1, 5.0)
    history.spells.remove(lease)
    history.leases.append(lease)
    spell(history, "2", 1.0)
    assert ["L1"] == verdict(history)


@pytest.mark.parametrize(("promised", "found"), [(60.0, ["L5"]), (1.0, [])])
def test_a_seat_that_is_taken_too_soon_is_found(history: History, promised: float, found: list[str]) -> None:
    """L5: silence costs a seat when the deadline is over, and not before."""
    now = history.began
    history.losses.append(Loss(now + 2.0, "n0", "1", "1", "timeout", now + promised))
    assert found == verdict(history)


@pytest.mark.parametrize(("others", "promised", "found"), [(0, 60.0, ["L7"]), (1, 60.0, []), (0, 0.5, [])])
def test_a_loss_for_want_of_a_seat_needs_others_on_them(
    history: History, others: int, promised: float, found: list[str]
) -> None:
    """L7: who is told that no seat is free is told the truth, unless his own was forfeit by his node's silence."""
    for number in range(others):
        spell(history, f"other-{number}", 0.1)
    history.losses.append(Loss(history.began + 1.0, "n0", "1", "1", "capacity", history.began + promised))
    assert found == verdict(history)


@pytest.mark.parametrize(("status", "found"), [("warn", []), ("pass", ["L9"])])
def test_health_that_says_nothing_is_found(history: History, status: str, found: list[str]) -> None:
    """L9: while something is wrong a node says so."""
    began = history.began
    history.health["n0"] = [(began, "pass"), (began + 1.0, status), (began + 2.0, "pass")]
    assert found == verdict(history, Trouble("the server was away", began + 0.5, began + 3.0, ("n0",), 1))


def test_a_call_that_takes_too_long_is_found(history: History) -> None:
    """Every call ends in bounded time."""
    history.slowest = within(BOUND) + 60
    assert ["bounded"] == verdict(history)


def test_what_a_heartbeat_told_counts_from_then_on(history: History) -> None:
    """L4: a seat that the store took is out of use at the heartbeat that says so, and judged by what was promised before."""
    used = spell(history, "1", 0.0)
    history.hear("n0", "1")
    history.promise("n0", time.time() + 60)
    history.lose("n0", "1", "1", "timeout")
    assert used.until < FOREVER
    assert history.losses[0].promised == history.began + 60


def test_a_grant_that_is_answered_after_its_loss_was_heard_of_is_no_use(history: History) -> None:
    """L5: a busy agent hears first that the seat is gone, then that it was there: judged by what was promised before."""
    history.promises["n0"] = [(history.began - 1, history.began - 0.5)]
    history.hear("n0", "1", fence=7)
    history.promise("n0", time.time() + 60)
    history.open_spell(Spell("n0", "1", "1", "1", history.began, time.time()), fence=7)
    history.lose("n0", "1", "1", "timeout")
    assert [] == history.spells
    assert [] == verdict(history)


def test_a_seat_that_was_lost_with_nothing_else_is_found(history: History) -> None:
    """L11: of three that were lost after a planned restart, only the one that had a seat before it is accused."""
    began = history.began
    spell(history, "before", 0.1, 2.0)
    spell(history, "meanwhile", 1.2, 2.0)
    spell(history, "again", 0.1, 0.5)
    spell(history, "again", 1.3, 2.0)
    for session in ("before", "meanwhile", "again"):
        history.losses.append(Loss(began + 2.0, "n0", session, session, "capacity", began + 60))
    judge_nothing_lost(history, began + 1.0)
    assert ["L11: n0/before at 2.000 lost (capacity), and nothing else was"] == history.violations
