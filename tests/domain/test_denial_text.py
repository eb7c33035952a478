"""What a denied user reads: true for every kind of pool, and also where no pool is named."""

import pytest

from farmlease.domain.denial_text import denial
from farmlease.domain.model import Blocker, Reason

FULL = 1_798_000_000_000
#: Reasons that may come before any pool is known.
WITHOUT_POOL = (
    Reason.CAPACITY, Reason.NOT_ENTITLED, Reason.UNKNOWN_POOL, Reason.RECOVERING, Reason.OFFLINE, Reason.DRAINING,
)  # fmt: skip
#: Reasons that always come with their numbers.
COUNTED = {Reason.DEVICE_LIMIT, Reason.SESSION_LIMIT}


@pytest.mark.parametrize(
    ("reason", "pool"),
    [
        *((reason, "qlikview") for reason in Reason if reason not in COUNTED),
        *((reason, None) for reason in WITHOUT_POOL),
    ],
)
def test_a_sentence_holds_nothing_that_is_not_known(reason: Reason, pool: str | None) -> None:
    """L8: one sentence for each reason; without a pool none is called "no pool", and no number "None"."""
    sentence = denial(reason, pool).detail
    assert sentence.endswith(".")
    for wrong in ("no pool", "None", "{"):
        assert wrong not in sentence


def test_a_full_pool_says_how_full_and_until_when() -> None:
    """With the numbers as far as they are known, and the first end if there is one."""
    full = denial(Reason.CAPACITY, "q", held=3, capacity=3)
    assert "All seats of pool q are taken (3 of 3); each is in use now." == full.detail
    assert "All seats of pool q are taken; each is in use now." == denial(Reason.CAPACITY, "q").detail
    later = denial(Reason.CAPACITY, "q", held=3, capacity=3, retry_at=FULL)
    assert "All seats of pool q are taken (3 of 3); the first becomes free at 2026-12-23 04:27 UTC." == later.detail


def test_what_nobody_may_have_more_of_is_counted_and_not_listed() -> None:
    """Uses, devices or places in the queue: 256 of them are no sentence."""
    sessions = (Blocker(node="ctx-01", until=None, session="7"),) * 256
    devices = (Blocker(node=None, until=FULL, device="nb-1"),) * 64
    assert [
        "You have 256 sessions in pool q, and nobody may have more; end one of them.",
        (
            "Your licence in pool q is on 64 devices, and nobody's may be on more; the first becomes free at "
            "2026-12-23 04:27 UTC."
        ),
        "16 of your sessions wait for pool q, and nobody may have more wait; try again later.",
    ] == [
        denial(Reason.USER_LIMIT, "q", blocking=sessions, held=256, capacity=256).detail,
        denial(Reason.USER_LIMIT, "q", blocking=devices, held=64, capacity=64, retry_at=FULL).detail,
        denial(Reason.USER_LIMIT, "q", held=16, capacity=16).detail,
    ]


def test_a_device_limit_names_the_devices() -> None:
    """Which they are, and until when each is held."""
    blocking = (Blocker(node=None, until=None, device="citrix-a"), Blocker(node=None, until=FULL, device="NB-1"))
    sentence = denial(Reason.DEVICE_LIMIT, "q", blocking=blocking, capacity=2).detail
    expected = "is on 2 devices already, and 2 are allowed: citrix-a (in use now), NB-1 (until 2026-12-23 04:27 UTC)"
    assert expected in sentence
