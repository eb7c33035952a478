"""The laws, as questions to a history. This must never ask an agent or a store: it reads what was noted."""

from dataclasses import dataclass

from tests.faults.history import History, Loss, Spell
from tests.support.patience import within

__all__ = ["Trouble", "judge", "judge_nothing_lost"]

#: Seconds by which the clock readings of one machine may be late where they are noted after the fact.
SLACK = 0.05
#: Seconds within which a call ends, whatever breaks: a start may have to deliver, to beat and to ask.
BOUND = 8.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something was wrong from ``since`` to ``until``, so that of these nodes ``at_least`` so many had to say so."""

    what: str
    since: float
    until: float
    nodes: tuple[str, ...]
    at_least: int


def judge(history: History, capacity: int, kept: float, troubles: list[Trouble]) -> None:
    """Write down every violation. ``kept``: seconds for which a seat stays its user's after his last session."""
    _limit(history, capacity)
    for loss in history.losses:
        _loss(history, capacity, kept, loss)
    for trouble in troubles:
        _told(history, trouble)
    if history.slowest > within(BOUND):
        history.violate("bounded", f"a call took {history.slowest:.1f} s")


def judge_nothing_lost(history: History, struck_at: float) -> None:
    """L11: where a fault lost nothing, whoever had a seat when it struck keeps it until he ends.

    Whoever was let in by a receipt meanwhile may find that there is no seat for him.
    """
    for loss in history.losses:
        spells = [spell for spell in history.of(loss.node, loss.session) if spell.since <= loss.at]
        if spells and spells[-1].since < struck_at <= loss.at:
            where = f"{loss.node}/{loss.session} at {loss.at - history.began:.3f}"
            history.violate("L11", f"{where} lost ({loss.reason}), and nothing else was")


def _limit(history: History, capacity: int) -> None:
    """L1: at no instant are more seats in use, by what was told, than there are."""
    used = [part for spell in history.spells for part in _while_promised(history, spell)]
    used += [(lease.since, lease.until, lease) for lease in history.leases]
    for at in sorted({since for since, _, _ in used}):
        using = {spell.seat: spell for since, until, spell in used if since <= at and until - SLACK > at}
        if len(using) > capacity:
            who = ", ".join(f"{each.node}/{each.session}" for each in using.values())
            history.violate("L1", f"{len(using)} of {capacity} seats in use at {at - history.began:.3f}: {who}")
            return


def _while_promised(history: History, spell: Spell) -> list[tuple[float, float, Spell]]:
    """Return the parts of a spell in which the store had promised to keep its node.

    What the store does not count yet has no part in a promise that was made after an earlier one had lapsed: the
    session that a receipt let in may turn out to have no seat.
    """
    parts = list[tuple[float, float, Spell]]()
    kept = 0.0
    for heard, until in history.promises.get(spell.node, []):
        lapsed, kept = heard > kept > 0, max(kept, until)
        if lapsed and spell.since < heard < spell.counted:
            heard = spell.counted  # noqa: PLW2901 - the promise is one to this session from then on
        since, end = max(heard, spell.since), min(until, spell.until)
        if since < end:
            parts.append((since, end, spell))
    return parts


def _loss(history: History, capacity: int, kept: float, loss: Loss) -> None:
    """L5, L7: a seat is taken when its node was silent for too long, or when there are really no others.

    Who asks for his session again before its node has beaten hears of the silence as ``capacity``: its seat is gone, and
    may be taken for a start whose caller has been answered ``offline`` and whose end is still owed.
    """
    where = f"{loss.node}/{loss.session} at {loss.at - history.began:.3f}"
    if loss.reason in {"timeout", "capacity"} and loss.promised <= loss.at + SLACK:
        return
    if loss.reason == "timeout":
        history.violate("L5", f"{where} taken {loss.promised - loss.at:.3f} s before its node's deadline")
        return
    others = {
        each.seat
        for each in history.spells
        if each.seat != loss.seat and each.asked <= loss.at and each.gone + kept >= loss.at - SLACK
    }
    if loss.reason != "capacity" or len(others) < capacity:
        history.violate("L7", f"{where} lost ({loss.reason}) with {len(others)} of {capacity} seats used by others")


def _told(history: History, trouble: Trouble) -> None:
    """L9: health says what is wrong while it is."""
    said = [node for node in trouble.nodes if _not_well(history, node, trouble)]
    if len(said) < trouble.at_least:
        history.violate("L9", f"{trouble.what}: only {len(said)} of {len(trouble.nodes)} nodes said so in their health")


def _not_well(history: History, node: str, trouble: Trouble) -> bool:
    seen = history.health.get(node, [])
    ends = [*(since for since, _ in seen[1:]), float("inf")]
    return any(
        status != "pass" and since <= trouble.until and end >= trouble.since
        for (since, status), end in zip(seen, ends, strict=True)
    )
